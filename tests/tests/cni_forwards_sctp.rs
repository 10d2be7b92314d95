//! SCTP through the plugin, alone and with an agent. The kernel need not have SCTP sockets, only connection tracking of
//! it: the first packet of an association is made by hand.

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use portolan_testkit::{need_root, net::Namespace};
use portolan_tests::{
    agent::Node,
    cni::{Container, Host},
};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};

/// IANA's number (RFC 9260).
const SCTP: i32 = 132;

/// A source port that no association has had: what is tracked stays tracked.
fn source() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(40_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// CRC32c, bit by bit: RFC 9260 appendix A.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// An INIT chunk (RFC 9260 section 3.3.2), which begins an association.
fn init(source: u16, destination: u16) -> Vec<u8> {
    let mut packet = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    packet.extend([0; 8]); // verification tag, checksum
    packet.extend([1, 0, 0, 20]); // INIT, no flags, length
    packet.extend(7u32.to_be_bytes()); // initiate tag
    packet.extend(65536u32.to_be_bytes()); // window
    packet.extend([0, 1, 0, 1]); // streams
    packet.extend(1u32.to_be_bytes()); // initial number
    let sum = checksum(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&sum);
    packet
}

fn raw(namespace: &Namespace) -> Socket {
    let socket = namespace.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(SCTP))));
    let socket = socket.unwrap_or_else(|error| panic!("a raw socket: {error}"));
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap_or_else(|error| panic!("{error}"));
    socket
}

/// Which port of the container an INIT to this port of the machine comes to; `None` when it comes to none.
fn arrives(host: &Host, container: &Container, port: u16) -> Option<u16> {
    let (mut inside, source) = (raw(&container.namespace), source());
    let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 0);
    raw(&host.world).send_to(&init(source, port), &to.into()).unwrap_or_else(|error| panic!("{error}"));
    let mut packet = [0; 256];
    loop {
        let length = inside.read(&mut packet).ok()?;
        let header = usize::from(packet[0] & 15) * 4;
        let number = |at: usize| u16::from_be_bytes([packet[header + at], packet[header + at + 1]]);
        if length >= header + 13 && number(0) == source && packet[header + 12] == 1 {
            return Some(number(2));
        }
    }
}

fn mappings() -> Value {
    json!([
        {"hostPort": 18000, "containerPort": 38412, "protocol": "sctp"},
        {"hostPort": 18000, "containerPort": 8080, "protocol": "tcp"},
    ])
}

#[test]
fn an_association_reaches_the_container_through_the_plugin_alone() {
    need_root!();
    let host = Host::new();
    let (first, second) = (host.container(), host.container());
    let config = host.config(mappings());
    for container in [&first, &second] {
        host.call("ADD", container, &config).ok();
        host.call("CHECK", container, &config).ok();
        assert_eq!(arrives(&host, container, 18000), Some(38412), "{}", host.rules());
        assert_eq!(arrives(&host, container, 18001), None);
        host.call("DEL", container, &config).ok();
        assert_eq!(arrives(&host, container, 18000), None, "after DEL");
    }
}

#[test]
fn a_pod_asks_for_sctp_by_annotation_and_by_mapping() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let config = node.config(&[("portolan.dev/ports", "signal/sctp=:38413, media/sctp:10")], mappings());
    node.call("ADD", "core", &container, &config).ok();
    node.call("CHECK", "core", &container, &config).ok();
    assert_eq!(arrives(&node.host, &container, 18000), Some(38412));
    let told = node.told(&container).unwrap_or_default();
    let host = |index: usize| {
        let text = told["ports"][index]["host"].as_str().unwrap_or_default();
        text.split('-').next().and_then(|first| first.parse::<u16>().ok()).unwrap_or_else(|| panic!("{told}"))
    };
    assert_eq!(arrives(&node.host, &container, host(0)), Some(38413), "{told}");
    assert_eq!(arrives(&node.host, &container, host(1) + 9), Some(host(1) + 9), "{told}");
    node.call("DEL", "core", &container, &config).ok();
    assert_eq!(arrives(&node.host, &container, 18000), None, "after DEL");
}
