//! Checks against targets that behave well, badly and strangely. Intervals are a second, the least there is.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{Act, Target, says, start};
use portolan_model::State;

const SECOND: Duration = Duration::from_secs(1);

fn http(fall: u32, rise: u32) -> String {
    format!(
        r#"{{"kind":"http","path":"/healthz","interval":"1s","timeout":"500ms","fall":{fall},"rise":{rise}}}"#
    )
}

#[tokio::test]
async fn the_first_look_comes_at_once_and_one_success_is_enough() {
    let running = start().await;
    let target = Target::start(says("204 No Content")).await;
    let begun = Instant::now();
    let check = r#"{"kind":"http","path":"/ready?x=1","interval":"1h","rise":9}"#;
    let reply = running.put("a", target.port, Some(check)).await;
    assert_eq!(reply.status, 201);
    assert_eq!(reply.json()["state"], "unknown", "nobody is sent there before somebody has looked");
    running.until_state("a", State::Passing, SECOND).await;
    assert!(begun.elapsed() < SECOND);
    assert!(target.asked.lock().unwrap()[0].starts_with("GET /ready?x=1 HTTP/1.1\r\n"));
    let expected = format!("GET http://127.0.0.1:{}/ready?x=1: 204 No Content", target.port);
    assert_eq!(running.instance("a").unwrap().output, expected);
}

#[tokio::test]
async fn a_server_that_needs_a_moment_to_start_is_seen_soon_and_not_an_interval_later() {
    let running = start().await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    running.put("late", port, Some(r#"{"kind":"tcp","interval":"1h"}"#)).await;
    // Bound and not listening: connections are refused meanwhile. This is how long the server takes to start.
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(running.state("late"), Some(State::Unknown), "what is not there yet is not held against it");
    let _listener = socket.listen(1).unwrap();
    running.until_state("late", State::Passing, 5 * SECOND).await;
}

#[tokio::test]
async fn every_way_to_fail_is_told_apart() {
    let running = start().await;
    let redirected = Target::start(says("200 OK")).await;
    let elsewhere = format!(
        "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{}/\r\nContent-Length: 0\r\n\r\n",
        redirected.port
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = silent.local_addr().unwrap().port();
    drop(silent);
    let cases = [
        ("error", Target::start(says("500 Internal Server Error")).await.port, "500 Internal Server Error"),
        ("moved", Target::start(Act::Say(elsewhere)).await.port, "302 Found, and redirects are not followed"),
        ("hang", Target::start(Act::Hang).await.port, "no answer within 500ms"),
        ("reset", Target::start(Act::Reset).await.port, "no HTTP reply: "),
        ("garbage", Target::start(Act::Say("SSH-2.0-x\r\n".into())).await.port, "no HTTP reply: "),
        ("closed", closed, "Connection refused"),
    ];
    for (name, port, _) in &cases {
        running.put(name, *port, Some(&http(1, 1))).await;
    }
    for (name, _, says) in &cases {
        running.until_state(name, State::Critical, 3 * SECOND).await;
        let output = running.instance(name).unwrap().output;
        assert!(output.contains(says), "{name}: {output}");
    }
    assert_eq!(redirected.count(), 0, "a redirect was followed");
}

#[tokio::test]
async fn too_many_requests_is_a_warning_and_tcp_needs_no_answer() {
    let running = start().await;
    let busy = Target::start(says("429 Too Many Requests")).await;
    running.put("busy", busy.port, Some(&http(3, 2))).await;
    let mute = Target::start(Act::Hang).await;
    running.put("mute", mute.port, Some(r#"{"kind":"tcp","interval":"1s","timeout":"500ms"}"#)).await;
    running.until_state("busy", State::Warning, SECOND).await;
    running.until_state("mute", State::Passing, SECOND).await;
}

#[tokio::test]
async fn it_falls_after_some_failures_and_rises_after_some_successes() {
    let running = start().await;
    let target = Target::start(says("200 OK")).await;
    running.put("a", target.port, Some(&http(2, 2))).await;
    running.until_state("a", State::Passing, SECOND).await;
    target.set(|| says("503 Service Unavailable"));
    let before = target.count();
    running.until_state("a", State::Critical, 5 * SECOND).await;
    assert!(target.count() - before >= 2, "one failure was enough");
    target.set(|| says("200 OK"));
    let before = target.count();
    running.until_state("a", State::Passing, 5 * SECOND).await;
    assert!(target.count() - before >= 2, "one success was enough");
}

#[tokio::test]
async fn results_that_alternate_within_the_thresholds_are_no_event() {
    let running = start().await;
    let looks = Arc::new(AtomicUsize::new(0));
    let target = Target::start(says("200 OK")).await;
    let counter = Arc::clone(&looks);
    target.set(move || match counter.fetch_add(1, Ordering::Relaxed) % 2 {
        0 => says("200 OK"),
        _ => Act::Reset,
    });
    running.put("a", target.port, Some(&http(2, 2))).await;
    running.until_state("a", State::Passing, SECOND).await;
    let index = running.registry.snapshot().index();
    common::until(10 * SECOND, || looks.load(Ordering::Relaxed) >= 6, || "too few looks".into()).await;
    assert_eq!(running.registry.snapshot().index(), index);
}

#[tokio::test]
async fn hosts_that_do_not_answer_delay_nobody_else() {
    // Four looks at a time, and twelve targets that hang for the whole time-out.
    let config = portolan_registry::RegistryConfig { checks: 4, ..Default::default() };
    let running = common::start_with(config, common::Disk::default()).await;
    let hang = Target::start(Act::Hang).await;
    for n in 0..12 {
        let check = r#"{"kind":"http","path":"/","interval":"2s","timeout":"2s","fall":1}"#;
        running.put(&format!("dead-{n}"), hang.port, Some(check)).await;
    }
    common::until(
        30 * SECOND,
        || (0..12).all(|n| running.state(&format!("dead-{n}")) == Some(State::Critical)),
        || "not all were found dead".into(),
    )
    .await;
    // From here on the dead have a queue of their own.
    let good = Target::start(says("200 OK")).await;
    for n in 0..5 {
        let name = format!("good-{n}");
        running.put(&name, good.port, Some(&http(1, 1))).await;
        running.until_state(&name, State::Passing, SECOND).await;
    }
    good.set(|| says("500 No"));
    for n in 0..5 {
        running.until_state(&format!("good-{n}"), State::Critical, 3 * SECOND).await;
    }
}

#[tokio::test]
async fn what_a_target_says_is_cut_and_cleaned() {
    let running = start().await;
    let body = format!("\u{1b}[31mred\u{7}{}", "é".repeat(5000));
    let reply = format!("HTTP/1.1 500 No\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let target = Target::start(Act::Say(reply)).await;
    running.put("a", target.port, Some(&http(1, 1))).await;
    running.until_state("a", State::Critical, 2 * SECOND).await;
    let output = running.instance("a").unwrap().output;
    assert!(output.len() <= 4096 && output.len() > 4000, "{}", output.len());
    assert!(output.contains("[31mred") && !output.contains(['\u{1b}', '\u{7}']));
}

#[tokio::test]
async fn nobody_looks_at_what_has_left() {
    let running = start().await;
    let target = Target::start(says("200 OK")).await;
    running.put("a", target.port, Some(&http(1, 1))).await;
    running.until_state("a", State::Passing, SECOND).await;
    assert_eq!(running.call("DELETE", "/v1/instances/a", "").await.status, 204);
    let count = target.count();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(target.count(), count);
}
