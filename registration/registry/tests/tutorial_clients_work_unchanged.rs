//! The register API of the dynamic-ports tutorial, byte for byte where a client may rely on it.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Running, says, start};
use portolan_model::State;

async fn register(running: &Running, body: &str) -> common::Reply {
    common::call(running.tutorial, "POST", "/register", &[], body).await
}

fn is_empty(reply: &common::Reply, status: u16) {
    assert_eq!((reply.status, reply.body.as_str()), (status, ""), "{reply:?}");
    assert_eq!(reply.header("content-length"), Some("0"), "{reply:?}");
    assert_eq!(reply.header("content-type"), None, "{reply:?}");
}

#[tokio::test]
async fn t1_the_go_clients_own_body_registers_once_however_often_it_comes() {
    let running = start().await;
    for _ in 0..3 {
        is_empty(
            &register(&running, "{\"Name\":\"a\",\"Address\":\"127.0.0.1:4000\",\"Tags\":null}\n").await,
            200,
        );
    }
    let snapshot = running.registry.snapshot();
    assert_eq!(snapshot.len(), 1);
    let instance = snapshot.get("a").unwrap();
    assert_eq!(instance.addresses, ["127.0.0.1".parse::<std::net::IpAddr>().unwrap()]);
    let port = instance.port("http").unwrap();
    assert_eq!((port.port.first(), port.protocols.to_string().as_str()), (4000, "tcp"));
    let check = instance.check.clone().unwrap();
    assert_eq!((check.to_string().as_str(), check.fall), ("http:/healthz@http", 4));
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(10), Duration::from_secs(5)));
}

#[tokio::test]
async fn t2_keys_in_any_case_any_method_any_type_and_the_row_is_replaced() {
    let running = start().await;
    is_empty(&register(&running, r#"{"Name":"a","Address":"127.0.0.1:4000","Tags":["x"]}"#).await, 200);
    is_empty(&register(&running, r#"{"name":"a","address":"127.0.0.1:4001","x":1} and more"#).await, 200);
    let instance = running.instance("a").unwrap();
    assert_eq!(instance.port("http").unwrap().port.first(), 4001);
    assert!(instance.tags.is_empty());
    for method in ["GET", "PUT", "DELETE", "PATCH", "BREW"] {
        let body = r#"{"Name":"b","Address":"127.0.0.1:4002"}"#;
        let headers = [("Content-Type", "image/png")];
        is_empty(&common::call(running.tutorial, method, "/register", &headers, body).await, 200);
    }
    assert_eq!(running.registry.snapshot().len(), 2);
}

#[tokio::test]
async fn t3_what_cannot_be_read_is_an_empty_500_and_what_cannot_be_probed_a_400_with_a_reason() {
    let running = start().await;
    for body in ["", "{", r#"{"Name":1}"#, "[]", r#"{"Name":"a","Address":"127.0.0.1:1","Tags":7}"#] {
        is_empty(&register(&running, body).await, 500);
    }
    for (body, reason) in [
        ("null", "Name: a name is empty"),
        ("{}", "Name: a name is empty"),
        (r#"{"Name":"a.b","Address":"127.0.0.1:1"}"#, "Name: the name \"a.b\" is no DNS label"),
        (r#"{"Name":"a","Address":"nowhere"}"#, "Address: \"nowhere\" is no address"),
    ] {
        let reply = register(&running, body).await;
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.body.starts_with(reason), "{reply:?}");
    }
    for address in ["169.254.169.254:80", "203.0.113.5:80", "0.0.0.0:80", "[ff02::1]:80"] {
        let reply = register(&running, &format!(r#"{{"Name":"a","Address":"{address}"}}"#)).await;
        assert_eq!(reply.status, 403, "{reply:?}");
        assert!(reply.body.starts_with("addresses: "), "{reply:?}");
    }
    assert!(running.registry.snapshot().is_empty());
}

#[tokio::test]
async fn t4_every_other_path_is_gos_404() {
    let running = start().await;
    for path in ["/", "/register/", "/Register", "/v1/instances"] {
        let reply =
            common::call(running.tutorial, "POST", path, &[], r#"{"Name":"a","Address":"127.0.0.1:1"}"#)
                .await;
        assert_eq!((reply.status, reply.body.as_str()), (404, "404 page not found\n"));
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
    // And the other way round: a client that is pointed at the page's port must not believe it has registered.
    let reply = running.call("POST", "/register", r#"{"Name":"a","Address":"127.0.0.1:1"}"#).await;
    assert_eq!(reply.status, 404);
    assert!(running.registry.snapshot().is_empty());
}

#[tokio::test]
async fn t5_a_backend_that_answers_is_served_at_once() {
    let running = start().await;
    let target = common::Target::start(says("200 OK")).await;
    let body = format!(r#"{{"Name":"a","Address":"127.0.0.1:{}"}}"#, target.port);
    is_empty(&register(&running, &body).await, 200);
    running.until_state("a", State::Passing, Duration::from_secs(2)).await;
    let asked = target.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("GET /healthz HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("connection: close\r\n"), "{asked}");
}
