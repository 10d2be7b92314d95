//! The loopback reaches the instance, nobody else reaches the relay, and the hold stays a hold.
#![allow(clippy::unwrap_used)]

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    time::Duration,
};

use portolan_model::Protocol;
use portolan_relay::{Limits, Relay, RelayError, Targets, quiet};
use portolan_testkit::{
    ask,
    echo::Echo,
    eventually, need_root,
    net::{End, Namespace, link},
};
use socket2::{Domain, SockRef, Socket, Type};

const PORT: u16 = 20001;
const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
const SOON: Duration = Duration::from_secs(2);

/// A machine that holds a port, the instance behind it, and a neighbour.
struct Site {
    host: Namespace,
    instance: Namespace,
    neighbour: Namespace,
}

impl Site {
    fn new() -> Self {
        let [host, instance, neighbour] = std::array::from_fn(|_| Namespace::new());
        link(
            End::new(&host, "one", &["10.213.0.1/24", "fd00:1::1/64"]),
            End::new(&instance, "eth0", &["10.213.0.2/24", "fd00:1::2/64"]),
        );
        link(
            End::new(&host, "eth0", &["192.0.2.1/24", "fd00:2::1/64"]),
            End::new(&neighbour, "eth0", &["192.0.2.9/24", "fd00:2::9/64"]),
        );
        Self { host, instance, neighbour }
    }

    fn serve(&self) -> [Echo; 2] {
        // Both families by one socket.
        let address = format!("[::]:{PORT}");
        [Echo::tcp(&self.instance, "tcp", &address), Echo::udp(&self.instance, "udp", &address)]
    }

    /// As `packet/ports` holds: bound to everything, no SO_REUSEADDR, not listening.
    fn hold(&self, protocol: Protocol) -> io::Result<OwnedFd> {
        self.bind(protocol, (Ipv6Addr::UNSPECIFIED, PORT).into())
    }

    fn bind(&self, protocol: Protocol, address: SocketAddr) -> io::Result<OwnedFd> {
        let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
        self.host.run(|| {
            let socket = Socket::new(Domain::for_address(address), kind, None)?;
            if address.is_ipv6() {
                socket.set_only_v6(false)?;
            }
            if protocol == Protocol::Udp {
                socket.set_recv_buffer_size(0)?;
            }
            socket.bind(&address.into())?;
            Ok(socket.into())
        })
    }

    fn ask(&self, protocol: Protocol, to: IpAddr) -> io::Result<String> {
        ask_from(&self.host, protocol, to, ask::PATIENCE)
    }
}

fn ask_from(from: &Namespace, protocol: Protocol, to: IpAddr, patience: Duration) -> io::Result<String> {
    from.run(|| match protocol {
        Protocol::Tcp => ask::tcp_within((to, PORT), patience),
        _ => ask::udp_within((to, PORT), patience),
    })
}

fn loopbacks() -> [IpAddr; 3] {
    ["127.0.0.1", "127.0.0.7", "::1"].map(|text| text.parse().unwrap())
}

fn targets() -> Targets {
    Targets::new(Some(Ipv4Addr::new(10, 213, 0, 2)), Some("fd00:1::2".parse().unwrap()), PORT)
}

fn start(protocol: Protocol, hold: &OwnedFd) -> Relay {
    Relay::start(protocol, hold.try_clone().unwrap(), targets(), Limits::default()).unwrap()
}

/// Runs on a runtime of its own, whose threads are on the machine that holds the port, as a relay's are.
fn in_runtime<T: Send>(site: &Site, work: impl AsyncFnOnce() -> T + Send) -> T {
    site.host.run(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(work())
    })
}

fn kind<T: std::fmt::Debug>(answer: &io::Result<T>) -> Option<io::ErrorKind> {
    answer.as_ref().err().map(io::Error::kind)
}

#[track_caller]
fn silent(answer: &io::Result<String>) {
    let kind = kind(answer);
    assert!(matches!(kind, Some(io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)), "{answer:?}");
}

/// Whether somebody could have the port in spite of the hold, with every trick.
fn can_be_stolen(site: &Site, protocol: Protocol) -> bool {
    let kind = if protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let addresses = ["0.0.0.0", "127.0.0.1", "192.0.2.1", "::", "::1"];
    addresses.iter().any(|address| {
        let address = SocketAddr::new(address.parse().unwrap(), PORT);
        site.host.run(|| {
            let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).is_ok()
        })
    })
}

#[test]
fn the_loopback_of_both_families_reaches_the_instance() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    in_runtime(&site, async || {
        for protocol in BOTH {
            let hold = site.hold(protocol).unwrap();
            let relay = start(protocol, &hold);
            for to in loopbacks() {
                // The instance sees this machine, by the same version of IP.
                let seen = if to.is_ipv4() { "10.213.0.1" } else { "fd00:1::1" };
                let answer = site.ask(protocol, to).unwrap();
                assert!(answer.starts_with(protocol.as_str()) && answer.contains(seen), "{to}: {answer}");
            }
            assert_eq!(relay.stats().opened, 3);
            relay.stop().await;
        }
    });
}

#[test]
fn an_instance_of_one_family_is_reached_from_both() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    in_runtime(&site, async || {
        for protocol in BOTH {
            let hold = site.hold(protocol).unwrap();
            let only_v4 = Targets::new(Some(Ipv4Addr::new(10, 213, 0, 2)), None, PORT);
            let relay =
                Relay::start(protocol, hold.try_clone().unwrap(), only_v4, Limits::default()).unwrap();
            for to in loopbacks() {
                assert!(site.ask(protocol, to).unwrap().contains("10.213.0.1"));
            }
            relay.stop().await;
        }
    });
}

#[test]
fn nobody_else_completes_a_handshake_with_the_holder() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    // As kube-proxy leaves it: a neighbour may send to the loopback, if nothing else stops it.
    for interface in ["all", "eth0"] {
        site.host.sysctl(&format!("net/ipv4/conf/{interface}/route_localnet"), "1");
        site.host.sysctl(&format!("net/ipv4/conf/{interface}/rp_filter"), "0");
    }
    site.neighbour.sysctl("net/ipv4/conf/all/route_localnet", "1");
    site.neighbour.ip("rule add lookup local priority 100");
    site.neighbour.ip("rule del priority 0");
    site.neighbour.ip("rule add to 127.0.0.7 lookup 7 priority 50");
    site.neighbour.ip("route add 127.0.0.7 via 192.0.2.1 dev eth0 src 192.0.2.9 table 7");
    let _open = Echo::tcp(&site.host, "open", "127.0.0.7:9999");
    let answer = site.neighbour.run(|| ask::tcp("127.0.0.7:9999".parse::<SocketAddr>().unwrap()));
    assert!(answer.unwrap().starts_with("open 192.0.2.9:"), "the way is open to what has no filter");
    in_runtime(&site, async || {
        for protocol in BOTH {
            let hold = site.hold(protocol).unwrap();
            let relay = start(protocol, &hold);
            let short = Duration::from_millis(200);
            for to in ["192.0.2.1", "fd00:2::1", "127.0.0.7"] {
                silent(&ask_from(&site.neighbour, protocol, to.parse().unwrap(), short));
            }
            // Nor this machine by its other addresses: those are the kernel's rules' matter.
            for to in ["192.0.2.1", "10.213.0.1", "fd00:2::1"] {
                silent(&ask_from(&site.host, protocol, to.parse().unwrap(), short));
            }
            assert_eq!(relay.stats().opened, 0);
            site.ask(protocol, loopbacks()[0]).unwrap();
            relay.stop().await;
        }
    });
}

#[test]
fn the_hold_is_a_hold_before_during_and_after() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    in_runtime(&site, async || {
        for protocol in BOTH {
            let hold = site.hold(protocol).unwrap();
            let buffer = SockRef::from(&hold).recv_buffer_size().unwrap();
            assert!(!can_be_stolen(&site, protocol));
            for round in 0..3 {
                let relay = start(protocol, &hold);
                assert!(!can_be_stolen(&site, protocol));
                site.ask(protocol, loopbacks()[0]).unwrap();
                // In order, or dropped.
                if round == 1 {
                    drop(relay)
                } else {
                    relay.stop().await
                }
                assert!(!can_be_stolen(&site, protocol));
                if protocol == Protocol::Tcp {
                    for to in loopbacks().into_iter().chain(["192.0.2.1".parse().unwrap()]) {
                        let answer = site.ask(protocol, to);
                        assert_eq!(kind(&answer), Some(io::ErrorKind::ConnectionRefused), "{answer:?}");
                    }
                } else {
                    silent(&ask_from(&site.host, protocol, loopbacks()[0], Duration::from_millis(100)));
                    eventually(SOON, || SockRef::from(&hold).recv_buffer_size().unwrap() == buffer);
                }
            }
            drop(hold);
            eventually(SOON, || can_be_stolen(&site, protocol));
        }
    });
}

#[test]
fn what_a_killed_relay_left_listening_is_brought_back() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    let hold = site.hold(Protocol::Tcp).unwrap();
    // Nothing of it runs any more, and nothing was cleaned up.
    in_runtime(&site, async || std::mem::forget(start(Protocol::Tcp, &hold)));
    let stream = site.host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))).unwrap();
    // The next one serves whoever waits.
    in_runtime(&site, async || {
        let relay = start(Protocol::Tcp, &hold);
        assert!(ask::first_line(&stream, ask::PATIENCE).unwrap().starts_with("tcp"));
        std::mem::forget(relay);
    });
    quiet(Protocol::Tcp, &hold).unwrap();
    let answer = site.ask(Protocol::Tcp, loopbacks()[0]);
    assert_eq!(kind(&answer), Some(io::ErrorKind::ConnectionRefused), "{answer:?}");
    assert!(!can_be_stolen(&site, Protocol::Tcp));
    // Twice is once, and a hold that never was more stays one.
    quiet(Protocol::Tcp, &hold).unwrap();
    quiet(Protocol::Udp, site.hold(Protocol::Udp).unwrap()).unwrap();
}

#[test]
fn a_port_of_one_loopback_address_is_served_beside_others() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    in_runtime(&site, async || {
        for protocol in BOTH {
            let holds = [loopbacks()[0], loopbacks()[2]].map(|to| {
                let hold = site.bind(protocol, (to, PORT).into()).unwrap();
                (to, start(protocol, &hold), hold)
            });
            // Somebody else has the same number on another address.
            let _other = site.bind(protocol, "192.0.2.1:20001".parse().unwrap()).unwrap();
            for (to, ..) in &holds {
                assert!(site.ask(protocol, *to).unwrap().starts_with(protocol.as_str()));
            }
        }
    });
}

#[test]
fn many_bytes_go_both_ways_and_each_side_may_end_first() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    let hold = site.hold(Protocol::Tcp).unwrap();
    in_runtime(&site, async || {
        let relay = start(Protocol::Tcp, &hold);
        let mut stream = site.host.run(|| TcpStream::connect((Ipv6Addr::LOCALHOST, PORT))).unwrap();
        stream.set_read_timeout(Some(ask::PATIENCE)).unwrap();
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
        let mut writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            // Half closed: the answers still come.
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        writing.join().unwrap();
        let greeting = received.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        assert!(received[greeting..] == sent, "{} of {} bytes", received.len() - greeting, sent.len());
        drop(stream);
        eventually(SOON, || relay.stats().open == 0);
        assert_eq!(relay.stats().failed, 0);
        relay.stop().await;
    });
}

#[test]
fn an_instance_that_does_not_listen_is_a_reset() {
    need_root!();
    let site = Site::new();
    let hold = site.hold(Protocol::Tcp).unwrap();
    in_runtime(&site, async || {
        let relay = start(Protocol::Tcp, &hold);
        let answer = site.ask(Protocol::Tcp, loopbacks()[0]);
        assert_eq!(kind(&answer), Some(io::ErrorKind::ConnectionReset), "{answer:?}");
        assert_eq!(relay.stats().failed, 1);
        // UDP is lost, and comes through as soon as somebody listens.
        let udp = site.hold(Protocol::Udp).unwrap();
        let udp_relay = start(Protocol::Udp, &udp);
        let client = site.host.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
        let to = (loopbacks()[0], PORT).into();
        silent(&ask::udp_on(&client, to, Duration::from_millis(100)));
        let _servers = site.serve();
        ask::udp_on(&client, to, ask::PATIENCE).unwrap();
        relay.stop().await;
        udp_relay.stop().await;
    });
}

#[test]
fn each_udp_client_has_its_own_answers_of_any_size() {
    need_root!();
    let site = Site::new();
    let hold = site.hold(Protocol::Udp).unwrap();
    let server = site.instance.run(|| UdpSocket::bind(format!("[::]:{PORT}"))).unwrap();
    server.set_read_timeout(Some(ask::PATIENCE)).unwrap();
    in_runtime(&site, async || {
        let relay = start(Protocol::Udp, &hold);
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let own = loopbacks()[n % 3];
                let socket = site.host.run(|| UdpSocket::bind((own, 0))).unwrap();
                socket.connect((own, PORT)).unwrap();
                socket.set_read_timeout(Some(ask::PATIENCE)).unwrap();
                socket
            })
            .collect();
        let sizes = [0usize, 1, 1400, 9000, 60_000];
        for size in sizes {
            for (n, client) in clients.iter().enumerate() {
                client.send(&vec![n as u8; size]).unwrap();
                let mut buffer = vec![0; 65_536];
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                assert_eq!((length, buffer[..length].iter().all(|byte| *byte == n as u8)), (size, true));
                server.send_to(&buffer[..length], from).unwrap();
                let length = client.recv(&mut buffer).unwrap();
                assert_eq!((length, buffer[..length].iter().all(|byte| *byte == n as u8)), (size, true));
            }
        }
        assert_eq!(relay.stats().open, clients.len());
        // Several at once, which the kernel may join on the way.
        for n in 0..50u8 {
            clients[0].send(&[n; 100]).unwrap();
        }
        for n in 0..50u8 {
            let mut buffer = [0; 200];
            let (length, _) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(buffer[..length], [n; 100]);
        }
        relay.stop().await;
    });
}

#[test]
fn clients_are_bounded_and_silent_ones_forgotten() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    let hold = site.hold(Protocol::Udp).unwrap();
    in_runtime(&site, async || {
        let limits = Limits { clients: 3, idle: Duration::from_millis(300), ..Limits::default() };
        let relay = Relay::start(Protocol::Udp, hold.try_clone().unwrap(), targets(), limits).unwrap();
        for _ in 0..10 {
            site.ask(Protocol::Udp, loopbacks()[0]).unwrap();
            assert!(relay.stats().open <= 4, "{:?}", relay.stats());
        }
        assert_eq!(relay.stats().opened, 10);
        eventually(SOON, || relay.stats().open == 0);
        site.ask(Protocol::Udp, loopbacks()[2]).unwrap();
        relay.stop().await;
    });
}

#[test]
fn connections_beyond_the_limit_wait_for_their_turn() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    let hold = site.hold(Protocol::Tcp).unwrap();
    in_runtime(&site, async || {
        let limits = Limits { connections: 1, ..Limits::default() };
        let relay = Relay::start(Protocol::Tcp, hold.try_clone().unwrap(), targets(), limits).unwrap();
        let connect = || site.host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))).unwrap();
        let (first, second) = (connect(), connect());
        ask::first_line(&first, ask::PATIENCE).unwrap();
        assert!(ask::first_line(&second, Duration::from_millis(100)).is_err());
        drop(first);
        ask::first_line(&second, ask::PATIENCE).unwrap();
        relay.stop().await;
    });
}

#[test]
fn a_stop_with_grace_takes_nobody_new_and_lets_the_others_finish() {
    need_root!();
    let site = Site::new();
    let _servers = site.serve();
    let hold = site.hold(Protocol::Tcp).unwrap();
    in_runtime(&site, async || {
        let relay = start(Protocol::Tcp, &hold);
        let mut stream = site.host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))).unwrap();
        ask::first_line(&stream, ask::PATIENCE).unwrap();
        let stopping = tokio::spawn(relay.stop_within(Duration::from_secs(30)));
        eventually(SOON, || {
            kind(&site.ask(Protocol::Tcp, loopbacks()[0])) == Some(io::ErrorKind::ConnectionRefused)
        });
        stream.write_all(b"still there?\n").unwrap();
        assert_eq!(ask::first_line(&stream, ask::PATIENCE).unwrap(), "still there?");
        assert!(!stopping.is_finished());
        drop(stream);
        tokio::time::timeout(SOON, stopping).await.unwrap().unwrap();
        // Without grace they are cut.
        let relay = start(Protocol::Tcp, &hold);
        let mut stream = site.host.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))).unwrap();
        ask::first_line(&stream, ask::PATIENCE).unwrap();
        tokio::time::timeout(SOON, relay.stop()).await.unwrap();
        stream.set_read_timeout(Some(ask::PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 8]), Ok(0) | Err(_)));
    });
}

#[test]
fn what_has_no_relay_is_refused() {
    need_root!();
    let site = Site::new();
    in_runtime(&site, async || {
        let hold = || site.hold(Protocol::Tcp).unwrap();
        let sctp = Relay::start(Protocol::Sctp, hold(), targets(), Limits::default());
        assert!(matches!(sctp, Err(RelayError::Unsupported(Protocol::Sctp))));
        let nowhere = Relay::start(Protocol::Tcp, hold(), Targets::new(None, None, 1), Limits::default());
        assert!(matches!(nowhere, Err(RelayError::Nowhere)));
    });
}
