//! Packets on a node whose Pods' networks others made: who answers, and what address the server sees.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use common::{
    cluster::{Cluster, block, config, far, node, other, outside, pod, port, serve, service},
    site::{Ip, ask_ip, ask_on, split, udp},
};
use portolan_apply::{Counting, PlanConfig, SourcePolicy};
use portolan_model::{Mapping, PortRange, Protocol, Protocols};
use portolan_testkit::{ask, echo::Echo, eventually, need_root, nft};

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn both(host: u16, number: u16, container: u16) -> Vec<Mapping> {
    BOTH.map(|protocol| port(protocol, host, number, container)).to_vec()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: io::Result<T>) {
    let kind = answer.as_ref().map_err(io::Error::kind).err();
    assert_eq!(kind, Some(io::ErrorKind::ConnectionRefused), "{answer:?}");
}

/// A TCP connection from this port; the first line that the server says.
fn tcp_from(
    from: &portolan_testkit::net::Namespace,
    own: SocketAddr,
    to: SocketAddr,
) -> (String, SocketAddr) {
    let stream = from.run(|| {
        let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&own.into())?;
        socket.connect_timeout(&to.into(), ask::PATIENCE)?;
        io::Result::Ok(TcpStream::from(socket))
    });
    split(&ask::first_line(&stream.unwrap(), ask::PATIENCE).unwrap())
}

#[test]
fn clients_of_elsewhere_reach_the_pod_and_are_seen_as_they_are() {
    need_root!();
    let cluster = Cluster::new();
    let _plane = cluster.plane(both(20001, 2, 7777));
    for ip in Ip::BOTH {
        let _servers = cluster.serve(2, ip, 7777);
        for protocol in BOTH {
            let name = format!("{protocol}-2");
            for (from, seen) in [
                (&cluster.outside, outside(ip)),
                (&cluster.other, other(ip)),
                (&cluster.far, far(ip)),
                (&cluster.node, node(ip)),
            ] {
                let answer = ask_ip(from, protocol, (node(ip), 20001)).unwrap();
                assert_eq!(answer, (name.clone(), seen), "{ip:?} {protocol}");
            }
        }
    }
}

#[test]
fn pods_of_one_bridge_reach_each_other_and_themselves_by_published_ports() {
    need_root!();
    // Whether the bridge's own frames pass the rules or not.
    for br_netfilter in [false, true] {
        pods_of_one_bridge(&Cluster::with(br_netfilter));
    }
}

fn pods_of_one_bridge(cluster: &Cluster) {
    let mut mappings = both(20001, 2, 7777);
    mappings.extend(both(20002, 3, 7000));
    mappings.extend([block(Protocol::Udp, 21000, 21099, 2), block(Protocol::Udp, 22000, 22099, 3)]);
    let _plane = cluster.plane(mappings);
    for ip in Ip::BOTH {
        let _servers = (cluster.serve(2, ip, 7777), cluster.serve(2, ip, 21042));
        // By the node's address and by the bridge's.
        for to in [node(ip), ip.pick("10.244.1.1", "fd00:10:244:1::1")] {
            for protocol in BOTH {
                let name = format!("{protocol}-2");
                for from in [2, 3] {
                    let answer = ask_ip(cluster.pod(from), protocol, (to, 20001))
                        .unwrap_or_else(|error| panic!("{from} {to} {protocol}: {error}"));
                    assert_eq!(answer, (name.clone(), to), "{from} {ip:?} {protocol}");
                }
                // From a mapped port: the published one.
                let own = SocketAddr::new(pod(3, ip), 7000);
                let answer = match protocol {
                    Protocol::Tcp => tcp_from(cluster.pod(3), own, (to, 20001).into()),
                    _ => ask_on(&udp(cluster.pod(3), own.ip(), own.port()), (to, 20001)).unwrap(),
                };
                assert_eq!(answer, (name, SocketAddr::new(to, 20002)), "{ip:?} {protocol}");
            }
            for from in [2, 3] {
                let answer = ask_ip(cluster.pod(from), Protocol::Udp, (to, 21042)).unwrap();
                assert_eq!(answer, ("udp-2".to_owned(), to));
            }
            let answer = ask_on(&udp(cluster.pod(3), pod(3, ip), 22005), (to, 21042)).unwrap();
            assert_eq!(answer, ("udp-2".to_owned(), SocketAddr::new(to, 22005)));
        }
    }
}

#[test]
fn packets_that_are_not_for_published_ports_are_left_alone() {
    need_root!();
    let cluster = Cluster::new();
    let mut mappings = both(20001, 2, 7777);
    mappings.extend(both(20002, 3, 7777));
    let _plane = cluster.plane(mappings);
    for ip in Ip::BOTH {
        let _servers = (cluster.serve(2, ip, 7777), cluster.serve(2, ip, 20001));
        let _far = (
            serve(&cluster.far, "far", SocketAddr::new(far(ip), 20001)),
            serve(&cluster.far, "far", SocketAddr::new(far(ip), 7777)),
        );
        for protocol in BOTH {
            // Through this node to the same port number of another Pod: transit traffic.
            for own in [20001, 7777] {
                let answer = ask_ip(&cluster.outside, protocol, (far(ip), own)).unwrap();
                assert_eq!(answer, (format!("{protocol}-far"), outside(ip)));
                let answer = ask_ip(cluster.pod(3), protocol, (far(ip), own)).unwrap();
                assert_eq!(answer, (format!("{protocol}-far"), pod(3, ip)));
                // Straight to the Pod, over the bridge, from the node and from elsewhere.
                for (from, seen) in [
                    (cluster.pod(3), pod(3, ip)),
                    (&cluster.node, ip.pick("10.244.1.1", "fd00:10:244:1::1")),
                    (&cluster.outside, outside(ip)),
                    (&cluster.far, far(ip)),
                ] {
                    let answer = ask_ip(from, protocol, (pod(2, ip), own)).unwrap();
                    assert_eq!(answer, (format!("{protocol}-2"), seen), "{ip:?} {own}");
                }
            }
            refused(ask_ip(&cluster.node, protocol, (ip.loopback(), 20002)));
        }
        // From a mapped port to Pods: as it is.
        let socket = udp(cluster.pod(3), pod(3, ip), 7777);
        for to in [(far(ip), 7777), (pod(2, ip), 7777), (pod(2, ip), 20001)] {
            assert_eq!(ask_on(&socket, to).unwrap().1, SocketAddr::new(pod(3, ip), 7777));
        }
    }
}

#[test]
fn services_and_node_ports_of_others_are_left_alone() {
    need_root!();
    let cluster = Cluster::new();
    let mut mappings = both(20001, 2, 7777);
    mappings.extend(both(20002, 3, 7777));
    let _plane = cluster.plane(mappings);
    for ip in Ip::BOTH {
        let _far = serve(&cluster.far, "far", SocketAddr::new(far(ip), 7777));
        // Also from a mapped port a Service's Pod sees the Pod.
        for own in [7777, 7778] {
            let socket = udp(cluster.pod(3), pod(3, ip), own);
            let answer = ask_on(&socket, (service(ip), 53)).unwrap();
            assert_eq!(answer, ("udp-far".to_owned(), SocketAddr::new(pod(3, ip), own)));
        }
    }
    let ip = Ip::V4;
    // A Service at a published number, whose Pod is a mapped one at its mapped port: the source is kept, so that the
    // Pod's own answer goes past conntrack, as without us.
    let server = udp(cluster.pod(3), pod(3, ip), 7777);
    server.set_read_timeout(Some(ask::PATIENCE)).unwrap();
    let client = udp(cluster.pod(2), pod(2, ip), 7777);
    client.send_to(b"hello", ("10.96.0.11", 20001)).unwrap();
    assert_eq!(server.recv_from(&mut [0; 16]).unwrap().1, SocketAddr::new(pod(2, ip), 7777));
    drop(server);
    // A node port is kube-proxy's, with its masquerade.
    let _two = cluster.serve(3, ip, 7777);
    let (name, seen) = cluster.ask(ip, Protocol::Udp, 30080).unwrap();
    assert_eq!((name.as_str(), seen), ("udp-3", ip.pick("10.244.1.1", "::")));
}

#[test]
fn what_a_pod_sends_to_the_world_from_a_mapped_port_shows_the_published_one() {
    need_root!();
    let cluster = Cluster::new();
    let mut mappings = both(20001, 2, 7000);
    mappings.push(block(Protocol::Udp, 21000, 21099, 2));
    let _plane = cluster.plane(mappings);
    for ip in Ip::BOTH {
        let peer = SocketAddr::new(outside(ip), 9000);
        let _peer = serve(&cluster.outside, "peer", peer);
        let seen_from = |number: u16, own: u16| {
            ask_on(&udp(cluster.pod(number), pod(number, ip), own), (peer.ip(), peer.port())).unwrap().1
        };
        assert_eq!(seen_from(2, 7000), SocketAddr::new(node(ip), 20001));
        assert_eq!(seen_from(2, 21042), SocketAddr::new(node(ip), 21042));
        let own = SocketAddr::new(pod(2, ip), 7000);
        assert_eq!(tcp_from(cluster.pod(2), own, peer).1, SocketAddr::new(node(ip), 20001));
        // What is not mapped is the CNI plugin's, which keeps numbers.
        for (number, own) in [(2, 7001), (3, 7000)] {
            assert_eq!(seen_from(number, own), SocketAddr::new(node(ip), own));
        }
        // Another node is the world too.
        let _node = serve(&cluster.other, "other", SocketAddr::new(other(ip), 9000));
        let answer = ask_on(&udp(cluster.pod(2), pod(2, ip), 7000), (other(ip), 9000)).unwrap();
        assert_eq!(answer.1, SocketAddr::new(ip.pick("198.51.100.1", "2001:db8:2::1"), 20001));
    }
}

#[test]
fn a_flush_of_all_rules_is_repaired_and_a_reload_of_others_changes_nothing() {
    need_root!();
    let cluster = Cluster::new();
    let plane = cluster.plane(both(20001, 2, 7777));
    let _servers = cluster.serve(2, Ip::V4, 7777);
    cluster.node.run(|| nft::nft("flush ruleset"));
    for protocol in BOTH {
        eventually(Duration::from_secs(1), || cluster.ask(Ip::V4, protocol, 20001).is_ok());
    }
    assert_eq!(plane.stats().repairs, 1);
    // kube-proxy and others write their tables anew all the time.
    let services = "table inet others { chain prerouting { type nat hook prerouting priority dstnat; \
                    fib daddr type local tcp dport 20001 dnat ip to 10.244.2.2:9; }; }";
    cluster.node.run(|| nft::load(services));
    for _ in 0..5 {
        assert_eq!(cluster.ask(Ip::V4, Protocol::Tcp, 20001).unwrap(), ("tcp-2".to_owned(), outside(Ip::V4)));
    }
    assert_eq!(plane.stats().repairs, 1);
}

#[test]
fn beside_the_rules_of_both_kinds_of_iptables_ours_come_first() {
    need_root!();
    for iptables in ["iptables-legacy", "iptables-nft"] {
        let cluster = Cluster::new();
        // As kube-proxy and a CNI plugin write them, at the usual places; and a rule for our port.
        for rule in [
            "-A PREROUTING -p tcp --dport 20001 -j MARK --set-xmark 0x4000/0x4000",
            "-A PREROUTING -p tcp --dport 20001 -j DNAT --to-destination 10.244.2.2:9",
            "-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully",
            "-A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -j MASQUERADE --random-fully",
        ] {
            let output =
                cluster.node.command(iptables).args(["-w", "-t", "nat"]).args(rule.split(' ')).output();
            let output = output.unwrap();
            assert!(
                output.status.success(),
                "{iptables} {rule}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        // Also when theirs were there first.
        let _plane = cluster.plane(both(20001, 2, 7777));
        let servers = cluster.serve(2, Ip::V4, 7777);
        assert_eq!(cluster.ask(Ip::V4, Protocol::Tcp, 20001).unwrap(), ("tcp-2".to_owned(), outside(Ip::V4)));
        let from_pod = ask_ip(cluster.pod(3), Protocol::Tcp, (node(Ip::V4), 20001)).unwrap();
        assert_eq!(from_pod, ("tcp-2".to_owned(), node(Ip::V4)));
        drop(servers);
        let _peer = serve(&cluster.outside, "peer", SocketAddr::new(outside(Ip::V4), 9000));
        let socket = udp(cluster.pod(2), pod(2, Ip::V4), 7777);
        let seen = ask_on(&socket, (outside(Ip::V4), 9000)).unwrap().1;
        assert_eq!(seen, SocketAddr::new(node(Ip::V4), 20001), "{iptables}");
    }
}

#[test]
fn a_port_that_goes_to_another_pod_is_never_refused_meanwhile() {
    need_root!();
    let cluster = Cluster::new();
    let ip = Ip::V4;
    let (one, two) = (port(Protocol::Tcp, 20001, 2, 7777), port(Protocol::Tcp, 20001, 3, 7777));
    let plane = cluster.plane(vec![one.clone()]);
    let _servers = (cluster.serve(2, ip, 7777), cluster.serve(3, ip, 7777));
    std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            let mut names = [0, 0];
            for _ in 0..300 {
                let (name, seen) = cluster.ask(ip, Protocol::Tcp, 20001).unwrap();
                assert_eq!(seen, outside(ip));
                names[usize::from(name == "tcp-3")] += 1;
            }
            names
        });
        while !clients.is_finished() {
            for (from, to) in [(&one, &two), (&two, &one)] {
                plane.change(vec![from.key()], vec![to.clone()]).unwrap();
            }
        }
        let names = clients.join().unwrap();
        assert!(names.iter().all(|count| *count > 0), "{names:?}");
    });
    assert_eq!(plane.stats().repairs, 0);
}

#[test]
fn the_late_end_of_an_older_sandbox_leaves_the_newer_one_with_its_address_alone() {
    need_root!();
    let cluster = Cluster::new();
    // The address of an old sandbox was given again before anybody heard of its end.
    let old = [both(20001, 2, 7777), vec![block(Protocol::Udp, 21000, 21099, 2)]].concat();
    let new = [both(20002, 2, 7777), vec![block(Protocol::Udp, 22000, 22099, 2)]].concat();
    let plane = cluster.plane(old.clone());
    plane.change(vec![], new).unwrap();
    plane.change(old.iter().map(Mapping::key).collect(), vec![]).unwrap();
    assert!(plane.settle().unwrap());
    for ip in Ip::BOTH {
        let _servers = (cluster.serve(2, ip, 7777), cluster.serve(2, ip, 22042));
        for protocol in BOTH {
            assert_eq!(cluster.ask(ip, protocol, 20002).unwrap().1, outside(ip));
            // Itself and its neighbour, who need the address to be known as mapped.
            for from in [2, 3] {
                assert_eq!(ask_ip(cluster.pod(from), protocol, (node(ip), 20002)).unwrap().1, node(ip));
            }
        }
        assert_eq!(cluster.ask(ip, Protocol::Udp, 22042).unwrap().0, "udp-2");
        drop(_servers);
        let peer = SocketAddr::new(outside(ip), 9000);
        let _peer = serve(&cluster.outside, "peer", peer);
        for (own, published) in [(7777, 20002), (22042, 22042)] {
            let socket = udp(cluster.pod(2), pod(2, ip), own);
            let seen = ask_on(&socket, (peer.ip(), peer.port())).unwrap().1;
            assert_eq!(seen, SocketAddr::new(node(ip), published));
        }
    }
}

#[test]
fn only_allowed_sources_begin_connections_to_a_pool() {
    need_root!();
    let cluster = Cluster::new();
    let allow = |allowed: &[IpAddr]| PlanConfig {
        sources: vec![SourcePolicy {
            ports: PortRange::new(20000, 20999).unwrap(),
            protocols: Protocols::TCP.with(Protocol::Udp),
            allowed: allowed.iter().map(|&address| address.into()).collect(),
        }],
        ..config()
    };
    let mut mappings = both(20001, 2, 7777);
    mappings.extend(both(28001, 2, 7777));
    let plane = cluster.start(allow(&[]), mappings);
    let dropped = |from: &portolan_testkit::net::Namespace, protocol, to: SocketAddr| {
        let short = Duration::from_millis(150);
        let answer = from.run(|| match protocol {
            Protocol::Tcp => ask::tcp_within(to, short),
            _ => ask::udp_within(to, short),
        });
        let kind = answer.as_ref().map_err(io::Error::kind).err();
        assert!(
            matches!(kind, Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)),
            "{protocol} {to}: {answer:?}"
        );
    };
    for ip in Ip::BOTH {
        let to = SocketAddr::new(node(ip), 20001);
        let servers = cluster.serve(2, ip, 7777);
        for protocol in BOTH {
            plane.reconfigure(allow(&[])).unwrap();
            // Nobody from elsewhere, not even the node's own Pods; but the node itself, and other pools.
            for from in [&cluster.outside, &cluster.far, cluster.pod(3), cluster.pod(2)] {
                dropped(from, protocol, to);
            }
            assert_eq!(ask_ip(&cluster.node, protocol, (to.ip(), to.port())).unwrap().1, node(ip));
            cluster.ask(ip, protocol, 28001).unwrap();
            // Straight to the Pod is not the pool's matter.
            ask_ip(&cluster.outside, protocol, (pod(2, ip), 7777)).unwrap();
            // As soon as it is allowed, and no other.
            plane.reconfigure(allow(&[outside(ip), Ip::V4.pick("203.0.113.7", "::")])).unwrap();
            assert_eq!(cluster.ask(ip, protocol, 20001).unwrap().1, outside(ip));
            dropped(&cluster.other, protocol, to);
        }
        // A connection that is there goes on when its client is not allowed any more.
        let mut stream = cluster.outside.run(|| TcpStream::connect(to)).unwrap();
        ask::first_line(&stream, ask::PATIENCE).unwrap();
        plane.reconfigure(allow(&[])).unwrap();
        io::Write::write_all(&mut stream, b"still there?\n").unwrap();
        assert_eq!(ask::first_line(&stream, ask::PATIENCE).unwrap(), "still there?");
        drop((stream, servers));
        // Answers to what the Pod began, also from its published port.
        let peer = SocketAddr::new(outside(ip), 9000);
        let _peer = serve(&cluster.outside, "peer", peer);
        for own in [7777, 7778] {
            ask_on(&udp(cluster.pod(2), pod(2, ip), own), (peer.ip(), peer.port())).unwrap();
        }
        assert_eq!(
            tcp_from(cluster.pod(2), SocketAddr::new(pod(2, ip), 7777), peer).1,
            SocketAddr::new(node(ip), 20001)
        );
    }
    plane.reconfigure(config()).unwrap();
    let _servers = cluster.serve(2, Ip::V4, 7777);
    cluster.ask(Ip::V4, Protocol::Tcp, 20001).unwrap();
    assert_eq!(plane.stats().repairs, 0);
}

#[test]
fn connections_and_traffic_are_counted_by_mapping_and_outlive_a_flush() {
    need_root!();
    let cluster = Cluster::new();
    let ip = Ip::V4;
    let block = block(Protocol::Udp, 21000, 21099, 3);
    let single = port(Protocol::Udp, 20001, 2, 7777);
    let plane = cluster.start(
        PlanConfig { counting: Counting::Traffic, ..config() },
        vec![single.clone(), block.clone(), port(Protocol::Tcp, 20001, 2, 7777)],
    );
    assert_eq!(plane.stats().counting, Counting::Traffic);
    let counts = |mapping: &Mapping| {
        let all = plane.counters().unwrap();
        all.into_iter().find(|(key, _)| *key == mapping.key()).unwrap().1
    };
    let _servers = (cluster.serve(2, ip, 7777), cluster.serve(3, ip, 21042));
    for _ in 0..2 {
        let client = udp(&cluster.outside, outside(ip), 0);
        for _ in 0..3 {
            ask_on(&client, (node(ip), 20001)).unwrap();
        }
    }
    cluster.ask(ip, Protocol::Udp, 21042).unwrap();
    ask_ip(&cluster.node, Protocol::Udp, (node(ip), 21042)).unwrap();
    let seen = counts(&single);
    assert_eq!((seen.connections, seen.received_packets, seen.sent_packets), (2, 6, 6));
    // 20 bytes of IP, 8 of UDP, and the question.
    assert_eq!(seen.received_bytes, 6 * (28 + 13));
    let blocked = counts(&block);
    assert_eq!((blocked.connections, blocked.received_packets, blocked.sent_packets), (2, 2, 2));

    // What the Pod begins from its mapped port, too.
    drop(_servers);
    let _peer = Echo::udp(&cluster.outside, "peer", &SocketAddr::new(outside(ip), 9000).to_string());
    let socket = udp(cluster.pod(2), pod(2, ip), 7777);
    for _ in 0..3 {
        ask_on(&socket, (outside(ip), 9000)).unwrap();
    }
    let more = counts(&single);
    assert_eq!((more.connections, more.received_packets - 6, more.sent_packets - 6), (2, 3, 2));

    // Others come and go; a flush; another configuration.
    plane.add(port(Protocol::Udp, 20009, 2, 9999)).unwrap();
    plane.remove(port(Protocol::Udp, 20009, 2, 9999).key()).unwrap();
    assert_eq!(counts(&single), more);
    cluster.node.run(|| nft::nft("flush ruleset"));
    eventually(Duration::from_secs(1), || plane.stats().repairs > 0);
    assert_eq!(counts(&single), more);
    plane.reconfigure(config()).unwrap();
    assert_eq!(counts(&single), more);
    drop(socket);
    let _servers = cluster.serve(2, ip, 7777);
    cluster.ask(ip, Protocol::Udp, 20001).unwrap();
    assert_eq!(counts(&single).connections, 3);
    // The next owner of the port begins at nothing.
    plane.change(vec![single.key()], vec![port(Protocol::Udp, 20001, 3, 7777)]).unwrap();
    assert_eq!(counts(&single).connections, 0);
}
