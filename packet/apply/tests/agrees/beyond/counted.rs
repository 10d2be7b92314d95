//! Counters say what was sent.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use portolan_model::{Protocol, ServiceOptions};
use portolan_plan::Counting;
use portolan_services::{Front, ServicesConfig};
use portolan_testkit::need_root;

use super::{CLUSTER, ENDPOINTS, EXTERNAL, NODE, NODE_PORT, client, config, led, serve, service, slices};
use crate::{reference::cases::VERSIONS, site::Site};

#[test]
fn connections_are_counted_by_frontend_and_by_endpoint() {
    need_root!();
    let site = Site::new();
    for counting in [Counting::Connections, Counting::Traffic] {
        let plane = site.apply(
            ServicesConfig { counting, ..config() },
            vec![service(ServiceOptions::default())],
            slices(&ENDPOINTS),
        );
        let mut chosen = BTreeMap::new();
        for ip in VERSIONS {
            for (address, port, count) in [(CLUSTER, 80, 30), (EXTERNAL, 80, 20), (NODE, NODE_PORT, 10)] {
                for (protocol, count) in [(Protocol::Tcp, count), (Protocol::Udp, count + 1)] {
                    let to = SocketAddr::new(ip.address(address), port);
                    let packets: Vec<_> = (0..count).map(|n| (client(ip, n), protocol, to)).collect();
                    for endpoint in led(&site, &packets) {
                        *chosen.entry((protocol, endpoint)).or_default() += 1_u64;
                    }
                }
            }
        }
        let counts = plane.counters().unwrap();
        let expected = |front: &Front| match front {
            Front::Port { address, protocol, .. } => {
                let cluster = VERSIONS.iter().any(|ip| ip.address(CLUSTER) == *address);
                let count = if cluster { 30 } else { 20 };
                count + u64::from(*protocol == Protocol::Udp)
            }
            Front::Node { protocol, .. } => 10 + u64::from(*protocol == Protocol::Udp),
            other => panic!("{other:?}"),
        };
        assert_eq!(counts.frontends.len(), 12, "{counts:?}");
        for front in &counts.frontends {
            assert_eq!(front.counts.connections, expected(&front.front), "{front:?}");
        }
        let counted: BTreeMap<_, _> = counts
            .backends
            .iter()
            .map(|one| ((one.port.unwrap().0, one.target.socket()), one.connections))
            .collect();
        assert_eq!(counted, chosen);
        plane.stop().unwrap();
    }
}

/// One UDP conversation and one of TCP, packet by packet.
#[test]
fn packets_and_bytes_are_counted_both_ways() {
    need_root!();
    let site = Site::new();
    serve(&site, &[8080]);
    let plane = site.apply(
        ServicesConfig { counting: Counting::Traffic, ..config() },
        vec![service(ServiceOptions::default())],
        slices(&ENDPOINTS[..1]),
    );
    for ip in VERSIONS {
        let to = SocketAddr::new(ip.address(CLUSTER), 80);
        let pod = &site.behind("pod1").namespace;
        pod.run(|| {
            let socket = UdpSocket::bind(SocketAddr::new(ip.address("10.1.0.77"), 0)).unwrap();
            socket.connect(to).unwrap();
            for _ in 0..7 {
                socket.send(&[0; 100]).unwrap();
                socket.recv(&mut [0; 200]).unwrap();
            }
            let mut stream = TcpStream::connect(to).unwrap();
            let mut bytes = [0; 200];
            let _ = stream.read(&mut bytes).unwrap();
            stream.write_all(&[1; 150]).unwrap();
            stream.read_exact(&mut bytes[..150]).unwrap();
        });
        let counts = plane.counters().unwrap();
        let of = |wanted: Protocol| {
            let front = counts.frontends.iter().find(|one| {
                matches!(one.front, Front::Port { address, protocol, .. } if address == to.ip() && protocol == wanted)
            });
            front.unwrap().counts
        };
        let udp = of(Protocol::Udp);
        let header = if ip.v4 { 28 } else { 48 };
        assert_eq!((udp.connections, udp.received_packets, udp.sent_packets), (1, 7, 7));
        assert_eq!(udp.received_bytes, 7 * (100 + header));
        assert!(udp.sent_bytes > 7 * header);
        let tcp = of(Protocol::Tcp);
        assert_eq!(tcp.connections, 1);
        // Both hands shaken, the greeting, the bytes and their acknowledgements.
        assert!(tcp.received_packets >= 3 && tcp.received_bytes >= 150 + 3 * 40, "{tcp:?}");
        assert!(tcp.sent_packets >= 2 && tcp.sent_bytes >= 150 + 2 * 40, "{tcp:?}");
        // Of endpoints the same is counted.
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let target = SocketAddr::new(ip.address(ENDPOINTS[0]), 8080);
            let (.., traffic) =
                counts.traffic.iter().find(|(of, by, _)| of.socket() == target && *by == protocol).unwrap();
            let front = of(protocol);
            assert_eq!(
                (traffic.received_packets, traffic.sent_packets),
                (front.received_packets, front.sent_packets),
                "{counts:?}"
            );
        }
    }
}
