//! SCTP by hand: this machine's kernel need not have SCTP sockets, only connection tracking of it.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io::Read as _,
    net::{Ipv4Addr, SocketAddrV4},
    time::Duration,
};

use common::{
    block,
    cluster::{self, Cluster},
    port,
    site::{Ip, Site},
};
use portolan_model::Protocol;
use portolan_testkit::{need_root, net::Namespace};
use socket2::{Domain, Socket, Type};

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
    let protocol = socket2::Protocol::from(i32::from(Protocol::Sctp.number()));
    let socket = namespace.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(protocol))).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket
}

/// Source and destination of the next SCTP packet.
fn next(mut socket: &Socket) -> (SocketAddrV4, SocketAddrV4) {
    let mut packet = [0; 256];
    let length = socket.read(&mut packet).unwrap();
    let header = usize::from(packet[0] & 15) * 4;
    assert!(length >= header + 4);
    let end = |address: usize, port: usize| {
        let address = Ipv4Addr::from(<[u8; 4]>::try_from(&packet[address..address + 4]).unwrap());
        SocketAddrV4::new(address, u16::from_be_bytes([packet[header + port], packet[header + port + 1]]))
    };
    (end(12, 0), end(16, 2))
}

#[test]
fn sctp_reaches_the_instance_by_port_and_by_block() {
    need_root!();
    let site = Site::new();
    let mappings = vec![port(Protocol::Sctp, 20001, 2, 38412), block(Protocol::Sctp, 21000, 21009, 2)];
    let _plane = site.plane(mappings);
    let (client, server) = (raw(&site.outside), raw(site.instance(2)));
    for (published, own) in [(20001, 38412), (21007, 21007)] {
        let to = SocketAddrV4::new("192.0.2.1".parse().unwrap(), 0);
        client.send_to(&init(5000, published), &to.into()).unwrap();
        let expected = ("192.0.2.9:5000".parse().unwrap(), SocketAddrV4::new(common::v4(2), own));
        assert_eq!(next(&server), expected);
    }
}

#[test]
fn sctp_from_a_mapped_port_shows_the_published_one() {
    need_root!();
    let site = Site::new();
    let _plane = site.plane(vec![port(Protocol::Sctp, 20001, 2, 38412)]);
    let (peer, instance) = (raw(&site.outside), raw(site.instance(2)));
    let to = SocketAddrV4::new("192.0.2.9".parse().unwrap(), 0);
    instance.send_to(&init(38412, 9000), &to.into()).unwrap();
    let host: Ipv4Addr = Ip::V4.host().to_string().parse().unwrap();
    assert_eq!(next(&peer).0, SocketAddrV4::new(host, 20001));
}

#[test]
fn on_a_node_of_a_cluster_sctp_is_forwarded_and_shows_published_ports() {
    need_root!();
    let cluster = Cluster::new();
    let sctp = |host, number, container| cluster::port(Protocol::Sctp, host, number, container);
    let _plane = cluster.plane(vec![
        sctp(20001, 2, 38412),
        sctp(20002, 3, 5000),
        cluster::block(Protocol::Sctp, 21000, 21009, 2),
    ]);
    let v4 = |text: &str| SocketAddrV4::new(text.parse().unwrap(), 0);
    let at = |text: &str, port| SocketAddrV4::new(text.parse().unwrap(), port);
    let (client, server, neighbour) = (raw(&cluster.outside), raw(cluster.pod(2)), raw(cluster.pod(3)));
    for (published, own) in [(20001, 38412), (21007, 21007)] {
        client.send_to(&init(5000, published), &v4("192.0.2.1").into()).unwrap();
        assert_eq!(next(&server), (at("192.0.2.9", 5000), at("10.244.1.2", own)));
    }
    // From Pod to Pod over the bridge: the published port, or an ordinary one.
    neighbour.send_to(&init(5000, 20001), &v4("192.0.2.1").into()).unwrap();
    assert_eq!(next(&server), (at("192.0.2.1", 20002), at("10.244.1.2", 38412)));
    neighbour.send_to(&init(5001, 20001), &v4("192.0.2.1").into()).unwrap();
    let (seen, _) = next(&server);
    assert!(seen.ip().to_string() == "192.0.2.1" && (32768..=60999).contains(&seen.port()), "{seen}");
    // And to the world.
    server.send_to(&init(38412, 9000), &v4("192.0.2.9").into()).unwrap();
    assert_eq!(next(&client).0, at("192.0.2.1", 20001));
}
