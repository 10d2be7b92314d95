//! The user-space proxy: who is served, by whom, how long, and what happens at the end.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use portolan_model::{Balance, ObjectName, Protocol};
use portolan_relay::service::{
    Backend, Frontend, LocalNodePort, LocalNodePorts, Options, ProxyProtocol, Relays,
};
use portolan_testkit::{
    ask,
    echo::Echo,
    eventually, need_root,
    net::{End, Namespace, link},
};

const SOON: Duration = Duration::from_secs(10);
const PORT: u16 = 30080;

/// A node, a client on another machine, and two backends on the node.
struct Site {
    node: Namespace,
    world: Namespace,
}

impl Site {
    fn new() -> Self {
        let [node, world] = std::array::from_fn(|_| Namespace::new());
        link(
            End::new(&node, "eth0", &["192.0.2.1/24", "fd02::1/64"]),
            End::new(&world, "eth0", &["192.0.2.2/24", "fd02::2/64"]),
        );
        Self { node, world }
    }

    fn echo(&self, protocol: Protocol, name: &str) -> Echo {
        match protocol {
            Protocol::Tcp => Echo::tcp(&self.node, name, "127.0.0.1:0"),
            _ => Echo::udp(&self.node, name, "127.0.0.1:0"),
        }
    }

    /// Runs on a runtime whose threads are on the node.
    fn relays<T: Send>(&self, options: Options, work: impl AsyncFnOnce(&Relays) -> T + Send) -> T {
        self.node.run(|| {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async { work(&Relays::new(options)).await })
        })
    }

    /// The first word of an answer: the name of the backend.
    fn ask(&self, protocol: Protocol, to: &str) -> io::Result<String> {
        let to = SocketAddr::new(to.parse().unwrap(), PORT);
        let answer = self.world.run(|| match protocol {
            Protocol::Tcp => ask::tcp(to),
            _ => ask::udp(to),
        });
        answer.map(|text| text.split_whitespace().next().unwrap_or_default().to_owned())
    }
}

fn frontend(protocol: Protocol, backends: &[SocketAddr]) -> Frontend {
    at("0.0.0.0", protocol, backends)
}

fn at(listen: &str, protocol: Protocol, backends: &[SocketAddr]) -> Frontend {
    let listen = SocketAddr::new(listen.parse().unwrap(), PORT);
    let backends = backends.iter().copied().map(Backend::new).collect();
    Frontend::new(ObjectName::new("default", "web"), "http", protocol, listen, backends)
}

#[track_caller]
fn served(problems: Vec<portolan_relay::service::ListenError>) {
    assert!(problems.is_empty(), "{problems:?}");
}

const BOTH: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

#[test]
fn every_backend_answers_in_both_families_and_a_new_list_holds_at_once() {
    need_root!();
    let site = Site::new();
    for protocol in BOTH {
        let echoes = ["one", "two"].map(|name| site.echo(protocol, name));
        let addresses = echoes.each_ref().map(Echo::address);
        site.relays(Options::default(), async |relays| {
            served(relays.set(vec![at("0.0.0.0", protocol, &addresses), at("::", protocol, &addresses)]));
            for to in ["192.0.2.1", "fd02::1"] {
                let mut seen = BTreeSet::new();
                eventually(SOON, || {
                    seen.insert(site.ask(protocol, to).unwrap());
                    seen.len() == 2
                });
            }
            served(relays.set(vec![frontend(protocol, &addresses[..1])]));
            for _ in 0..20 {
                assert_eq!(site.ask(protocol, "192.0.2.1").unwrap(), "one");
            }
            // Without endpoints a port refuses, as in the kernel.
            relays.set(vec![frontend(protocol, &[])]);
            eventually(SOON, || {
                site.ask(protocol, "192.0.2.1")
                    .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
            });
            eventually(SOON, || relays.set(vec![frontend(protocol, &addresses)]).is_empty());
            site.ask(protocol, "192.0.2.1").unwrap();
        });
    }
}

#[test]
fn a_client_stays_with_its_backend_while_there_is_affinity() {
    need_root!();
    let site = Site::new();
    for protocol in BOTH {
        let echoes: Vec<Echo> = (0..8).map(|n| site.echo(protocol, &n.to_string())).collect();
        let addresses: Vec<_> = echoes.iter().map(Echo::address).collect();
        site.relays(Options::default(), async |relays| {
            let sticky = Frontend { affinity: Some(SOON), ..frontend(protocol, &addresses) };
            served(relays.set(vec![sticky.clone()]));
            let first = site.ask(protocol, "192.0.2.1").unwrap();
            for _ in 0..15 {
                assert_eq!(site.ask(protocol, "192.0.2.1").unwrap(), first);
            }
            // Its backend goes: it gets another one, and keeps that.
            let left: Vec<_> = addresses
                .iter()
                .copied()
                .filter(|a| *a != addresses[first.parse::<usize>().unwrap()])
                .collect();
            let fewer = Frontend { backends: left.iter().copied().map(Backend::new).collect(), ..sticky };
            served(relays.set(vec![fewer]));
            let second = site.ask(protocol, "192.0.2.1").unwrap();
            assert_ne!(first, second);
            assert_eq!(site.ask(protocol, "192.0.2.1").unwrap(), second);
        });
    }
}

#[test]
fn the_hash_of_the_client_chooses_without_any_memory() {
    need_root!();
    let site = Site::new();
    let echoes: Vec<Echo> = (0..8).map(|n| site.echo(Protocol::Tcp, &n.to_string())).collect();
    let addresses: Vec<_> = echoes.iter().map(Echo::address).collect();
    let hashed = || Frontend { balance: Balance::Source, ..frontend(Protocol::Tcp, &addresses) };
    let ask = || {
        site.relays(Options::default(), async |relays| {
            served(relays.set(vec![hashed()]));
            site.ask(Protocol::Tcp, "192.0.2.1").unwrap()
        })
    };
    let first = ask();
    for _ in 0..3 {
        // Another process would choose the same.
        assert_eq!(ask(), first);
    }
}

#[test]
fn a_backend_that_does_not_answer_is_passed_over() {
    need_root!();
    let site = Site::new();
    let good = site.echo(Protocol::Tcp, "good");
    // Nobody listens there.
    let bad = ["127.0.0.1:1", "127.0.0.1:2"].map(|text| text.parse().unwrap());
    site.relays(Options::default(), async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[bad[0], good.address(), bad[1]])]));
        for _ in 0..20 {
            assert_eq!(site.ask(Protocol::Tcp, "192.0.2.1").unwrap(), "good");
        }
    });
}

#[test]
fn bytes_arrive_whole_and_an_end_of_one_side_is_passed_on() {
    need_root!();
    let site = Site::new();
    let listener = site.node.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
    let backend = listener.local_addr().unwrap();
    // Reads all, then says how much and what it adds up to: after the client has said its last.
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        let sum: u64 = all.iter().map(|byte| u64::from(*byte)).sum();
        stream.write_all(format!("{} {sum}", all.len()).as_bytes()).unwrap();
    });
    site.relays(Options::default(), async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[backend])]));
        let answer = site.world.run(|| {
            let mut stream = TcpStream::connect(("192.0.2.1", PORT)).unwrap();
            let bytes: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
            assert_eq!(answer, format!("{} {sum}", bytes.len()));
            answer
        });
        let stats = &relays.stats()[0];
        assert_eq!((stats.received, stats.sent), (20_000_000, answer.len() as u64));
        assert_eq!((stats.service.as_str(), stats.opened), ("default/web:http", 1));
        eventually(SOON, || relays.stats()[0].open == 0);
    });
    server.join().unwrap();
}

#[test]
fn the_backend_is_told_who_the_client_is() {
    need_root!();
    let site = Site::new();
    for version in [ProxyProtocol::V1, ProxyProtocol::V2] {
        let listener = site.node.run(|| TcpListener::bind("127.0.0.1:0").unwrap());
        let backend = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut all = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut all).unwrap();
            all
        });
        // The relay may not even have accepted it when it is told to drain.
        let client = site.relays(Options::default(), async |relays| {
            let told = Frontend { proxy_protocol: Some(version), ..frontend(Protocol::Tcp, &[backend]) };
            served(relays.set(vec![told]));
            let client = site.world.run(|| {
                let mut stream = TcpStream::connect(("192.0.2.1", PORT)).unwrap();
                stream.write_all(b"hello").unwrap();
                stream.local_addr().unwrap()
            });
            relays.drain(SOON).await;
            client
        });
        let said = server.join().unwrap();
        match version {
            ProxyProtocol::V1 => {
                let line = format!("PROXY TCP4 192.0.2.2 192.0.2.1 {} {PORT}\r\nhello", client.port());
                assert_eq!(String::from_utf8(said).unwrap(), line);
            }
            ProxyProtocol::V2 => {
                assert_eq!(said[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c");
                assert_eq!(said[16..24], [192, 0, 2, 2, 192, 0, 2, 1]);
                assert_eq!(said[24..28], [client.port().to_be_bytes(), PORT.to_be_bytes()].concat());
                assert_eq!(said[28..], *b"hello");
            }
        }
    }
}

#[test]
fn who_is_not_in_the_source_ranges_is_sent_away() {
    need_root!();
    let site = Site::new();
    for protocol in BOTH {
        let echo = site.echo(protocol, "one");
        site.relays(Options::default(), async |relays| {
            let with = |range: &str| Frontend {
                source_ranges: vec![range.parse().unwrap()],
                ..frontend(protocol, &[echo.address()])
            };
            served(relays.set(vec![with("192.0.2.2/32")]));
            assert_eq!(site.ask(protocol, "192.0.2.1").unwrap(), "one");
            served(relays.set(vec![with("192.0.2.3/32")]));
            site.ask(protocol, "192.0.2.1").unwrap_err();
            assert!(relays.stats()[0].refused > 0);
        });
    }
}

#[test]
fn one_client_has_no_more_than_its_part_and_gives_it_back() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    let options = Options { each_client: Some(2), ..Options::default() };
    site.relays(options, async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        let open = || site.world.run(|| greeted(TcpStream::connect(("192.0.2.1", PORT)).unwrap()));
        let two = [open().unwrap(), open().unwrap()];
        open().unwrap_err();
        drop(two);
        eventually(SOON, || open().is_ok());
    });
}

/// The stream, when its backend has said hello.
fn greeted(mut stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(SOON))?;
    let mut buffer = [0; 64];
    match stream.read(&mut buffer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(stream),
    }
}

#[test]
fn more_connections_than_there_is_room_for_wait() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    site.relays(Options { connections: 1, ..Options::default() }, async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        site.world.run(|| {
            let first = greeted(TcpStream::connect(("192.0.2.1", PORT)).unwrap()).unwrap();
            let second = TcpStream::connect(("192.0.2.1", PORT)).unwrap();
            second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            assert_eq!((&second).read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            drop(first);
            greeted(second).unwrap();
        });
    });
}

#[test]
fn a_silent_connection_is_cut_where_that_is_asked_for() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    let options = Options { idle: Some(Duration::from_millis(300)), ..Options::default() };
    site.relays(options, async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        site.world.run(|| {
            let mut stream = greeted(TcpStream::connect(("192.0.2.1", PORT)).unwrap()).unwrap();
            let start = Instant::now();
            let error = stream.read(&mut [0; 64]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            assert!(start.elapsed() < SOON);
        });
    });
}

#[test]
fn any_number_of_udp_clients_has_a_bounded_number_of_ways() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Udp, "one");
    let options = Options { clients: 200, ..Options::default() };
    site.relays(options, async |relays| {
        served(relays.set(vec![frontend(Protocol::Udp, &[echo.address()])]));
        site.world.run(|| {
            for _ in 0..1_000 {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send_to(b"x", ("192.0.2.1", PORT)).unwrap();
                let (_, from) = socket.recv_from(&mut [0; 64]).unwrap();
                // Answers come from where the question went.
                assert_eq!(from, SocketAddr::from(([192, 0, 2, 1], PORT)));
            }
        });
        let stats = &relays.stats()[0];
        // The kernel may have given some of them the same port.
        assert!(stats.opened > 900, "{stats:?}");
        assert!(stats.open <= 200, "{stats:?}");
    });
}

#[test]
fn a_udp_client_that_is_silent_is_forgotten() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Udp, "one");
    let options = Options { udp_idle: Duration::from_millis(200), ..Options::default() };
    site.relays(options, async |relays| {
        served(relays.set(vec![frontend(Protocol::Udp, &[echo.address()])]));
        site.ask(Protocol::Udp, "192.0.2.1").unwrap();
        eventually(SOON, || relays.stats()[0].open == 0);
        site.ask(Protocol::Udp, "192.0.2.1").unwrap();
    });
}

/// More than any packet of the link, so it has to be taken apart on both ways; many at once, so that they are batched.
#[test]
fn datagrams_of_every_size_arrive_as_they_were() {
    need_root!();
    let site = Site::new();
    let backend = site.node.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let address = backend.local_addr().unwrap();
    backend.set_read_timeout(Some(SOON)).unwrap();
    let sizes = [0, 1, 100, 100, 100, 99, 1_472, 1_473, 2_000, 2_000, 9_000, 60_000, 1];
    let server = thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        for _ in 0..2 * sizes.len() {
            let (length, from) = backend.recv_from(&mut buffer).unwrap();
            backend.send_to(&buffer[..length], from).unwrap();
        }
    });
    site.relays(Options::default(), async |relays| {
        served(
            relays.set(vec![at("0.0.0.0", Protocol::Udp, &[address]), at("::", Protocol::Udp, &[address])]),
        );
        for (any, to) in [("0.0.0.0:0", "192.0.2.1"), ("[::]:0", "fd02::1")] {
            site.world.run(|| {
                let socket = UdpSocket::bind(any).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.connect((to, PORT)).unwrap();
                for size in sizes {
                    socket.send(&vec![size as u8; size]).unwrap();
                }
                let mut buffer = vec![0; 65_536];
                for size in sizes {
                    let length = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("{to} {size}: {e}"));
                    assert_eq!((length, &buffer[..length]), (size, &vec![size as u8; size][..]), "{to}");
                }
            });
        }
    });
    server.join().unwrap();
}

#[test]
fn draining_takes_nobody_new_and_lets_those_that_are_there_finish() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    site.relays(Options::default(), async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        let mut stream =
            site.world.run(|| greeted(TcpStream::connect(("192.0.2.1", PORT)).unwrap()).unwrap());
        let drained = async { relays.drain(SOON).await };
        let client = async {
            let refused = || {
                site.ask(Protocol::Tcp, "192.0.2.1")
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
            };
            tokio::task::yield_now().await;
            eventually(SOON, refused);
            stream.write_all(b"still there").unwrap();
            let read = tokio::task::spawn_blocking(move || {
                let mut buffer = [0; 11];
                stream.read_exact(&mut buffer).map(|()| buffer)
            });
            assert_eq!(&read.await.unwrap().unwrap(), b"still there");
        };
        let (left, ()) = tokio::join!(drained, client);
        assert_eq!(left, 0);
    });
    // Who does not finish is cut off.
    site.relays(Options::default(), async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        let mut stream =
            site.world.run(|| greeted(TcpStream::connect(("192.0.2.1", PORT)).unwrap()).unwrap());
        assert_eq!(relays.drain(Duration::from_millis(50)).await, 1);
        let end = stream.read(&mut [0; 64]);
        assert!(matches!(end, Ok(0)) || end.is_err(), "{end:?}");
    });
}

#[test]
fn draining_serves_all_that_the_kernel_had_let_in() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    site.relays(Options { connections: 1, ..Options::default() }, async |relays| {
        served(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]));
        let connect = || site.world.run(|| TcpStream::connect(("192.0.2.1", PORT)).unwrap());
        // One is served, one waits for its place, and the others are in the queue of the socket.
        let first = greeted(connect()).unwrap();
        let others: Vec<_> = (0..5).map(|_| connect()).collect();
        let client = tokio::task::spawn_blocking(move || {
            drop(first);
            others.into_iter().map(|stream| greeted(stream).is_ok()).collect::<Vec<_>>()
        });
        let (left, greeted) = tokio::join!(relays.drain(SOON), client);
        assert_eq!((left, greeted.unwrap()), (0, vec![true; 5]));
    });
}

#[test]
fn a_port_that_somebody_has_is_told_with_who() {
    need_root!();
    let site = Site::new();
    let echo = site.echo(Protocol::Tcp, "one");
    let taken = site.node.run(|| TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    site.relays(Options::default(), async |relays| {
        let problems = relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]);
        let said = problems[0].to_string();
        assert!(
            said.starts_with(&format!(
                "cannot serve default/web:http on 0.0.0.0:{PORT}/tcp: the port is in use by "
            )),
            "{said}"
        );
        assert!(said.contains(&format!("process {}", std::process::id())), "{said}");
        drop(taken);
        assert!(relays.set(vec![frontend(Protocol::Tcp, &[echo.address()])]).is_empty());
        // Two Services cannot have it either.
        let other = Frontend {
            service: ObjectName::new("default", "other"),
            ..frontend(Protocol::Tcp, &[echo.address()])
        };
        let problems = relays.set(vec![frontend(Protocol::Tcp, &[echo.address()]), other]);
        assert!(problems[0].to_string().contains("default/web:http is served there"), "{problems:?}");
    });
}

#[test]
fn node_ports_answer_on_the_loopback_and_to_nobody_else() {
    need_root!();
    let site = Site::new();
    // What a route_localnet and a neighbour with bad intentions would do.
    site.node.sysctl("net/ipv4/conf/all/route_localnet", "1");
    site.world.sysctl("net/ipv4/conf/all/route_localnet", "1");
    site.world.ip("route flush table local root 127.0.0.0/8");
    site.world.route("127.0.0.0/8 via 192.0.2.1");
    for protocol in BOTH {
        let echo = site.echo(protocol, "one");
        site.relays(Options::default(), async |_| {
            let ports = LocalNodePorts::new(Options::default());
            let port = LocalNodePort {
                service: (ObjectName::new("default", "web"), "http".to_owned()),
                protocol,
                port: PORT,
                backends: vec![Backend::new(echo.address())],
                affinity: None,
            };
            served(ports.set(vec![port]));
            for to in ["127.0.0.1", "::1"] {
                let to = SocketAddr::new(to.parse().unwrap(), PORT);
                let answer =
                    site.node.run(|| if protocol == Protocol::Tcp { ask::tcp(to) } else { ask::udp(to) });
                assert!(answer.unwrap().starts_with("one "));
            }
            for to in [IpAddr::from(Ipv4Addr::LOCALHOST), "192.0.2.1".parse().unwrap()] {
                let answer = site.world.run(|| match protocol {
                    Protocol::Tcp => ask::tcp_within((to, PORT), Duration::from_millis(500)),
                    _ => ask::udp_within((to, PORT), Duration::from_millis(500)),
                });
                answer.unwrap_err();
            }
            served(ports.set(Vec::new()));
            eventually(SOON, || {
                let to = SocketAddr::from(([127, 0, 0, 1], PORT));
                site.node.run(|| if protocol == Protocol::Tcp { ask::tcp(to) } else { ask::udp(to) }).is_err()
            });
        });
    }
}
