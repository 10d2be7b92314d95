use std::time::Duration;

use super::*;

fn pod(name: &str) -> PodKey {
    PodKey { namespace: "a".to_owned(), name: name.to_owned(), uid: "u".to_owned() }
}

fn say(key: &str, value: &str) -> Annotations {
    Annotations::from([(key.to_owned(), Some(value.to_owned()))])
}

async fn is_idle(queue: &Queue) -> bool {
    tokio::time::timeout(Duration::from_millis(1), queue.take()).await.is_err()
}

#[tokio::test(start_paused = true)]
async fn the_newest_value_of_a_key_wins_and_one_patch_says_all() {
    let queue = Queue::new(Arc::default());
    queue.put(&pod("x"), say("ports", "1"), None);
    queue.put(&pod("x"), say("other", "2"), None);
    queue.put(&pod("x"), say("ports", "3"), None);
    let job = queue.take().await;
    assert_eq!(job.changes, [say("ports", "3"), say("other", "2")].into_iter().flatten().collect());
    assert!(is_idle(&queue).await, "nobody else may be at the same Pod");
    queue.put(&pod("x"), say("ports", "4"), None);
    queue.done(job, Outcome::Later);
    let job = queue.take().await;
    assert_eq!(job.changes["ports"].as_deref(), Some("4"), "an old value does not come back");
    assert_eq!(job.changes["other"].as_deref(), Some("2"), "and what did not land is said again");
    queue.done(job, Outcome::Landed);
    assert_eq!(queue.len(), 0);
    queue.drained().await;
}

#[tokio::test(start_paused = true)]
async fn one_pod_that_fails_does_not_keep_the_others() {
    let queue = Queue::new(Arc::default());
    queue.put(&pod("bad"), say("a", "1"), None);
    let bad = queue.take().await;
    queue.done(bad, Outcome::Later);
    queue.put(&pod("good"), say("a", "1"), None);
    let good = queue.take().await;
    assert_eq!(good.pod, pod("good"));
    queue.done(good, Outcome::Landed);
    assert_eq!(queue.take().await.pod, pod("bad"), "and is tried again after its wait");
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_what_became_of_it() {
    let queue = Queue::new(Arc::default());
    let (done, told) = oneshot::channel();
    queue.put(&pod("x"), say("a", "1"), Some(done));
    let job = queue.take().await;
    queue.done(job, Outcome::Later);
    let job = queue.take().await;
    queue.put(&pod("x"), say("b", "1"), None);
    queue.done(job, Outcome::Gone);
    assert_eq!(told.await.unwrap(), Err(PublishError::Gone(pod("x"))));
    assert_eq!(queue.len(), 0, "there is nothing more to say about a Pod that is gone");
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_counts_what_it_drops() {
    let counters = Arc::<Counters>::default();
    let queue = Queue::new(counters.clone());
    for number in 0..MOST + 10 {
        queue.put(&pod(&number.to_string()), say("a", "1"), None);
    }
    assert_eq!(queue.len(), MOST);
    assert_eq!(counters.dropped.load(Ordering::Relaxed), 10);
}
