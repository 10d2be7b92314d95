//! On a node of a cluster only those UDP connections are deleted that are ours and go to the wrong place.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::{
    cluster::{Cluster, block, config, far, node, outside, pod, port, serve, service},
    site::{Ip, ask_on, udp},
};
use portolan_apply::{DataPlane, PlanConfig};
use portolan_model::{Mapping, Protocol};
use portolan_netlink::conntrack::{Conntrack, Filter};
use portolan_testkit::{need_root, nft};

/// The UDP connections that the node tracks.
fn flows(cluster: &Cluster) -> Vec<(SocketAddr, SocketAddr, SocketAddr, SocketAddr)> {
    let flows =
        cluster.node.run(|| Conntrack::open().unwrap().flows(Filter::protocol(Protocol::Udp), |_| true));
    let mut all: Vec<_> = flows
        .unwrap()
        .iter()
        .map(|flow| {
            (flow.original.source, flow.original.destination, flow.reply.source, flow.reply.destination)
        })
        .collect();
    all.sort();
    all
}

fn settle(plane: &DataPlane) {
    assert!(plane.settle().unwrap());
}

#[test]
fn a_client_that_never_stops_sending_reaches_the_new_pod() {
    need_root!();
    let cluster = Cluster::new();
    let (one, two) = (port(Protocol::Udp, 20001, 2, 7777), port(Protocol::Udp, 20001, 3, 7777));
    // A port outside of all pools, too: a static one.
    let statics = [port(Protocol::Udp, 8053, 2, 7777), port(Protocol::Udp, 8053, 3, 7777)];
    let plane = cluster.plane(vec![]);
    for ip in Ip::BOTH {
        let _servers = (cluster.serve(2, ip, 7777), cluster.serve(3, ip, 7777));
        for (host, one, two) in [(20001, &one, &two), (8053, &statics[0], &statics[1])] {
            let client = udp(&cluster.outside, outside(ip), 0);
            let who = || ask_on(&client, (node(ip), host)).map(|(name, _)| name);
            plane.add(one.clone()).unwrap();
            settle(&plane);
            assert_eq!(who().unwrap(), "udp-2");
            plane.change(vec![one.key()], vec![two.clone()]).unwrap();
            settle(&plane);
            assert_eq!(who().unwrap(), "udp-3");
            plane.remove(two.key()).unwrap();
            settle(&plane);
            assert!(who().is_err());
        }
    }
}

#[test]
fn every_connection_of_others_survives() {
    need_root!();
    let cluster = Cluster::new();
    let ip = Ip::V4;
    let moved = port(Protocol::Udp, 20001, 2, 7777);
    let stay = [port(Protocol::Udp, 20002, 3, 7777), block(Protocol::Udp, 21000, 21099, 2)];
    let plane = cluster.plane([stay.to_vec(), vec![moved.clone()]].concat());
    settle(&plane);
    let _servers = (
        cluster.serve(2, ip, 7777),
        cluster.serve(3, ip, 7777),
        cluster.serve(2, ip, 21042),
        serve(&cluster.far, "far", SocketAddr::new(far(ip), 7777)),
        serve(&cluster.far, "far", SocketAddr::new(far(ip), 20001)),
    );
    let mut sockets = Vec::new();
    let mut talk = |from: &portolan_testkit::net::Namespace, own: (std::net::IpAddr, u16), to| {
        let socket = udp(from, own.0, own.1);
        ask_on(&socket, to).unwrap();
        sockets.push(socket);
    };
    let world = outside(ip);
    talk(&cluster.outside, (world, 5000), (node(ip), 20001));
    for (own, to) in [
        (5001, (node(ip), 20002)),  // another published port
        (5002, (node(ip), 21042)),  // a block
        (5003, (node(ip), 30080)),  // kube-proxy's node port
        (5004, (far(ip), 20001)),   // through this node, to the same number
        (5005, (pod(2, ip), 7777)), // straight to the Pod
        (20001, (node(ip), 20002)), // from the same number
        (7777, (node(ip), 20002)),  // from the Pod's number
    ] {
        talk(&cluster.outside, (world, own), to);
    }
    // A Service, from the same number as the Pod's; the node itself.
    talk(&cluster.far, (far(ip), 5006), (node(ip), 30080));
    talk(cluster.pod(3), (pod(3, ip), 20001), (service(ip), 53));
    talk(&cluster.node, (node(ip), 5007), (far(ip), 20001));

    let before = flows(&cluster);
    plane.remove(moved.key()).unwrap();
    settle(&plane);
    let expected: Vec<_> = before.iter().filter(|(client, ..)| client.port() != 5000).copied().collect();
    assert_eq!(expected.len() + 1, before.len());
    assert_eq!(flows(&cluster), expected);
    plane.add(Mapping { container: 7778, ..moved }).unwrap();
    settle(&plane);
    assert_eq!(flows(&cluster), expected);
    // A look at everything, after a start and after a repair, finds nothing either.
    drop(plane);
    let plane = cluster.plane(vec![stay[0].clone(), stay[1].clone()]);
    settle(&plane);
    assert_eq!(flows(&cluster), expected);
    cluster.node.run(|| nft::nft("flush chain inet portolan ports"));
    portolan_testkit::eventually(std::time::Duration::from_secs(1), || plane.stats().repairs == 1);
    settle(&plane);
    assert_eq!(flows(&cluster), expected);
    // So does another configuration.
    plane.reconfigure(PlanConfig { direct: vec![], ..config() }).unwrap();
    plane.reconfigure(config()).unwrap();
    settle(&plane);
    assert_eq!(flows(&cluster), expected);
}

#[test]
fn connections_of_mappings_that_went_while_nobody_looked_are_deleted_at_the_start() {
    need_root!();
    let cluster = Cluster::new();
    let ip = Ip::V4;
    let gone = [port(Protocol::Udp, 20001, 2, 7777), port(Protocol::Udp, 8053, 2, 7777)];
    let plane = cluster.plane(gone.to_vec());
    settle(&plane);
    let _server = cluster.serve(2, ip, 7777);
    for (own, host) in [(5001, 20001), (5002, 8053)] {
        ask_on(&udp(&cluster.outside, outside(ip), own), (node(ip), host)).unwrap();
    }
    // As after a crash: rules and connections stay.
    drop(plane);
    assert_eq!(flows(&cluster).len(), 2);
    let plane = cluster.plane(vec![]);
    settle(&plane);
    assert_eq!(flows(&cluster), []);
    assert_eq!(plane.stats().flows_deleted, 2);
}

#[test]
fn what_a_pod_sent_before_its_mapping_changes_to_the_published_port_and_back() {
    need_root!();
    let cluster = Cluster::new();
    let plane = cluster.plane(vec![]);
    for ip in Ip::BOTH {
        let _peer = serve(&cluster.outside, "peer", SocketAddr::new(outside(ip), 9000));
        let socket = udp(cluster.pod(2), pod(2, ip), 7777);
        let seen = || ask_on(&socket, (outside(ip), 9000)).unwrap().1.port();
        assert_eq!(seen(), 7777);
        let mapping = port(Protocol::Udp, 20001, 2, 7777);
        plane.add(mapping.clone()).unwrap();
        settle(&plane);
        assert_eq!(seen(), 20001);
        plane.remove(mapping.key()).unwrap();
        settle(&plane);
        assert_eq!(seen(), 7777);
    }
}
