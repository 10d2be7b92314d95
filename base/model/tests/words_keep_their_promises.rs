//! Names, ranges, checks and the environment.

use std::time::Duration;

use portolan_model::{
    CheckKind, CheckSpec, Name, PortRange, Protocols, PublishedPort, RangeError, environment,
};
use proptest::prelude::*;

#[test]
fn a_range_is_never_empty_and_never_has_port_zero() {
    assert_eq!("0".parse::<PortRange>(), Err(RangeError::Zero));
    assert_eq!("0-10".parse::<PortRange>(), Err(RangeError::Zero));
    assert_eq!("20-10".parse::<PortRange>(), Err(RangeError::Backwards(20, 10)));
    for text in ["", "-", "1-", "-1", "1-2-3", "+1", "65536", "a-b", "1 - 2"] {
        assert!(matches!(text.parse::<PortRange>(), Err(RangeError::Syntax(_))), "{text:?}");
    }
    let all: PortRange = "1-65535".parse().expect("all ports");
    assert_eq!((all.count(), all.iter().len()), (65535, 65535));
    assert_eq!(PortRange::block(65530, 6), PortRange::new(65530, 65535).ok());
    assert_eq!(PortRange::block(65530, 7), None);
    assert_eq!(PortRange::block(1, 0), None);
}

#[test]
fn a_name_from_a_program_is_made_legal() {
    assert_eq!(Name::sanitized("My_Server.bin").map(String::from), Some("my-server-bin".to_owned()));
    assert_eq!(Name::sanitized("--"), None);
    assert_eq!(Name::sanitized(""), None);
}

#[test]
fn a_check_reads_as_documented_and_says_what_is_wrong() {
    let check: CheckSpec = "http:/healthz@web,interval=5s,fall=1".parse().expect("a check");
    assert_eq!(check.kind, CheckKind::Http { path: "/healthz".to_owned() });
    assert_eq!(check.port.map(String::from), Some("web".to_owned()));
    assert_eq!(
        (check.interval, check.timeout, check.fall, check.rise),
        (Duration::from_secs(5), Duration::from_secs(2), 1, 2)
    );
    let quick: CheckSpec = "tcp,interval=1s".parse().expect("a check");
    assert_eq!(quick.timeout, Duration::from_secs(1), "a default never makes a legal interval illegal");

    for (text, needle) in [
        ("", "write http:/healthz"),
        ("ping", "is no health check"),
        ("http:healthz", "must begin with '/'"),
        ("http:/a b", "no spaces"),
        ("tcp,interval=10ms", "under 1s"),
        ("tcp,interval=2s,timeout=3s", "longer than its interval"),
        ("tcp,fall=0", "fall is 0"),
        ("tcp,fell=1", "is no health check"),
        ("tcp@Web", "no DNS label"),
    ] {
        let message = text.parse::<CheckSpec>().expect_err(text).to_string();
        assert!(message.contains(needle), "{text:?}: {message}");
    }
}

#[test]
fn a_check_survives_json() {
    let check: CheckSpec = "http:/healthz@web,interval=1m30s".parse().expect("a check");
    let json = serde_json::to_string(&check).expect("json");
    assert!(json.contains("\"interval\":\"1m 30s\"") && json.contains("\"kind\":\"http\""), "{json}");
    assert_eq!(serde_json::from_str::<CheckSpec>(&json).expect("reads back"), check);
    let short: CheckSpec = serde_json::from_str(r#"{"kind":"tcp"}"#).expect("defaults");
    assert_eq!(short, CheckSpec::new(CheckKind::Tcp));
}

#[test]
fn a_process_learns_its_ports_from_the_environment() {
    let port = |name: &str, range: &str, container, address: Option<&str>| PublishedPort {
        name: name.parse().expect("a label"),
        protocols: Protocols::TCP,
        host: range.parse().expect("a range"),
        container,
        address: address.map(|a| a.parse().expect("an address")),
    };
    let ports = [
        port("http", "20417", 8080, None),
        port("rtp-media", "21000-21099", 21000, None),
        port("v6", "20500", 20500, Some("fd00::5")),
    ];
    let variables: std::collections::BTreeMap<_, _> =
        environment(&ports, "192.0.2.7".parse().expect("an address")).into_iter().collect();
    assert_eq!(variables["PORTOLAN_PORT_HTTP"], "20417");
    assert_eq!(variables["PORTOLAN_ADDR_HTTP"], "192.0.2.7:20417");
    assert_eq!(variables["PORTOLAN_PORT_RTP_MEDIA"], "21000-21099");
    assert_eq!(variables["PORTOLAN_ADDR_RTP_MEDIA"], "192.0.2.7:21000-21099");
    assert_eq!(variables["PORTOLAN_ADDR_V6"], "[fd00::5]:20500");
    assert_eq!(variables["PORT"], "8080", "PORT is what to listen on, not what the world sees");
    let all: Vec<PublishedPort> = serde_json::from_str(&variables["PORTOLAN_PORTS"]).expect("JSON");
    assert_eq!(all, ports);
}

proptest! {
    #[test]
    fn a_sanitized_name_is_a_name(text in "\\PC{0,80}") {
        if let Some(name) = Name::sanitized(&text) {
            prop_assert!(Name::new(name.as_str()).is_ok());
        }
    }

    #[test]
    fn ranges_overlap_exactly_when_a_port_is_in_both(a in 1u16..300, b in 0u16..40, c in 1u16..300, d in 0u16..40) {
        let x = PortRange::new(a, a + b).expect("a range");
        let y = PortRange::new(c, c + d).expect("a range");
        prop_assert_eq!(x.overlaps(y), x.iter().any(|p| y.contains(p)));
        prop_assert_eq!(x.to_string().parse::<PortRange>(), Ok(x));
    }
}
