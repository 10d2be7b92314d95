//! Ranges of ports, whole addresses, and who may reach node ports.

use std::{
    io::Read as _,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use portolan_model::{PortRange, PortSpan, Protocol, ServiceOptions};
use portolan_testkit::need_root;
use socket2::{Domain, Socket, Type};

use super::{
    CLUSTER, ENDPOINTS, EXTERNAL, NODE, NODE_PORT, SOURCES, apply, asked, client, led, serve, service,
};
use crate::{
    ask::{SILENCE, Seen, ask},
    reference::{
        Asked,
        cases::{Ip, VERSIONS},
    },
    site::Site,
};

const LONG: Duration = Duration::from_secs(3);

/// Each of these is answered by an endpoint at the port that `expected` says; a Pod is seen as itself.
fn all_answer(site: &Site, questions: &[Asked], expected: impl Fn(u16) -> u16) {
    for (asked, seen) in questions.iter().zip(ask(site, questions, LONG)) {
        let Seen::Answered { by, source } = seen else { panic!("{asked:?}: {seen:?}") };
        let endpoints = VERSIONS.iter().flat_map(|ip| ENDPOINTS.map(|text| ip.address(text)));
        assert!(endpoints.into_iter().any(|endpoint| endpoint == by.ip()), "{asked:?}: {by}");
        assert_eq!(by.port(), expected(asked.destination.port()), "{asked:?}: {by}");
        let cluster = VERSIONS.map(|ip| ip.address(CLUSTER)).contains(&asked.destination.ip());
        if cluster && asked.interface.as_deref() == Some("pod1") {
            assert_eq!(source.ip(), asked.source, "{asked:?}");
        } else {
            assert!(Site::own().contains(&source.ip()), "{asked:?}: {source}");
        }
    }
}

fn questions(protocols: &[Protocol], addresses: &[&str], ports: &[u16]) -> Vec<Asked> {
    let mut all = Vec::new();
    for ip in VERSIONS {
        for source in SOURCES {
            for protocol in protocols {
                for address in addresses {
                    all.extend(ports.iter().map(|port| asked(ip, source, *protocol, address, *port)));
                }
            }
        }
    }
    all
}

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[test]
fn a_range_of_ports_is_led_to_the_same_ports_and_no_other() {
    need_root!();
    let site = Site::new();
    serve(&site, &[8080, 20_000, 20_050, 20_100, 20_101, 19_999]);
    let spans = BOTH.map(|protocol| PortSpan { protocol, ports: PortRange::new(20_000, 20_100).unwrap() });
    let _plane = apply(
        &site,
        service(ServiceOptions { spans: spans.to_vec(), ..ServiceOptions::default() }),
        &ENDPOINTS,
    );
    all_answer(&site, &questions(&BOTH, &[CLUSTER, EXTERNAL], &[20_000, 20_050, 20_100]), |port| port);
    all_answer(&site, &questions(&BOTH, &[CLUSTER, EXTERNAL], &[80]), |_| 8080);
    for seen in ask(&site, &questions(&BOTH, &[CLUSTER], &[19_999, 20_101]), LONG) {
        assert_eq!(seen, Seen::Refused);
    }
}

#[test]
fn a_whole_address_is_led_with_every_protocol_and_port() {
    need_root!();
    let site = Site::new();
    serve(&site, &[22, 8080, 443, 50_000]);
    let options = ServiceOptions { whole_address: true, ..ServiceOptions::default() };
    let _plane = apply(&site, service(options), &ENDPOINTS);
    all_answer(&site, &questions(&BOTH, &[CLUSTER, EXTERNAL], &[22, 443, 50_000]), |port| port);
    // A port of its own goes where that port says.
    all_answer(&site, &questions(&BOTH, &[CLUSTER, EXTERNAL], &[80]), |_| 8080);
    for ip in VERSIONS {
        let to: Vec<_> = (0..40)
            .map(|n| (client(ip, n), Protocol::Sctp, SocketAddr::new(ip.address(CLUSTER), 38_412)))
            .collect();
        assert!(led(&site, &to).iter().all(|to| to.port() == 38_412));
        for (source, interface) in SOURCES {
            for address in [CLUSTER, EXTERNAL] {
                assert!(echoes(&site, interface, ip, source, ip.address(address)), "{source} {address}");
            }
        }
    }
}

/// Whether an echo request is answered, by the address that it was sent to.
fn echoes(site: &Site, interface: Option<&str>, ip: Ip, source: &str, to: IpAddr) -> bool {
    let namespace = interface.map_or(&site.node, |interface| &site.behind(interface).namespace);
    // RFC 792 and RFC 4443, section 4.1: type, code, checksum, identifier, number. The kernel fills in that of IPv6.
    let (domain, protocol, request, answer) = if ip.v4 {
        (Domain::IPV4, socket2::Protocol::ICMPV4, [8, 0, 0xb7, 0xfd, 0x40, 1, 0, 1], 0)
    } else {
        (Domain::IPV6, socket2::Protocol::ICMPV6, [128, 0, 0, 0, 0x40, 1, 0, 1], 129)
    };
    namespace.run(|| {
        let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).unwrap();
        socket.bind(&SocketAddr::new(ip.address(source), 0).into()).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        // Only what comes from there is heard.
        socket.connect(&SocketAddr::new(to, 0).into()).unwrap();
        socket.send(&request).unwrap();
        let until = Instant::now() + LONG;
        while Instant::now() < until {
            let mut bytes = [0; 256];
            let Ok(length) = socket.read(&mut bytes) else { return false };
            let message = &bytes[if ip.v4 { 20 } else { 0 }..length];
            if message[0] == answer && message[4..8] == request[4..8] {
                return true;
            }
        }
        false
    })
}

#[test]
fn source_ranges_of_node_ports_keep_others_out() {
    need_root!();
    let site = Site::new();
    serve(&site, &[8080]);
    let node_source_ranges = VERSIONS.map(|ip| ip.network("203.0.113.0/25")).to_vec();
    let _plane =
        apply(&site, service(ServiceOptions { node_source_ranges, ..ServiceOptions::default() }), &ENDPOINTS);
    let from = |source| {
        let mut all = Vec::new();
        for ip in VERSIONS {
            for protocol in BOTH {
                all.push(asked(ip, (source, Some("eth2")), protocol, NODE, NODE_PORT));
                all.push(asked(ip, (source, Some("eth2")), protocol, EXTERNAL, 80));
            }
        }
        all
    };
    all_answer(&site, &from("203.0.113.2"), |_| 8080);
    assert!(ask(&site, &from("203.0.113.130"), SILENCE).iter().all(|seen| *seen == Seen::Silent));
    // Cluster addresses are everybody's.
    let cluster = VERSIONS.map(|ip| asked(ip, ("203.0.113.130", Some("eth2")), Protocol::Tcp, CLUSTER, 80));
    all_answer(&site, &cluster, |_| 8080);
}
