//! Every way in which a request can fail, told apart; and a watch that survives them.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use common::{Script, reply};
use portolan_client::{Client, ClientError, Endpoint, Event};
use portolan_model::{Filter, InstanceKey, Transition};

const LISTING: &str = r#"{"index":5,"instances":[]}"#;

fn key() -> InstanceKey {
    InstanceKey { name: "a".parse().unwrap(), incarnation: "o/n+e".parse().unwrap() }
}

#[tokio::test]
async fn nobody_there_says_how_to_start_one() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(free.to_string().parse().unwrap(), None);
    let error = client.list(&Filter::default()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("no portolan at http://{free}: start one with `portolan up`"));
    assert!(error.is_transient());
    let folder = tempfile::tempdir().unwrap();
    let client = Client::new(Endpoint::Unix(folder.path().join("portolan.sock")), None);
    let error = client.list(&Filter::default()).await.unwrap_err();
    assert!(error.to_string().contains("portolan.sock: start one with `portolan up`"), "{error}");
}

#[tokio::test]
async fn what_the_registry_says_is_passed_on() {
    let script =
        Script::start(|_| reply("404 Not Found", r#"{"error":"no instance is registered as a"}"#)).await;
    let error = script.client().renew(&key()).await.unwrap_err();
    assert!(error.is_not_found() && !error.is_transient() && !error.is_replaced());
    assert_eq!(
        error.to_string(),
        format!("http://{} says: no instance is registered as a (HTTP 404)", script.address)
    );
    assert_eq!(script.asked.lock().unwrap()[0], "POST /v1/instances/a/renew?incarnation=o%2Fn%2Be");
    script.set(|_| reply("503 Service Unavailable", "overloaded"));
    let error = script.client().list(&Filter::default()).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("Service Unavailable (HTTP 503)"), "{error}");
}

/// The tutorial's client believed for ever that a page which answers 200 to everything had registered it.
#[tokio::test]
async fn something_else_that_answers_is_no_registry() {
    let script = Script::start(|_| reply("200 OK", "<html>")).await;
    let client = script.client();
    let name = "a".parse().unwrap();
    for error in [
        client.renew(&key()).await.unwrap_err(),
        client.get(&name).await.map(drop).unwrap_err(),
        client.register(&portolan_model::Registration::new(name)).await.map(drop).unwrap_err(),
        client.watch(&Filter::default()).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::Strange { .. }), "{error:?}");
        assert!(error.to_string().contains("is no portolan: "), "{error}");
    }
    script.set(|_| "SSH-2.0-OpenSSH\r\n".to_owned());
    let error = client.renew(&key()).await.unwrap_err();
    assert!(matches!(error, ClientError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn silence_ends_at_the_time_out() {
    let script = Script::start(|_| String::new()).await;
    let error = script.client().list(&Filter::default()).await.unwrap_err();
    let expected =
        format!("http://{} did not answer within 500ms: it hangs or is overloaded", script.address);
    assert_eq!(error.to_string(), expected);
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_watch_goes_on_where_the_connection_was_lost() {
    let instance = r#"{"name":"a","incarnation":"i","service":"s","node":"n","addresses":[],"ports":[],"state":"passing","since":"2026-01-01T00:00:00Z","registered":"2026-01-01T00:00:00Z"}"#;
    let head = "HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let first = format!(
        "{head}id: 5\nevent: snapshot\ndata: {LISTING}\n\n: heartbeat\n\nevent: news\ndata: x\n\nid: 6\nevent: added\ndata: {instance}\n\n"
    );
    let second = format!("{head}event: removed\nid: 9\ndata: {instance}\n\n");
    let calls = AtomicUsize::new(0);
    let script = Script::start(move |_| match calls.fetch_add(1, Ordering::Relaxed) {
        // With a parameter, by which the script knows that it is to close this stream at its end.
        0 => first.replace("event-stream", "event-stream; x"),
        1 => reply("503 Service Unavailable", r#"{"error":"shutting down"}"#),
        _ => second.clone(),
    })
    .await;
    let filter = Filter { service: Some("s".parse().unwrap()), ..Filter::default() };
    let mut watch = script.client().watch(&filter).await.unwrap();
    let Event::Snapshot(listing) = watch.next().await.unwrap() else { panic!("no snapshot first") };
    assert_eq!(listing.index, 5);
    let Event::Change { index: 6, transition: Transition::Added(added) } = watch.next().await.unwrap() else {
        panic!("no change next")
    };
    assert_eq!(added.key.name.as_str(), "a");
    let lost = tokio::time::timeout(Duration::from_secs(12), watch.next()).await.unwrap().unwrap_err();
    assert!(lost.to_string().ends_with("the registry ended the watch"), "{lost}");
    let away = watch.next().await.unwrap_err();
    assert!(away.to_string().contains("shutting down"), "{away}");
    let Event::Change { index: 9, transition: Transition::Removed(_) } = watch.next().await.unwrap() else {
        panic!("it did not go on")
    };
    let asked = script.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        ["GET /v1/watch?service=s", "GET /v1/watch?service=s&index=6", "GET /v1/watch?service=s&index=6"]
    );
}
