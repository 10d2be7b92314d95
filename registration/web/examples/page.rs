//! The page over a registry with instances of every kind, to look at while working on it.
//!
//! `cargo run -p portolan-web --example page -- [COUNT] [ADDRESS:PORT]`. With COUNT 0 the registry is empty. The
//! instances are registered as any others; what they would serve does not exist, except one small HTTP server which
//! the health checks look at.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use http::StatusCode;
use portolan_model::{InstanceKey, Name, Registration};
use portolan_registry::{Caller, Registry, RegistryConfig};
use portolan_store::MemoryStore;
use serde_json::json;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let count: usize = arguments.next().map_or(24, |text| text.parse().unwrap());
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:10090".to_owned());
    let registry = Registry::start(RegistryConfig::default(), Box::new(MemoryStore::new())).await.unwrap();
    let app = portolan_web::router(registry.clone()).fallback(portolan_web::not_found);
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    println!("http://{}/", listener.local_addr().unwrap());
    let target = answering().await;
    tokio::spawn(keep(registry, count, target));
    axum::serve(listener, app).await.unwrap();
}

/// What the checks see: `/ok`, and `/busy` with status 429.
async fn answering() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let busy = || async { (StatusCode::TOO_MANY_REQUESTS, "queue: 98 of 100 slots") };
    let app = Router::new().route("/ok", get(|| async { "ok" })).route("/busy", get(busy));
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Registers all, and renews most of them as long as this runs.
async fn keep(registry: Registry, count: usize, target: SocketAddr) {
    let mut keys = Vec::new();
    for i in 0..count {
        let registration = registration(i, target);
        let name = registration.name.clone();
        match registry.register(registration, Caller::Process).await {
            Ok(registered) => keys.push((i, InstanceKey { name, incarnation: registered.incarnation })),
            Err(error) => println!("{name}: {error}"),
        }
    }
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        for (i, key) in &keys {
            // One in eleven has crashed without a word.
            if i % 11 != 7 {
                let _ = registry.renew(key).await;
            }
        }
    }
}

fn registration(i: usize, target: SocketAddr) -> Registration {
    let services = ["arena", "lobby", "sfu", "sip-gateway", "etcd", "grafana", "relay", "matchmaker"];
    let (service, copy) = (services[i % services.len()], i / services.len() + 1);
    let first = 20_000 + i % 9_000;
    let port = |name: &str, number: usize, protocols: &[&str], container: Option<u16>| json!({ "name": name, "port": number.to_string(), "protocols": protocols, "container": container });
    let ports = match service {
        "arena" => {
            vec![port("game", first, &["udp"], Some(7777)), port("query", first + 1, &["udp"], Some(27015))]
        }
        "lobby" => {
            vec![port("http", first, &["tcp"], Some(8080)), port("ws", first + 1, &["tcp"], Some(8081))]
        }
        "sfu" => vec![
            port("https", first, &["tcp"], Some(8443)),
            json!({ "name": "media", "port": format!("{}-{}", first + 100, first + 199), "protocols": ["udp"] }),
        ],
        "sip-gateway" => vec![port("sip", first, &["tcp", "udp"], Some(5060))],
        "etcd" => {
            (1..=6).map(|n| port(&format!("peer-{n}"), first + n, &["tcp"], Some(2379 + n as u16))).collect()
        }
        "grafana" => vec![port("web", first, &["tcp"], Some(3000))],
        "relay" => vec![port("turn", first, &["udp"], None)],
        _ => vec![port("grpc", first, &["tcp"], Some(50_051))],
    };
    let check = |path: &str| json!({ "kind": "http", "path": path, "port": "health", "interval": "10s", "timeout": "5s", "fall": 1 });
    let mut body = json!({
        "name": format!("{service}-{copy}"), "service": service, "node": format!("rack-{}", ["a1", "a2", "b1"][i % 3]),
        "addresses": if i.is_multiple_of(4) { vec!["127.0.0.1", "::1"] } else { vec!["127.0.0.1"] },
        "ports": ports, "ttl": if i % 11 == 7 { "10s" } else { "30s" },
        "labels": { "tier": if i.is_multiple_of(2) { "front" } else { "back" }, "region": "north" },
    });
    let mut health = |path: &str, number: u16| {
        body["ports"].as_array_mut().unwrap().push(port("health", usize::from(number), &["tcp"], None));
        body["check"] = check(path);
    };
    match i % 9 {
        2 | 5 => health("/ok", target.port()),
        3 => health("/busy", target.port()),
        // Nobody listens on port 1.
        6 => health("/ok", 1),
        _ => {}
    }
    let registration: Registration = serde_json::from_value(body).unwrap();
    assert!(Name::new(registration.name.as_str()).is_ok());
    registration
}
