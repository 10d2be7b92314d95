//! Packets, through the real kernel: who answers, and what address the server sees.
#![allow(clippy::unwrap_used)]

mod common;

use std::{io, net::SocketAddr};

use common::{
    block, port,
    site::{Ip, Site, ask_ip, ask_on, split, udp},
};
use portolan_model::{Mapping, Protocol};
use portolan_testkit::{ask, echo::Echo, need_root};

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

fn both(host: u16, number: u16, container: u16) -> Vec<Mapping> {
    BOTH.map(|protocol| port(protocol, host, number, container)).to_vec()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: io::Result<T>) {
    let kind = answer.as_ref().map_err(io::Error::kind).err();
    assert_eq!(kind, Some(io::ErrorKind::ConnectionRefused), "{answer:?}");
}

#[test]
fn clients_reach_the_instance_and_are_seen_as_they_are() {
    need_root!();
    let site = Site::new();
    let _plane = site.plane(both(20001, 2, 7777));
    for ip in Ip::BOTH {
        let _servers = site.serve(2, ip, 7777);
        for protocol in BOTH {
            let to = (ip.host(), 20001);
            let name = format!("{protocol}-2");
            // From outside; from the machine itself; from another instance.
            for (from, seen) in
                [(&site.outside, ip.outside()), (&site.host, ip.host()), (site.instance(3), ip.instance(3))]
            {
                assert_eq!(ask_ip(from, protocol, to).unwrap(), (name.clone(), seen), "{ip:?} {protocol}");
            }
            // The gateway's address is one of the machine's as well.
            assert_eq!(
                ask_ip(site.instance(3), protocol, (ip.gateway(), 20001)).unwrap(),
                (name.clone(), ip.instance(3))
            );
        }
    }
}

#[test]
fn an_instance_reaches_itself_by_its_published_port() {
    need_root!();
    let site = Site::new();
    let mut mappings = both(20001, 2, 7777);
    mappings.push(block(Protocol::Udp, 21000, 21099, 2));
    let _plane = site.plane(mappings);
    for ip in Ip::BOTH {
        let _servers = (site.serve(2, ip, 7777), site.serve(2, ip, 21042));
        for to in [ip.host(), ip.gateway()] {
            for protocol in BOTH {
                // It sees the address that it used, not its own.
                let answer = ask_ip(site.instance(2), protocol, (to, 20001)).unwrap();
                assert_eq!(answer, (format!("{protocol}-2"), to));
            }
            assert_eq!(
                ask_ip(site.instance(2), Protocol::Udp, (to, 21042)).unwrap(),
                ("udp-2".to_owned(), to)
            );
        }
    }
}

#[test]
fn other_peoples_packets_are_left_alone() {
    need_root!();
    let site = Site::new();
    let _plane = site.plane(both(20001, 2, 7777));
    for ip in Ip::BOTH {
        let _servers = (site.serve(2, ip, 7777), site.serve(2, ip, 20001));
        let behind = SocketAddr::new(ip.transit(), 20001).to_string();
        let _behind =
            (Echo::tcp(&site.transit, "tcp-t", &behind), Echo::udp(&site.transit, "udp-t", &behind));
        for protocol in BOTH {
            // Passing through to the same port number elsewhere.
            let answer = ask_ip(&site.outside, protocol, (ip.transit(), 20001)).unwrap();
            assert_eq!(answer, (format!("{protocol}-t"), ip.outside()));
            // Straight to the instance, by any port of its own.
            for (from, seen) in [(&site.outside, ip.outside()), (site.instance(3), ip.instance(3))] {
                for own in [7777, 20001] {
                    let answer = ask_ip(from, protocol, (ip.instance(2), own)).unwrap();
                    assert_eq!(answer, (format!("{protocol}-2"), seen));
                }
            }
            // Loopback is not served.
            refused(ask_ip(&site.host, protocol, (ip.loopback(), 20001)));
        }
    }
}

#[test]
fn what_an_instance_sends_from_a_mapped_port_shows_the_published_one() {
    need_root!();
    let site = Site::new();
    let mut mappings = both(20001, 2, 7000);
    mappings.push(block(Protocol::Udp, 21000, 21099, 2));
    let _plane = site.plane(mappings);
    for ip in Ip::BOTH {
        let peer = SocketAddr::new(ip.outside(), 9000);
        let _peer = (
            Echo::udp(&site.outside, "udp-o", &peer.to_string()),
            Echo::tcp(&site.outside, "tcp-o", &peer.to_string()),
        );
        let seen_from = |number: u16, own: u16| {
            let socket = udp(site.instance(number), ip.instance(number), own);
            ask_on(&socket, (peer.ip(), peer.port())).unwrap().1
        };
        assert_eq!(seen_from(2, 7000), SocketAddr::new(ip.host(), 20001));
        assert_eq!(seen_from(2, 21042), SocketAddr::new(ip.host(), 21042));
        // Any other port, also one that is somebody's published number, becomes one of the ordinary range.
        for (number, own) in [(2, 7001), (2, 20001), (3, 7000), (3, 20001), (3, 21042)] {
            let seen = seen_from(number, own);
            assert_eq!(seen.ip(), ip.host());
            assert!((32768..=60999).contains(&seen.port()), "{number}:{own} was seen as {seen}");
        }
        let stream = site.instance(2).run(|| {
            let socket =
                socket2::Socket::new(socket2::Domain::for_address(peer), socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::new(ip.instance(2), 7000).into())?;
            socket.connect_timeout(&peer.into(), ask::PATIENCE)?;
            io::Result::Ok(std::net::TcpStream::from(socket))
        });
        let answer = ask::first_line(&stream.unwrap(), ask::PATIENCE).unwrap();
        assert_eq!(split(&answer), ("tcp-o".to_owned(), SocketAddr::new(ip.host(), 20001)));
    }
}

#[test]
fn two_instances_that_meet_by_published_ports_see_published_ports() {
    need_root!();
    let site = Site::new();
    let mut mappings = both(20001, 2, 7777);
    mappings.extend([port(Protocol::Udp, 20002, 3, 7000), block(Protocol::Udp, 21000, 21099, 3)]);
    let _plane = site.plane(mappings);
    for ip in Ip::BOTH {
        let _servers = site.serve(2, ip, 7777);
        for (own, published) in [(7000, 20002), (21042, 21042)] {
            let socket = udp(site.instance(3), ip.instance(3), own);
            let answer = ask_on(&socket, (ip.host(), 20001)).unwrap();
            assert_eq!(answer, ("udp-2".to_owned(), SocketAddr::new(ip.host(), published)));
            // Straight to each other they are what they are.
            let answer = ask_on(&socket, (ip.instance(2), 7777)).unwrap();
            assert_eq!(answer.1, SocketAddr::new(ip.instance(3), own));
        }
    }
}

#[test]
fn every_port_of_a_block_is_forwarded_unchanged() {
    need_root!();
    let site = Site::new();
    let plane = site.plane(vec![block(Protocol::Udp, 21000, 21099, 2)]);
    for ip in Ip::BOTH {
        for number in [21000, 21001, 21050, 21099] {
            let _servers = site.serve(2, ip, number);
            let answer = ask_ip(&site.outside, Protocol::Udp, (ip.host(), number)).unwrap();
            assert_eq!(answer, ("udp-2".to_owned(), ip.outside()));
        }
        for beside in [20999, 21100] {
            refused(ask_ip(&site.outside, Protocol::Udp, (ip.host(), beside)));
        }
    }
    plane.remove(block(Protocol::Udp, 21000, 21099, 2).key()).unwrap();
    refused(ask_ip(&site.outside, Protocol::Udp, (Ip::V4.host(), 21050)));
}

#[test]
fn a_mapping_of_one_address_answers_there_alone_and_wins() {
    need_root!();
    let site = Site::new();
    for ip in Ip::BOTH {
        let at = |mapping: Mapping| Mapping { address: Some(ip.second()), ..mapping };
        let mappings = vec![
            port(Protocol::Udp, 20001, 2, 7777),
            at(port(Protocol::Udp, 20001, 3, 7777)),
            at(port(Protocol::Udp, 20005, 3, 7000)),
            at(block(Protocol::Udp, 22000, 22009, 3)),
        ];
        let plane = site.plane(mappings);
        let _servers = (site.serve(2, ip, 7777), site.serve(3, ip, 7777), site.serve(3, ip, 22004));
        let who = |to| ask_ip(&site.outside, Protocol::Udp, to).map(|(name, _)| name);
        assert_eq!(who((ip.host(), 20001)).unwrap(), "udp-2");
        assert_eq!(who((ip.second(), 20001)).unwrap(), "udp-3");
        assert_eq!(who((ip.second(), 22004)).unwrap(), "udp-3");
        refused(who((ip.host(), 22004)));
        refused(who((ip.host(), 20005)));

        // What is sent from there leaves with that address.
        let peer = (ip.outside(), 9000);
        let _peer = Echo::udp(&site.outside, "peer", &SocketAddr::from(peer).to_string());
        for (own, published) in [(7000, 20005), (22005, 22005)] {
            let socket = udp(site.instance(3), ip.instance(3), own);
            let seen = ask_on(&socket, peer).unwrap().1;
            assert_eq!(seen, SocketAddr::new(ip.second(), published));
        }
        plane.stop().unwrap();
    }
}

#[test]
fn after_a_removal_nobody_answers() {
    need_root!();
    let site = Site::new();
    let plane = site.plane(both(20001, 2, 7777));
    for ip in Ip::BOTH {
        let _servers = site.serve(2, ip, 7777);
        for protocol in BOTH {
            ask_ip(&site.outside, protocol, (ip.host(), 20001)).unwrap();
        }
    }
    plane.change(both(20001, 2, 7777).iter().map(Mapping::key).collect(), vec![]).unwrap();
    for ip in Ip::BOTH {
        let _servers = site.serve(2, ip, 7777);
        for protocol in BOTH {
            refused(ask_ip(&site.outside, protocol, (ip.host(), 20001)));
        }
    }
}

#[test]
fn an_instance_cannot_pretend_to_be_another_nor_reach_the_machines_loopback() {
    need_root!();
    let site = Site::new();
    let _plane = site.plane(vec![port(Protocol::Udp, 20001, 2, 7777)]);
    // As kube-proxy leaves it, and with no other guard.
    for setting in ["route_localnet", "accept_local"] {
        site.host.sysctl(&format!("net/ipv4/conf/plv3/{setting}"), "1");
    }
    for interface in ["all", "plv3"] {
        site.host.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
    }
    let secret = Echo::udp(&site.host, "loopback", "127.0.0.1:9999");
    site.instance(3).ip("route add 127.0.0.1 via 10.213.0.1 dev eth0 table 7");
    site.instance(3).ip("rule add to 127.0.0.1 lookup 7 priority 0");
    site.instance(3).sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    let socket = udp(site.instance(3), Ip::V4.instance(3), 0);
    let _ = ask::udp_on(&socket, "127.0.0.1:9999".parse().unwrap(), std::time::Duration::from_millis(100));
    assert_eq!(secret.answered(), 0);

    for ip in Ip::BOTH {
        let server = Echo::udp(&site.outside, "outside", &SocketAddr::new(ip.outside(), 9000).to_string());
        let length = if ip == Ip::V4 { 32 } else { 128 };
        let flags = if ip == Ip::V4 { "" } else { "nodad" };
        site.instance(3).ip(&format!("address add {}/{length} dev eth0 {flags}", ip.instance(2)));
        let false_name = udp(site.instance(3), ip.instance(2), 7777);
        let patience = std::time::Duration::from_millis(100);
        let _ = ask::udp_on(&false_name, server.address(), patience);
        assert_eq!(server.answered(), 0, "{ip:?}");
        // The same with its own address arrives.
        ask_on(&udp(site.instance(3), ip.instance(3), 0), (ip.outside(), 9000)).unwrap();
    }
}
