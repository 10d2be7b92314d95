//! Who may write, and what.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderMap, StatusCode};
use portolan_model::Registration;

use super::*;
use crate::RegistryError;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn admission(token: Option<&str>) -> Admission {
    Admission::new(&RegistryConfig {
        token: token.map(str::to_owned),
        is_local: Arc::new(|address| address == ip("192.0.2.1") || address == ip("2001:db8::1")),
        node: "here".into(),
        ..RegistryConfig::default()
    })
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

#[test]
fn this_machine_may_write_and_nobody_else_without_the_token() {
    let ask =
        |token, peer: Peer, pairs: &[(&'static str, &str)]| admission(token).caller(peer, &headers(pairs));
    let (home, home6, away) = (ip("127.0.0.1"), ip("::1"), ip("198.51.100.7"));
    let at = |address| Peer::Address(address);
    let good = [("authorization", "Bearer s3cret")];

    assert_eq!(ask(None, at(home), &[]), Ok(Caller::Loopback(home)));
    assert_eq!(ask(None, at(home6), &[]), Ok(Caller::Loopback(home6)));
    assert_eq!(ask(None, Peer::Unix, &[]), Ok(Caller::Unix));
    assert_eq!(ask(None, at(away), &[]), Err(Refusal::Stranger(away)));
    // An address of this machine that is not loopback may be spoofed on its network.
    assert_eq!(ask(None, at(ip("192.0.2.1")), &[]), Err(Refusal::Stranger(ip("192.0.2.1"))));
    assert_eq!(ask(Some("s3cret"), at(away), &good), Ok(Caller::Token(away)));
    assert_eq!(ask(Some("s3cret"), at(away), &[("authorization", "bearer s3cret")]), Ok(Caller::Token(away)));
    assert_eq!(ask(Some("s3cret"), at(away), &[]), Err(Refusal::Stranger(away)));
    for wrong in ["Bearer s3cre", "Bearer s3crett", "Bearer S3cret", "Bearer "] {
        assert_eq!(ask(Some("s3cret"), at(away), &[("authorization", wrong)]), Err(Refusal::WrongToken));
    }
    // Another scheme is no token.
    assert_eq!(
        ask(Some("s3cret"), at(away), &[("authorization", "Basic s3cret")]),
        Err(Refusal::Stranger(away))
    );
    assert_eq!(ask(None, at(home), &good), Err(Refusal::NoToken));
    // An empty token in a configuration is no token, and not one that everybody has.
    assert_eq!(ask(Some(""), at(away), &[("authorization", "Bearer ")]), Err(Refusal::NoToken));
}

#[test]
fn an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client() {
    let mapped: std::net::SocketAddr = "[::ffff:127.0.0.1]:5".parse().unwrap();
    assert_eq!(Peer::from(mapped), Peer::Address(ip("127.0.0.1")));
}

#[test]
fn whom_a_proxy_passes_on_is_not_on_this_machine() {
    for header in ["forwarded", "x-forwarded-for", "x-real-ip"] {
        let refused =
            admission(None).caller(Peer::Address(ip("127.0.0.1")), &headers(&[(header, "198.51.100.7")]));
        assert_eq!(refused, Err(Refusal::Proxied(header)));
    }
    let pairs = [("x-forwarded-for", "198.51.100.7"), ("authorization", "Bearer t")];
    let admitted = admission(Some("t")).caller(Peer::Address(ip("127.0.0.1")), &headers(&pairs));
    assert_eq!(admitted, Ok(Caller::Token(ip("127.0.0.1"))));
}

#[test]
fn a_page_of_another_site_may_not_write_from_a_browser_here() {
    let ask = |host: &str, origin: &str| {
        admission(None)
            .caller(Peer::Address(ip("127.0.0.1")), &headers(&[("host", host), ("origin", origin)]))
            .is_ok()
    };
    assert!(ask("127.0.0.1:10080", "http://127.0.0.1:10080"), "our own page");
    assert!(ask("localhost:10080", "http://localhost:10080"), "our own page");
    assert!(ask("[::1]:10080", "http://[::1]:10080"), "our own page");
    assert!(!ask("127.0.0.1:10080", "https://evil.example"), "another site");
    assert!(!ask("127.0.0.1:10080", "http://127.0.0.1:8000"), "another server on this machine");
    assert!(!ask("127.0.0.1:10080", "null"), "a sandboxed frame");
    assert!(
        !ask("evil.example:10080", "http://evil.example:10080"),
        "a name that was pointed here (DNS rebinding)"
    );
}

fn register(addresses: &[&str], caller: Caller) -> Result<Vec<IpAddr>, StatusCode> {
    let addresses = addresses.iter().map(|a| ip(a)).collect();
    let registration = Registration { addresses, ..Registration::new("a".parse().unwrap()) };
    admission(Some("t")).admit(registration, caller).map(|a| a.addresses).map_err(|e| e.status())
}

#[test]
fn addresses_must_be_the_callers_to_give() {
    let home = Caller::Loopback(ip("127.0.0.1"));
    let away = Caller::Token(ip("198.51.100.7"));
    let no = Err(StatusCode::FORBIDDEN);
    let yes = |list: &[&str]| Ok(list.iter().map(|a| ip(a)).collect::<Vec<_>>());
    // Left out: where the caller comes from.
    assert_eq!(register(&[], home), yes(&["127.0.0.1"]));
    assert_eq!(register(&[], away), yes(&["198.51.100.7"]));
    assert_eq!(register(&[], Caller::Unix), yes(&["127.0.0.1"]));
    assert_eq!(register(&[], Caller::Process), Err(StatusCode::BAD_REQUEST));
    // This machine's, each once, in the order given.
    let ours = ["192.0.2.1", "2001:db8::1", "192.0.2.1", "127.0.0.2", "::ffff:192.0.2.1"];
    for caller in [home, Caller::Unix, Caller::Process] {
        assert_eq!(register(&ours, caller), yes(&["192.0.2.1", "2001:db8::1", "127.0.0.2"]));
    }
    // Somebody else's.
    assert_eq!(register(&["203.0.113.9"], home), no);
    assert_eq!(register(&["203.0.113.9"], Caller::Unix), no);
    assert_eq!(register(&["203.0.113.9"], away), yes(&["203.0.113.9"]));
    // A remote caller's loopback is not this machine's.
    assert_eq!(register(&["127.0.0.1"], away), no);
    assert_eq!(register(&["127.0.0.1"], Caller::Token(ip("127.0.0.1"))), yes(&["127.0.0.1"]));
}

#[test]
fn without_a_token_one_registers_oneself_where_that_was_allowed() {
    let open = |addresses: &[&str]| {
        Admission::new(&RegistryConfig {
            anonymous: Anonymous {
                from: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
                addresses: addresses.iter().map(|net| net.parse().unwrap()).collect(),
            },
            ..RegistryConfig::default()
        })
    };
    let (pod, away) = (ip("10.1.2.3"), ip("198.51.100.7"));
    let ask = |peer, pairs: &[(&'static str, &str)]| open(&[]).caller(peer, &headers(pairs));
    assert_eq!(ask(Peer::Open(pod), &[]), Ok(Caller::Anonymous(pod)));
    assert_eq!(ask(Peer::Open(ip("fd00::1")), &[]), Ok(Caller::Anonymous(ip("fd00::1"))));
    assert_eq!(ask(Peer::Open(away), &[]), Err(Refusal::Stranger(away)));
    assert_eq!(ask(Peer::Open(ip("127.0.0.1")), &[]), Ok(Caller::Loopback(ip("127.0.0.1"))));
    // A load balancer may have put such an address in the place of anybody's, so only some listeners take it.
    assert_eq!(ask(Peer::Address(pod), &[]), Err(Refusal::Stranger(pod)));
    assert_eq!(ask(Peer::Open(pod), &[("x-forwarded-for", "x")]), Err(Refusal::Proxied("x-forwarded-for")));
    let page = [("host", "registry:10080"), ("origin", "https://evil.example")];
    assert!(matches!(ask(Peer::Open(pod), &page), Err(Refusal::ForeignPage(_))));

    let register = |admission: &Admission, address: &str| {
        let registration =
            Registration { addresses: vec![ip(address)], ..Registration::new("a".parse().unwrap()) };
        admission.admit(registration, Caller::Anonymous(pod)).map(|_| ()).map_err(|e| e.status())
    };
    let no = Err(StatusCode::FORBIDDEN);
    assert_eq!(register(&open(&[]), "10.1.2.3"), Ok(()));
    assert_eq!(register(&open(&[]), "10.1.2.4"), no);
    assert_eq!(register(&open(&[]), "127.0.0.1"), no);
    assert_eq!(register(&open(&["10.1.0.0/16"]), "10.1.2.4"), Ok(()));
    assert_eq!(register(&open(&["10.1.0.0/16"]), "10.2.2.4"), no);
    assert_eq!(register(&open(&["0.0.0.0/0"]), "169.254.169.254"), no);
}

#[test]
fn some_addresses_are_nobodys() {
    let never = [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "0.1.2.3",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "fe80::1",
    ];
    for address in never {
        for caller in [Caller::Process, Caller::Unix, Caller::Token(ip("198.51.100.7"))] {
            assert_eq!(register(&[address], caller), Err(StatusCode::FORBIDDEN), "{address} by {caller:?}");
        }
    }
}

#[test]
fn a_wrong_field_is_named() {
    let cases = [
        (r#"{"name":"a","ttl":"100ms"}"#, "ttl: 100ms is not between 1s and 1day"),
        (r#"{"name":"a","ttl":"2days"}"#, "ttl: 2days is not between 1s and 1day"),
        (r#"{"name":"a","node":"x\ny"}"#, "node: it has control characters in it"),
        (r#"{"name":"a","tags":["ok","\u0007"]}"#, "tags[1]: it has control characters in it"),
        (r#"{"name":"a","labels":{"k=":"v"}}"#, "labels: the key \"k=\" is empty or has '=' or ',' in it"),
        (r#"{"name":"a","labels":{"k":"\u001b"}}"#, "labels[\"k\"]: it has control characters in it"),
        (
            r#"{"name":"a","ports":[{"name":"x","port":1},{"name":"x","port":2}]}"#,
            "ports[1].name: the name x is used twice",
        ),
        (
            r#"{"name":"a","ports":[{"name":"x","port":1,"protocols":[]}]}"#,
            "ports[0].protocols: name at least one of tcp, udp and sctp",
        ),
        (r#"{"name":"a","check":{"kind":"tcp"}}"#, "check.port: the instance has no TCP port to look at"),
        (
            r#"{"name":"a","check":{"kind":"tcp","port":"y"},"ports":[{"name":"x","port":1}]}"#,
            "check.port: the instance has no TCP port y",
        ),
        (
            r#"{"name":"a","check":{"kind":"tcp"},"ports":[{"name":"x","port":1,"protocols":["udp"]}]}"#,
            "check.port: the instance has no TCP port to look at",
        ),
        (
            r#"{"name":"a","check":{"kind":"tcp","interval":"10ms"},"ports":[{"name":"x","port":1}]}"#,
            "check: the health check's interval of 10ms is under 1s",
        ),
    ];
    for (json, reason) in cases {
        let registration = serde_json::from_str(json).unwrap();
        let error = admission(None).admit(registration, Caller::Unix).unwrap_err();
        assert_eq!(error.to_string(), reason);
        assert!(matches!(error, RegistryError::Invalid { .. }));
    }
}

#[test]
fn what_is_left_out_is_filled_in() {
    let accepted = admission(None).admit(Registration::new("web-1".parse().unwrap()), Caller::Unix).unwrap();
    assert_eq!(accepted.service.as_str(), "web-1");
    assert_eq!(accepted.node, "here");
    assert_eq!(accepted.ttl, std::time::Duration::from_secs(30));
    assert_eq!(accepted.incarnation, None);
}
