//! The HTTP API over real sockets: register, renew, leave, list, and every refusal.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use common::{Disk, call, start, start_with};
use portolan_model::State;
use portolan_registry::{Registry, RegistryConfig, api};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_instance_registers_renews_and_leaves() {
    let running = start().await;
    let body = r#"{"name":"web-1","incarnation":"one","service":"web","ports":[{"name":"http","port":20417},
        {"name":"media","port":"21000-21099","protocols":["udp"],"container":21000}],"labels":{"tier":"front"},"ttl":"1m"}"#;
    let reply = running.call("PUT", "/v1/instances/web-1", body).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    let json = reply.json();
    assert_eq!(
        (&json["incarnation"], &json["ttl"], &json["state"]),
        (&"one".into(), &"1m".into(), &"passing".into())
    );
    assert_eq!(reply.header("x-portolan-index"), Some(json["index"].to_string().as_str()));
    assert_eq!(running.call("PUT", "/v1/instances/web-1", body).await.status, 200, "known");

    let reply = running.call("GET", "/v1/instances/web-1", "").await;
    let instance = reply.json();
    assert_eq!(instance["addresses"], serde_json::json!(["127.0.0.1"]), "where it came from");
    assert_eq!(instance["node"], "localhost");
    assert_eq!(
        instance["ports"][1],
        serde_json::json!({"name":"media","protocols":["udp"],"port":"21000-21099","container":21000})
    );
    assert_eq!(reply.header("content-type"), Some("application/json"));

    let renew = |life: &'static str| running.call("POST", life, "");
    assert_eq!(renew("/v1/instances/web-1/renew?incarnation=one").await.status, 204);
    assert_eq!(renew("/v1/instances/web-1/renew").await.status, 204);
    assert_eq!(renew("/v1/instances/web-1/renew?incarnation=two").await.status, 409);
    let reply = renew("/v1/instances/other/renew").await;
    assert_eq!(
        (reply.status, reply.error()),
        (404, "no instance is registered as other: register it again".into())
    );

    let delete = |path: &'static str| running.call("DELETE", path, "");
    let reply = delete("/v1/instances/web-1?incarnation=zero").await;
    assert_eq!(reply.status, 409);
    assert!(reply.error().starts_with("web-1 is now incarnation one"), "{reply:?}");
    assert_eq!(delete("/v1/instances/web-1?incarnation=one").await.status, 204);
    assert_eq!(delete("/v1/instances/web-1").await.status, 404);
    assert_eq!(running.call("GET", "/v1/instances/web-1", "").await.status, 404);
}

#[tokio::test]
async fn lists_are_filtered_and_sorted() {
    let running = start().await;
    for (name, service, port, label) in [("b", "x", 1, "1"), ("a", "x", 2, "2"), ("c", "y", 3, "1")] {
        let body = format!(
            r#"{{"service":"{service}","ports":[{{"name":"p{port}","port":{port}}}],"labels":{{"l":"{label}"}}}}"#
        );
        running.call("PUT", &format!("/v1/instances/{name}"), &body).await;
    }
    for (query, expected) in [
        ("", "abc"),
        ("?service=x", "ab"),
        ("?name=c", "c"),
        ("?label=l=1", "bc"),
        ("?label=l%3D1&service=x", "b"),
        ("?port=2", "a"),
        ("?port=p3", "c"),
        ("?state=critical", ""),
        ("?state=passing,critical&service=y", "c"),
        ("?service=none", ""),
        ("?index=", "abc"),
    ] {
        let reply = running.call("GET", &format!("/v1/instances{query}"), "").await;
        assert_eq!(reply.status, 200);
        let names: String = reply.json()["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| i["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, expected, "{query}");
        assert_ne!(reply.header("x-portolan-index"), Some("0"));
    }
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    let running = start().await;
    let put = |path: &'static str, body: &'static str| running.call("PUT", path, body);
    for (path, body, status, reason) in [
        ("/v1/instances/A", "", 400, "name: the name \"A\" is no DNS label"),
        ("/v1/instances/a", "{", 400, "the body is no registration: EOF"),
        ("/v1/instances/a", "[]", 400, "the body is no registration: it must be a JSON object"),
        ("/v1/instances/a", r#"{"name":"b"}"#, 400, "name: the body says \"b\", the path says a"),
        ("/v1/instances/a", r#"{"port":1}"#, 400, "the body is no registration: unknown field `port`"),
        (
            "/v1/instances/a",
            r#"{"ports":[{"name":"x","port":70000}]}"#,
            400,
            "the body is no registration: a port such as",
        ),
        ("/v1/instances/a", r#"{"ttl":"1ms"}"#, 400, "ttl: 1ms is not between 1s and 1day"),
        (
            "/v1/instances/a",
            r#"{"addresses":["169.254.169.254"]}"#,
            403,
            "addresses: 169.254.169.254 cannot be registered",
        ),
        (
            "/v1/instances/a",
            r#"{"addresses":["203.0.113.9"]}"#,
            403,
            "addresses: 203.0.113.9 is neither an address of this machine",
        ),
        ("/v1/nothing", "", 404, "there is nothing at /v1/nothing"),
        ("/v1/instances", "", 405, "/v1/instances does not take PUT"),
    ] {
        let reply = put(path, body).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.error().starts_with(reason), "{reply:?}");
    }
    let big = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(70_000));
    assert_eq!(running.call("PUT", "/v1/instances/a", &big).await.status, 413);
    assert_eq!(running.call("GET", "/v1/instances?sevice=x", "").await.status, 400);
    assert!(running.registry.snapshot().is_empty());
    assert_eq!(put("/v1/instances/bare", "").await.status, 201, "a name is enough");
}

#[tokio::test]
async fn only_this_machine_and_token_holders_write() {
    let config = RegistryConfig { token: Some("s3cret".into()), ..RegistryConfig::default() };
    let running = start_with(config, Disk::default()).await;
    let put = |headers: &'static [(&'static str, &'static str)]| {
        call(running.api, "PUT", "/v1/instances/a", headers, "")
    };
    assert_eq!(put(&[("Authorization", "Bearer wrong")]).await.status, 401);
    assert_eq!(put(&[("X-Forwarded-For", "198.51.100.1")]).await.status, 403);
    assert_eq!(put(&[("Origin", "https://evil.example")]).await.status, 403);
    assert!(running.registry.snapshot().is_empty());
    for (method, path) in [("POST", "/v1/instances/a/renew"), ("DELETE", "/v1/instances/a")] {
        assert_eq!(call(running.api, method, path, &[("Origin", "null")], "").await.status, 403);
    }
    let evil = [("Origin", "https://evil.example")];
    let body = r#"{"Name":"a","Address":"127.0.0.1:1"}"#;
    assert_eq!(call(running.tutorial, "POST", "/register", &evil, body).await.status, 403);
    assert_eq!(put(&[("Authorization", "Bearer s3cret")]).await.status, 201);
    assert_eq!(put(&[]).await.status, 200);
    assert_eq!(call(running.api, "GET", "/v1/instances", &evil, "").await.status, 200, "reading is free");
}

/// From another address than loopback, in a network namespace: the kernel says where a connection comes from.
#[tokio::test]
async fn a_write_from_an_address_that_is_not_loopback_is_refused() {
    portolan_testkit::need_root!();
    let namespace = portolan_testkit::net::Namespace::new();
    namespace.ip("address add 192.0.2.2/32 dev lo");
    namespace.ip("address add 2001:db8::2/128 dev lo nodad");
    let config = RegistryConfig { token: Some("s3cret".into()), ..RegistryConfig::default() };
    let registry = Registry::start(config, Box::new(Disk::default())).await.unwrap();
    let listener = namespace.run(|| std::net::TcpListener::bind("[::]:10080")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let both = api::router(registry.clone()).route("/register", axum::routing::any(|| async {}));
    tokio::spawn(api::serve(listener, both, CancellationToken::new()));
    let ask = async |to: &str, method: &str, headers: &[(&str, &str)]| {
        let stream = namespace.run(|| std::net::TcpStream::connect((to, 10080))).unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = TcpStream::from_std(stream).unwrap();
        common::exchange(stream, method, "/v1/instances/a", headers, "").await
    };
    for outside in ["192.0.2.2", "2001:db8::2"] {
        for method in ["PUT", "DELETE"] {
            let reply = ask(outside, method, &[]).await;
            assert_eq!(reply.status, 401, "{reply:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            let reason = format!("{outside} may not write here: send `Authorization: Bearer TOKEN`");
            assert!(reply.error().starts_with(&reason), "{reply:?}");
        }
    }
    assert!(registry.snapshot().is_empty());
    assert_eq!(
        ask("127.0.0.1", "PUT", &[]).await.status,
        201,
        "an IPv4 client of a dual-stack socket, by loopback"
    );
    assert_eq!(ask("::1", "DELETE", &[]).await.status, 204);
    assert_eq!(ask("192.0.2.2", "PUT", &[("Authorization", "Bearer s3cret")]).await.status, 201);
    assert_eq!(ask("192.0.2.2", "GET", &[]).await.json()["addresses"], serde_json::json!(["192.0.2.2"]));
}

/// A router that is served without saying who is at the other end lets nobody write.
#[tokio::test]
async fn who_is_at_the_other_end_must_be_known() {
    let registry = Registry::start(RegistryConfig::default(), Box::new(Disk::default())).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, api::router(registry)).await });
    assert_eq!(call(address, "PUT", "/v1/instances/a", &[], "").await.status, 401);
}

#[tokio::test]
async fn the_unix_socket_is_served_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.sock");
    let registry = Registry::start(RegistryConfig::default(), Box::new(Disk::default())).await.unwrap();
    let shutdown = CancellationToken::new();
    let listener = UnixListener::bind(&path).unwrap();
    let served = tokio::spawn(api::serve(listener, api::router(registry.clone()), shutdown.clone()));
    let stream = UnixStream::connect(&path).await.unwrap();
    let reply = common::exchange(stream, "PUT", "/v1/instances/a", &[], "").await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(registry.snapshot().get("a").unwrap().addresses[0].to_string(), "127.0.0.1");
    shutdown.cancel();
    tokio::time::timeout(SECOND, served).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_cannot_be_stored_has_not_happened() {
    let running = start().await;
    assert_eq!(running.put("kept", 1, None).await.status, 201);
    running.disk.full.store(true, Ordering::Relaxed);
    let index = running.registry.snapshot().index();
    let reply = running.put("lost", 2, None).await;
    assert_eq!((reply.status, reply.error()), (503, "cannot store it: the disk is full".into()));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(running.put("kept", 3, None).await.status, 503, "nor does an update");
    assert_eq!(running.call("DELETE", "/v1/instances/kept", "").await.status, 503);
    assert_eq!(running.registry.snapshot().index(), index);
    assert_eq!(
        running.call("POST", "/v1/instances/kept/renew", "").await.status,
        204,
        "renewals need no disk"
    );
    assert_eq!(running.put("kept", 1, None).await.status, 200, "nor do the same words again");
    assert_eq!(running.call("GET", "/readyz", "").await.status, 503);
    assert_eq!(running.call("GET", "/healthz", "").await.status, 200);
    running.disk.full.store(false, Ordering::Relaxed);
    assert_eq!(running.put("lost", 2, None).await.status, 201);
    assert_eq!(running.call("GET", "/readyz", "").await.status, 200);
}

#[tokio::test]
async fn renewals_are_not_written() {
    let running = start().await;
    running.put("a", 1, None).await;
    let before = running.disk.writes.load(Ordering::Relaxed);
    for _ in 0..50 {
        assert_eq!(running.call("POST", "/v1/instances/a/renew", "").await.status, 204);
        assert_eq!(running.put("a", 1, None).await.status, 200);
    }
    assert_eq!(running.disk.writes.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn registrations_at_the_same_time_share_a_write() {
    let running = Arc::new(start().await);
    running.disk.slow.store(20, Ordering::Relaxed);
    let before = running.disk.writes.load(Ordering::Relaxed);
    let all: Vec<_> = (0..200)
        .map(|n| {
            let running = Arc::clone(&running);
            tokio::spawn(async move { running.put(&format!("i{n}"), 1, None).await.status })
        })
        .collect();
    for one in all {
        assert_eq!(one.await.unwrap(), 201);
    }
    let writes = running.disk.writes.load(Ordering::Relaxed) - before;
    assert!(writes <= 100, "{writes} writes for 200 registrations");
    assert_eq!(running.disk.records.lock().unwrap().len(), 200);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_with_its_state_and_a_higher_index() {
    let disk = Disk::default();
    let first = start_with(RegistryConfig::default(), disk.clone()).await;
    let target = common::Target::start(common::says("200 OK")).await;
    let check = r#"{"kind":"http","path":"/","interval":"1h"}"#;
    first.put("checked", target.port, Some(check)).await;
    first.put("plain", 1, None).await;
    first.until_state("checked", State::Passing, SECOND).await;
    let before = first.registry.snapshot();
    first.registry.shutdown().await;

    let second = start_with(RegistryConfig::default(), disk).await;
    let after = second.registry.snapshot();
    assert!(after.index() > before.index(), "{} is not above {}", after.index(), before.index());
    let all =
        |snapshot: &portolan_registry::Snapshot| snapshot.iter().map(|i| (**i).clone()).collect::<Vec<_>>();
    assert_eq!(all(&after), all(&before), "nobody who watches sees a restart");
    assert!(matches!(second.registry.changes(before.index()), portolan_registry::Changes::Resync));
}

#[tokio::test]
async fn the_store_is_closed_when_a_shutdown_returns() {
    let (disk, open) = (Disk::default(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    for _ in 0..3 {
        let store = common::Locked { disk: disk.clone(), open: Arc::clone(&open) };
        let registry = Registry::start(RegistryConfig::default(), Box::new(store)).await.unwrap();
        registry.shutdown().await;
        assert!(!open.load(Ordering::SeqCst), "still open");
    }
}

#[tokio::test]
async fn leases_run_out_and_a_restarted_registry_charges_nobody_for_its_absence() {
    let disk = Disk::default();
    let config = || RegistryConfig { ttl: SECOND, remove_after: SECOND, ..RegistryConfig::default() };
    let first = start_with(config(), disk.clone()).await;
    first.put("a", 1, None).await;
    let begun = Instant::now();
    first.until_state("a", State::Expired, 3 * SECOND).await;
    let took = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_millis(1600)).contains(&took),
        "one lease, not two: {took:?}"
    );
    assert_eq!(first.instance("a").unwrap().output, "not renewed within its lease of 1s");
    common::until(3 * SECOND, || first.state("a").is_none(), || "not removed".into()).await;

    first.put("b", 1, None).await;
    first.registry.shutdown().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let second = start_with(config(), disk).await;
    assert_eq!(second.state("b"), Some(State::Passing), "a whole lease from the start on");
    second.until_state("b", State::Expired, 3 * SECOND).await;
}

#[tokio::test]
async fn a_registry_that_shuts_down_says_so_and_lets_nobody_wait() {
    let running = start().await;
    running.put("a", 1, None).await;
    let index = running.registry.snapshot().index();
    let api = running.api;
    let poll = tokio::spawn(async move {
        call(api, "GET", &format!("/v1/instances?index={index}&wait=1m"), &[], "").await
    });
    let metrics = running.registry.clone();
    common::until(SECOND, || metrics.snapshot().index() == index, String::new).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    running.registry.shutdown().await;
    let reply = tokio::time::timeout(SECOND, poll).await.unwrap().unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(running.put("b", 2, None).await.status, 503);
    running.shutdown.cancel();
    for listener in running.listeners {
        tokio::time::timeout(2 * SECOND, listener).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn slow_and_greedy_clients_are_cut_off() {
    let registry = Registry::start(RegistryConfig::default(), Box::new(Disk::default())).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = api::Limits { connections: 2, head: Duration::from_millis(300), ..api::Limits::default() };
    tokio::spawn(api::serve_with(limits, listener, api::router(registry), CancellationToken::new()));

    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /healthz HT").await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    // Both places are taken: the third waits, and gets its turn when the other two have been cut off.
    let reply = tokio::time::timeout(3 * SECOND, call(address, "GET", "/healthz", &[], "")).await.unwrap();
    assert_eq!(reply.status, 200);
    for stream in [&mut slow, &mut idle] {
        let mut rest = Vec::new();
        tokio::time::timeout(SECOND, stream.read_to_end(&mut rest)).await.expect("cut off").ok();
    }
    let many: Vec<_> = (0..200).map(|n| (format!("x-{n}"), "y".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(call(address, "GET", "/healthz", &many, "").await.status, 431);
}

#[tokio::test]
async fn requests_are_counted_by_route() {
    let metrics = Arc::new(portolan_telemetry::metrics::Metrics::default());
    let config = RegistryConfig { metrics: Arc::clone(&metrics), ..RegistryConfig::default() };
    let running = start_with(config, Disk::default()).await;
    running.put("a", 1, None).await;
    running.put("b", 2, None).await;
    running.call("GET", "/v1/instances/a", "").await;
    running.call("GET", "/x", "").await;
    let text = metrics.encode();
    for line in [
        r#"portolan_api_requests_total{path="/v1/instances/{name}",code="201"} 2"#,
        r#"portolan_api_requests_total{path="/v1/instances/{name}",code="200"} 1"#,
        r#"portolan_api_requests_total{path="other",code="404"} 1"#,
        r#"portolan_registrations_total{result="added"} 2"#,
        r#"portolan_instances{state="passing"} 2"#,
        r#"portolan_instances{state="critical"} 0"#,
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line} in:\n{text}");
    }
}
