//! What is promised about flows, in namespaces with rules by `nft`. Traffic stays on the loopback in them.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use portolan_testkit::{eventually_ok, need_root, net::private_namespace, nft};

use super::*;

/// Conntrack works in a namespace once a rule there asks for it. Port 5000 leads to 6000.
const RULES: &str = "
    table inet t {
        chain track { type filter hook input priority 0; ct state new accept; }
        chain output { type nat hook output priority -100;
            ip daddr 127.0.0.1 udp dport 5000 dnat ip to 127.0.0.1:6000
            ip6 daddr ::1 udp dport 5000 dnat ip6 to [::1]:6000
        }
    }";

fn sent_to(port: u16) -> impl Fn(&Flow) -> bool {
    move |flow| flow.original.destination.port() == port
}

/// Sends one datagram to each port on both families from sockets that are returned: nobody listens, so the flows live
/// until somebody deletes them or their timeout of 30 s is over.
fn send(ports: &[u16]) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for address in ["127.0.0.1", "::1"] {
        // A child that another test has just forked holds an earlier one until it becomes its program.
        let receiver = eventually_ok(Duration::from_secs(5), || {
            UdpSocket::bind(SocketAddr::new(address.parse().unwrap(), 6000))
        })
        .unwrap();
        for &port in ports {
            let socket = UdpSocket::bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
            socket.send_to(b"x", SocketAddr::new(address.parse().unwrap(), port)).unwrap();
            sockets.push(socket);
        }
        sockets.push(receiver);
    }
    sockets
}

fn udp_ports(conntrack: &Conntrack) -> Vec<u16> {
    let flows = conntrack.flows(Filter::protocol(Protocol::Udp), |_| true).unwrap();
    let mut ports: Vec<_> = flows.iter().map(|flow| flow.original.destination.port()).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn flows_show_both_directions_and_that_they_were_rewritten() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let sockets = send(&[5000]);
        let conntrack = Conntrack::open().unwrap();
        let flows = conntrack.flows(Filter::protocol(Protocol::Udp), sent_to(5000)).unwrap();
        assert_eq!(flows.len(), 2);
        for flow in flows {
            let client = sockets.iter().find(|s| s.local_addr().unwrap() == flow.original.source);
            assert!(client.is_some(), "{flow}");
            assert_eq!(flow.backend(), SocketAddr::new(flow.original.destination.ip(), 6000));
            assert!(flow.destination_rewritten());
            assert!(flow.timeout.is_some());
            assert!(
                flow.to_string().ends_with("(goes to 127.0.0.1:6000)") || flow.to_string().contains("::1")
            );
        }
        assert!(conntrack.flows(Filter::protocol(Protocol::Sctp), |_| true).unwrap().is_empty());
    });
}

#[test]
fn a_flush_takes_the_stale_flows_and_no_others() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let sockets = send(&[5000, 5001, 5002]);
        let conntrack = Conntrack::open().unwrap();
        assert_eq!(udp_ports(&conntrack), [5000, 5000, 5001, 5001, 5002, 5002]);
        // By one port, which the kernel filters.
        let port = PortRange::single(5001).unwrap();
        assert_eq!(conntrack.flush_udp(Some(port), |flow| flow.original.source.is_ipv6()).unwrap(), 1);
        assert_eq!(udp_ports(&conntrack), [5000, 5000, 5001, 5002, 5002]);
        // By a range and the place where the packets go.
        let ports = PortRange::new(5000, 5001).unwrap();
        assert_eq!(conntrack.flush_udp(Some(ports), |flow| flow.backend().port() == 6000).unwrap(), 2);
        assert_eq!(udp_ports(&conntrack), [5001, 5002, 5002]);
        assert_eq!(conntrack.flush_udp(None, |_| true).unwrap(), 3);
        assert_eq!(conntrack.flush_udp(None, |_| true).unwrap(), 0);
        drop(sockets);
    });
}

#[test]
fn a_later_flow_with_the_same_addresses_survives_the_deletion_of_the_earlier_one() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let conntrack = Conntrack::open().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let find = || {
            socket.send_to(b"x", "127.0.0.1:5002").unwrap();
            conntrack.flows(Filter::protocol(Protocol::Udp), sent_to(5002)).unwrap().remove(0)
        };
        let first = find();
        assert!(conntrack.delete(&first).unwrap());
        assert!(!conntrack.delete(&first).unwrap());
        // The memory of the first entry may be used again at once, and with it its number; then they are one.
        let second = std::iter::repeat_with(find).take(50).find(|flow| {
            flow.id != first.id || {
                conntrack.delete(flow).unwrap();
                false
            }
        });
        let Some(second) = second else { return };
        assert_eq!(second.original, first.original);
        assert!(!conntrack.delete(&first).unwrap());
        assert!(conntrack.delete(&second).unwrap());
    });
}

#[test]
fn tcp_flows_survive_a_flush_of_udp() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let _sockets = send(&[5001]);
        let conntrack = Conntrack::open().unwrap();
        assert_eq!(conntrack.flush_udp(None, |_| true).unwrap(), 2);
        let tcp = Filter { family: Some(Family::V4), ..Filter::protocol(Protocol::Tcp) };
        let left = conntrack.flows(tcp, |_| true).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].original.destination, listener.local_addr().unwrap());
    });
}

#[test]
fn few_flows_are_read_in_one_walk_and_none_in_no_walk() {
    let both = Filter::protocol(Protocol::Udp);
    let one = Filter { family: Some(Family::V6), ..both };
    assert_eq!(walks(both, Some(0)), []);
    assert_eq!(walks(both, Some(1)), [None]);
    for many in [None, Some(FEW)] {
        assert_eq!(walks(both, many), [Some(Family::V4), Some(Family::V6)]);
    }
    assert_eq!(walks(one, Some(1)), [Some(Family::V6)]);
}

#[test]
fn many_flows_of_both_families_are_told_apart() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let ports: Vec<u16> = (10_000..10_000 + FEW as u16).collect();
        // Some sockets at a time: the test may not have thousands of open files.
        for part in ports.chunks(100) {
            drop(send(part));
        }
        let conntrack = Conntrack::open().unwrap();
        assert!(count().unwrap() >= FEW);
        let range = PortRange::new(10_000, 10_009).unwrap();
        assert_eq!(conntrack.flush_udp(Some(range), |flow| flow.original.source.is_ipv4()).unwrap(), 10);
        assert_eq!(conntrack.flush_udp(PortRange::single(10_005).ok(), |_| true).unwrap(), 1);
        let left = conntrack.flows(Filter::protocol(Protocol::Udp), |_| true).unwrap();
        assert_eq!(left.len(), 2 * FEW - 11);
    });
}

#[test]
fn the_kernel_itself_sorts_out_by_port() {
    need_root!();
    private_namespace(|| {
        nft::load(RULES);
        let _sockets = send(&[5000, 5001, 5002]);
        let conntrack = Conntrack::open().unwrap();
        let answered = |ports: Option<PortRange>| {
            let filter = Filter { ports, ..Filter::protocol(Protocol::Udp) };
            let write = |writer: &mut MessageWriter| write_filter(writer, filter, Some(Family::V4));
            conntrack.socket.dump(GET, write, || 0, |count, _| *count += 1).unwrap()
        };
        assert_eq!((answered(None), answered(PortRange::single(5001).ok())), (3, 1));
    });
}
