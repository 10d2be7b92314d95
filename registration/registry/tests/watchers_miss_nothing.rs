//! Long polls and event streams: what they see, when they wake, and what happens when they were away too long.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Disk, Running, call, start, start_with};
use portolan_model::{Filter, Instance, State};
use portolan_registry::{Changes, RegistryConfig};
use portolan_telemetry::metrics::Metrics;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, tcp::OwnedReadHalf},
};

const SECOND: Duration = Duration::from_secs(1);

/// One event of a stream.
#[derive(Debug, Default, PartialEq)]
struct Event {
    name: String,
    id: u64,
    data: serde_json::Value,
}

struct Stream {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _writer: tokio::net::tcp::OwnedWriteHalf,
}

impl Stream {
    async fn open(running: &Running, query: &str, headers: &str) -> Self {
        let (reader, mut writer) = TcpStream::connect(running.api).await.unwrap().into_split();
        let request = format!("GET /v1/watch{query} HTTP/1.0\r\nHost: x\r\n{headers}\r\n");
        writer.write_all(request.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(reader).lines();
        let mut head = String::new();
        while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
            head += &line;
        }
        assert!(head.contains("200 OK") && head.contains("text/event-stream"), "{head}");
        Self { lines, _writer: writer }
    }

    async fn next(&mut self) -> Event {
        let mut event = Event::default();
        loop {
            let line =
                tokio::time::timeout(5 * SECOND, self.lines.next_line()).await.expect("an event in time");
            let line = line.unwrap().expect("the stream goes on");
            match line.split_once(": ") {
                Some(("event", name)) => event.name = name.to_owned(),
                Some(("id", id)) => event.id = id.parse().unwrap(),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !event.name.is_empty() => return event,
                _ => {}
            }
        }
    }

    async fn expect(&mut self, name: &str, instance: &str) -> Event {
        let event = self.next().await;
        assert_eq!((event.name.as_str(), event.data["name"].as_str()), (name, Some(instance)), "{event:?}");
        event
    }
}

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_and_goes_on_with_every_change() {
    let running = start().await;
    running.put("a", 1, None).await;
    let mut stream = Stream::open(&running, "", "").await;
    let first = stream.next().await;
    assert_eq!((first.name.as_str(), first.id), ("snapshot", running.registry.snapshot().index()));
    assert_eq!(first.data["index"], first.id);
    assert_eq!(first.data["instances"][0]["name"], "a");
    let begun = Instant::now();
    running.put("b", 2, None).await;
    let added = stream.expect("added", "b").await;
    assert!(begun.elapsed() < Duration::from_millis(500));
    assert_eq!(serde_json::from_value::<Instance>(added.data).unwrap(), running.instance("b").unwrap());
    running.put("b", 3, None).await;
    let changed = stream.expect("changed", "b").await;
    assert_eq!(changed.data["ports"][0]["port"], "3");
    running.call("DELETE", "/v1/instances/a", "").await;
    let removed = stream.expect("removed", "a").await;
    assert!(first.id < added.id && added.id < changed.id && changed.id < removed.id);

    // A stream that comes back goes on where it was, whether it says so as a browser or in the query.
    let mut again = Stream::open(&running, "", &format!("Last-Event-ID: {}\r\n", added.id)).await;
    assert_eq!(again.expect("changed", "b").await.id, changed.id);
    let mut again = Stream::open(&running, &format!("?index={}", changed.id), "").await;
    assert_eq!(again.expect("removed", "a").await.id, removed.id);
}

#[tokio::test]
async fn a_stream_with_a_filter_sees_the_filtered_world() {
    let running = start().await;
    let target = common::Target::start(common::says("200 OK")).await;
    let check = r#"{"kind":"http","path":"/","interval":"1s","timeout":"1s","fall":1}"#;
    let mut stream = Stream::open(&running, "?state=passing", "").await;
    assert_eq!(stream.next().await.data["instances"], serde_json::json!([]));
    running.put("a", target.port, Some(check)).await;
    assert_eq!(stream.expect("added", "a").await.data["state"], "passing", "not while it was unknown");
    target.set(|| common::says("500 No"));
    assert_eq!(
        stream.expect("removed", "a").await.data["state"],
        "critical",
        "it is there, but not for this watcher"
    );
    assert_eq!(running.state("a"), Some(State::Critical));
}

#[tokio::test]
async fn who_was_away_too_long_starts_over() {
    let config = RegistryConfig { history: 4, ..RegistryConfig::default() };
    let running = start_with(config, Disk::default()).await;
    running.put("a", 1, None).await;
    let index = running.registry.snapshot().index();
    for port in 2..10 {
        running.put("a", port, None).await;
    }
    let mut stream = Stream::open(&running, &format!("?index={index}"), "").await;
    assert_eq!(stream.next().await.name, "resync");
    let snapshot = stream.next().await;
    assert_eq!((snapshot.name.as_str(), snapshot.id), ("snapshot", running.registry.snapshot().index()));
    running.put("b", 1, None).await;
    stream.expect("added", "b").await;
    // An index of another catalog, which this one has not reached.
    let mut stream = Stream::open(&running, "?index=99999999", "").await;
    assert_eq!(stream.next().await.name, "resync");
}

#[tokio::test]
async fn many_changes_are_few_batches_and_none_is_missed() {
    let running = Arc::new(start().await);
    let mut stream = Stream::open(&running, "", "").await;
    stream.next().await;
    let writer = Arc::clone(&running);
    let writing = tokio::spawn(async move {
        for port in 1..=300 {
            writer.put("a", port, None).await;
        }
    });
    let mut last = 0;
    for port in 1..=300 {
        let event = stream.next().await;
        assert!(event.id > last);
        last = event.id;
        assert_eq!(event.data["ports"][0]["port"], port.to_string());
    }
    writing.await.unwrap();
}

#[tokio::test]
async fn who_waits_is_counted() {
    let metrics = Arc::new(Metrics::default());
    let config = RegistryConfig { metrics: Arc::clone(&metrics), ..RegistryConfig::default() };
    let running = start_with(config, Disk::default()).await;
    let mut stream = Stream::open(&running, "", "").await;
    stream.next().await;
    assert_eq!(metrics.watchers.get(), 1);
    drop(stream);
    running.put("a", 1, None).await;
    common::until(5 * SECOND, || metrics.watchers.get() == 0, || "still counted".into()).await;
}

#[tokio::test]
async fn a_long_poll_waits_for_what_it_asked_for_and_no_longer_than_it_said() {
    let running = start().await;
    running.put("a", 1, None).await;
    let api = running.api;
    let poll = |query: String| {
        tokio::spawn(async move {
            let begun = Instant::now();
            let reply = call(api, "GET", &format!("/v1/instances?{query}"), &[], "").await;
            (reply.json()["index"].as_u64().unwrap(), begun.elapsed())
        })
    };
    let index = running.registry.snapshot().index();
    // Nothing happens: after 1 s, and at most a sixteenth more (and some time for a busy machine).
    let (same, took) = poll(format!("index={index}&wait=1s")).await.unwrap();
    assert_eq!(same, index);
    assert!((SECOND..Duration::from_millis(1400)).contains(&took), "{took:?}");
    // Something else happens: it goes on waiting. What it asked for happens: it is back at once.
    let waiting = poll(format!("index={index}&service=a&wait=30s"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    running.put("b", 1, None).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiting.is_finished(), "another service woke it");
    running.put("a", 2, None).await;
    let (later, _) = tokio::time::timeout(SECOND, waiting).await.unwrap().unwrap();
    assert!(later > index);
    // It has missed something: back at once. It knows more than there is: back at once.
    for index in [index, 99_999_999] {
        let (now, took) = poll(format!("index={index}&wait=30s")).await.unwrap();
        assert!(now == later && took < SECOND, "{now} after {took:?}");
    }
}

/// Readers that replay the log while others write, renew and leave end with the catalog that a list shows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replaying_the_log_while_it_is_written_gives_the_snapshot() {
    let config = RegistryConfig { history: 100_000, ..RegistryConfig::default() };
    let running = Arc::new(start_with(config, Disk::default()).await);
    let start = running.registry.snapshot();
    let writers: Vec<_> = (0..4_u32)
        .map(|writer| {
            let registry = running.registry.clone();
            tokio::spawn(async move {
                for step in 0..250_u32 {
                    let name: portolan_model::Name =
                        format!("i{}", (step * 7 + writer) % 20).parse().unwrap();
                    if step % 5 == 4 {
                        let _ = registry.deregister(&name, None).await;
                        continue;
                    }
                    let mut registration = portolan_model::Registration::new(name);
                    registration.labels.insert("step".into(), format!("{writer}-{step}"));
                    registry.register(registration, portolan_registry::Caller::Unix).await.unwrap();
                }
            })
        })
        .collect();
    let registry = running.registry.clone();
    let reader = tokio::spawn(async move {
        let mut seen: std::collections::BTreeMap<_, _> =
            start.select(&Filter::default()).iter().map(|i| (i.key.name.clone(), (***i).clone())).collect();
        let mut index = start.index();
        let mut bell = registry.subscribe();
        loop {
            bell.borrow_and_update();
            let Changes::Since(changes) = registry.changes(index) else { panic!("the log is long enough") };
            for change in &changes {
                assert!(change.index > index);
                index = change.index;
                let instance = change.transition.instance();
                match &change.transition {
                    portolan_model::Transition::Removed(_) => drop(seen.remove(&instance.key.name)),
                    _ => drop(seen.insert(instance.key.name.clone(), instance.clone())),
                }
            }
            let snapshot = registry.snapshot();
            if snapshot.index() == index {
                let listed: Vec<_> = snapshot.iter().map(|i| (**i).clone()).collect();
                assert_eq!(seen.values().cloned().collect::<Vec<_>>(), listed);
            }
            if changes.is_empty() {
                tokio::select! {
                    changed = bell.changed() => changed.unwrap(),
                    () = tokio::time::sleep(SECOND) => return index,
                }
            }
        }
    });
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(reader.await.unwrap(), running.registry.snapshot().index());
}
