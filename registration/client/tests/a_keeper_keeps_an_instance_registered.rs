//! The keeper against registries that come, go, forget and refuse.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{REGISTERED, Script, reply, until};
use portolan_client::{Keeper, Status};
use portolan_model::Registration;

const SECOND: Duration = Duration::from_secs(1);

fn registration() -> Registration {
    Registration { incarnation: Some("one".parse().unwrap()), ..Registration::new("a".parse().unwrap()) }
}

fn good(line: &str) -> String {
    match line.split(' ').next().unwrap() {
        "PUT" => reply("201 Created", REGISTERED),
        _ => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
    }
}

#[tokio::test]
async fn it_registers_renews_every_third_of_the_lease_and_leaves() {
    let script = Script::start(good).await;
    let keeper = Keeper::start(script.client(), registration());
    let begun = Instant::now();
    until(4 * SECOND, || script.count("POST /v1/instances/a/renew?incarnation=one") >= 4).await;
    // Four renewals of a lease of one second: a third each, 10 % more or less, and a busy machine.
    let took = begun.elapsed();
    assert!((Duration::from_millis(1180)..Duration::from_millis(2200)).contains(&took), "{took:?}");
    assert!(keeper.status().borrow().is_registered());
    keeper.leave().await;
    assert_eq!(script.asked.lock().unwrap().last().unwrap(), "DELETE /v1/instances/a?incarnation=one");
    assert_eq!(script.count("PUT"), 1);
    let count = script.asked.lock().unwrap().len();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(script.asked.lock().unwrap().len(), count, "it went on after it left");
    assert!(script.whole.lock().unwrap()[0].to_lowercase().contains("authorization: bearer s3cret\r\n"));
}

#[tokio::test]
async fn a_registry_that_forgot_it_hears_of_it_again_at_once() {
    let script = Script::start(good).await;
    let _keeper = Keeper::start(script.client(), registration());
    until(SECOND, || script.count("PUT") == 1).await;
    let mut forgot = true;
    script.set(move |line| {
        if line.starts_with("POST") && std::mem::take(&mut forgot) {
            return reply("404 Not Found", r#"{"error":"no instance"}"#);
        }
        good(line)
    });
    until(2 * SECOND, || script.count("PUT") == 2).await;
}

#[tokio::test]
async fn a_registry_that_is_away_is_waited_for() {
    let script = Script::start(good).await;
    let keeper = Keeper::start(script.client(), registration());
    until(SECOND, || script.count("PUT") == 1).await;
    let address = script.stop().await;
    let mut status = keeper.status();
    tokio::time::timeout(5 * SECOND, status.wait_for(|s| matches!(s, Status::Trying(Some(_)))))
        .await
        .unwrap()
        .unwrap();
    let Status::Trying(Some(error)) = status.borrow().clone() else { panic!("it is not away") };
    assert!(
        error.to_string().starts_with(&format!("no portolan at http://{address}: start one with")),
        "{error}"
    );
    let script = Script::at(address, good).await;
    until(5 * SECOND, || script.count("PUT") >= 1).await;
    tokio::time::timeout(SECOND, status.wait_for(Status::is_registered)).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_does_not_fight_with_the_life_that_replaced_it() {
    let script = Script::start(good).await;
    let keeper = Keeper::start(script.client(), registration());
    until(SECOND, || script.count("PUT") == 1).await;
    script.set(|_| reply("409 Conflict", r#"{"error":"a is now incarnation two"}"#));
    let mut status = keeper.status();
    tokio::time::timeout(2 * SECOND, status.wait_for(|s| matches!(s, Status::Replaced)))
        .await
        .unwrap()
        .unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(script.count("PUT"), 1);
    keeper.leave().await;
}

#[tokio::test]
async fn a_refusal_is_told_and_what_changes_is_said() {
    let script = Script::start(|_| reply("403 Forbidden", r#"{"error":"not yours"}"#)).await;
    let keeper = Keeper::start(script.client(), registration());
    let mut status = keeper.status();
    tokio::time::timeout(2 * SECOND, status.wait_for(|s| matches!(s, Status::Refused(_))))
        .await
        .unwrap()
        .unwrap();
    script.set(good);
    // Not in half a minute, but now that it says something else.
    keeper.update(Registration { tags: vec!["new".into()], ..registration() });
    tokio::time::timeout(2 * SECOND, status.wait_for(Status::is_registered)).await.unwrap().unwrap();
    assert!(script.whole.lock().unwrap().last().unwrap().contains(r#""tags":["new"]"#));
}

#[tokio::test]
async fn leaving_a_registry_that_does_not_answer_takes_two_seconds_at_most() {
    let script = Script::start(|_| String::new()).await;
    let client = script.client().with_timeout(60 * SECOND);
    let keeper = Keeper::start(client, registration());
    until(SECOND, || script.count("PUT") == 1).await;
    let begun = Instant::now();
    keeper.leave().await;
    assert!(begun.elapsed() < 3 * SECOND);
}
