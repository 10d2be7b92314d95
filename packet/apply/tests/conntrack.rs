//! UDP connections that go to the wrong place are deleted, those and no others.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{
    block, port,
    site::{Ip, Site, ask_on, udp},
};
use portolan_model::{Mapping, Protocol};
use portolan_netlink::conntrack::Flow;
use portolan_testkit::{ask, echo::Echo, need_root};

/// What tells a flow from others, without what time changes.
fn identity(flows: &[Flow]) -> Vec<(SocketAddr, SocketAddr, SocketAddr, SocketAddr)> {
    let mut all: Vec<_> = flows
        .iter()
        .map(|flow| {
            (flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_client_that_never_stops_sending_reaches_the_new_instance() {
    need_root!();
    let site = Site::new();
    let plane = site.plane(vec![]);
    for ip in Ip::BOTH {
        let _servers = (site.serve(2, ip, 7777), site.serve(3, ip, 7777));
        let client = udp(&site.outside, ip.outside(), 5555);
        let who = || ask_on(&client, (ip.host(), 20001)).map(|(name, _)| name);
        let (one, two) = (port(Protocol::Udp, 20001, 2, 7777), port(Protocol::Udp, 20001, 3, 7777));
        // Nobody is there yet; the client tries, and connection tracking remembers that.
        assert!(who().is_err());
        for _ in 0..2 {
            plane.add(one.clone()).unwrap();
            assert!(plane.settle().unwrap());
            assert_eq!(who().unwrap(), "udp-2");
            // Removed and added.
            plane.remove(one.key()).unwrap();
            plane.add(two.clone()).unwrap();
            assert!(plane.settle().unwrap());
            assert_eq!(who().unwrap(), "udp-3");
            // Both in one change.
            plane.change(vec![two.key()], vec![one.clone()]).unwrap();
            assert!(plane.settle().unwrap());
            assert_eq!(who().unwrap(), "udp-2");
            plane.remove(one.key()).unwrap();
            assert!(plane.settle().unwrap());
            assert!(who().is_err());
        }
    }
}

#[test]
fn a_peer_that_was_written_to_first_reaches_the_new_instance() {
    need_root!();
    let site = Site::new();
    let (one, two) = (port(Protocol::Udp, 20001, 2, 7777), port(Protocol::Udp, 20001, 3, 7777));
    let plane = site.plane(vec![one.clone()]);
    let ip = Ip::V4;
    let peer = udp(&site.outside, ip.outside(), 9000);
    // The instance sends first: the connection begins on its side.
    let first = udp(site.instance(2), ip.instance(2), 7777);
    first.send_to(b"hello", (ip.outside(), 9000)).unwrap();
    assert_eq!(peer.recv_from(&mut [0; 16]).unwrap().1, (ip.host(), 20001).into());
    let _second = site.serve(3, ip, 7777);
    plane.change(vec![one.key()], vec![two]).unwrap();
    assert!(plane.settle().unwrap());
    assert_eq!(ask_on(&peer, (ip.host(), 20001)).unwrap().0, "udp-3");
}

#[test]
fn what_an_instance_sent_before_its_mapping_changes_to_the_published_port() {
    need_root!();
    let site = Site::new();
    let plane = site.plane(vec![]);
    let ip = Ip::V4;
    let _peer = Echo::udp(&site.outside, "peer", "192.0.2.9:9000");
    let socket = udp(site.instance(2), ip.instance(2), 7777);
    assert!(ask_on(&socket, (ip.outside(), 9000)).unwrap().1.port() >= 32768);
    plane.add(port(Protocol::Udp, 20001, 2, 7777)).unwrap();
    assert!(plane.settle().unwrap());
    assert_eq!(ask_on(&socket, (ip.outside(), 9000)).unwrap().1.port(), 20001);
    plane.remove(port(Protocol::Udp, 20001, 2, 7777).key()).unwrap();
    assert!(plane.settle().unwrap());
    assert!(ask_on(&socket, (ip.outside(), 9000)).unwrap().1.port() >= 32768);
}

#[test]
fn every_other_connection_survives() {
    need_root!();
    let site = Site::new();
    let moved = port(Protocol::Udp, 20001, 2, 7777);
    let others = [
        port(Protocol::Tcp, 20001, 2, 7777),
        port(Protocol::Udp, 20002, 2, 7778),
        port(Protocol::Udp, 20003, 3, 7777),
        Mapping { address: Some(Ip::V4.second()), ..port(Protocol::Udp, 20001, 3, 7777) },
        block(Protocol::Udp, 21000, 21099, 2),
    ];
    let plane = site.plane(others.iter().cloned().chain([moved.clone()]).collect());
    assert!(plane.settle().unwrap());
    let ip = Ip::V4;
    let _servers =
        (site.serve(2, ip, 7777), site.serve(2, ip, 7778), site.serve(3, ip, 7777), site.serve(2, ip, 21042));
    let _behind = Echo::udp(&site.transit, "behind", "198.51.100.9:20001");
    let _local = Echo::udp(&site.host, "local", "192.0.2.1:9999");

    let talk = |client: &std::net::UdpSocket, to: &str| {
        ask_on(client, {
            let to: SocketAddr = to.parse().unwrap();
            (to.ip(), to.port())
        })
        .unwrap()
    };
    let client = |own| udp(&site.outside, ip.outside(), own);
    let stale = client(5000);
    talk(&stale, "192.0.2.1:20001");
    let sockets: Vec<_> = [
        (5001, "192.0.2.1:20002"),    // another port of the same instance
        (5002, "192.0.2.1:20003"),    // the same container port of another instance
        (5003, "192.0.2.2:20001"),    // the same port of another address
        (5004, "192.0.2.1:21042"),    // a block
        (5005, "198.51.100.9:20001"), // passing through to the same port
        (5006, "10.213.0.2:7777"),    // straight to the instance
        (5007, "192.0.2.1:9999"),     // this machine itself
        (20001, "192.0.2.1:20002"),   // from the same port number
        (7777, "192.0.2.1:20002"),    // from the container's port number
    ]
    .into_iter()
    .map(|(own, to)| {
        let socket = client(own);
        talk(&socket, to);
        socket
    })
    .collect();
    // From instances and from the machine to the same port number elsewhere.
    let from_instance = udp(site.instance(3), ip.instance(3), 20001);
    talk(&from_instance, "198.51.100.9:20001");
    let from_host = udp(&site.host, ip.host(), 5555);
    talk(&from_host, "198.51.100.9:20001");
    let stream = site.outside.run(|| std::net::TcpStream::connect(("192.0.2.1", 20001)).unwrap());
    assert!(ask::first_line(&stream, ask::PATIENCE).unwrap().starts_with("tcp-2"));

    let (udp_before, tcp_before) = (site.flows(Protocol::Udp), site.flows(Protocol::Tcp));
    plane.remove(moved.key()).unwrap();
    assert!(plane.settle().unwrap());
    let expected: Vec<_> =
        udp_before.iter().filter(|flow| flow.original.source.port() != 5000).cloned().collect();
    assert_eq!(expected.len() + 1, udp_before.len());
    assert_eq!(identity(&site.flows(Protocol::Udp)), identity(&expected));
    assert_eq!(plane.stats().flows_deleted, 1);

    plane.add(Mapping { container: 7778, ..moved }).unwrap();
    assert!(plane.settle().unwrap());
    assert_eq!(identity(&site.flows(Protocol::Udp)), identity(&expected));
    assert_eq!(identity(&site.flows(Protocol::Tcp)), identity(&tcp_before));
    drop((sockets, stream));
}
