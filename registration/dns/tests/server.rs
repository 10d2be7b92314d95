//! The server, asked by `dig` and by raw sockets over loopback.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::Arc,
    time::Duration,
};

use portolan_dns::{Catalog, Dns, DnsConfig, Listener, View, Zone};
use portolan_model::Instance;
use portolan_telemetry::metrics::Metrics;
use portolan_testkit::programs;

mod upstream;

/// A catalog of one service `s` whose `count` copies pass, and of a service `down` that nobody serves.
#[derive(Clone)]
struct Copies {
    copies: Arc<[Arc<Instance>]>,
    down: Arc<[Arc<Instance>]>,
}

impl Copies {
    fn new(count: usize) -> Self {
        let one = |i: usize, service: &str, state: &str| {
            let address = format!("10.9.{}.{}", i / 250, i % 250 + 1);
            Arc::new(
                serde_json::from_value(serde_json::json!({
                    "name": format!("{service}-{i}"), "incarnation": "1", "service": service, "node": "n",
                    "addresses": [address], "state": state,
                    "ports": [{ "name": "game", "protocols": ["udp", "tcp"], "port": (20000 + i).to_string() }],
                    "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
                }))
                .unwrap(),
            )
        };
        Self {
            copies: (0..count).map(|i| one(i, "s", "passing")).collect(),
            down: [one(0, "down", "critical")].into(),
        }
    }
}

impl View for Copies {
    fn index(&self) -> u64 {
        41
    }
    fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.copies.iter().chain(self.down.iter()).find(|copy| copy.key.name.as_str() == name)
    }
    fn copies(&self, service: &str) -> &[Arc<Instance>] {
        match service {
            "s" => &self.copies,
            "down" => &self.down,
            _ => &[],
        }
    }
}

/// A catalog that is ready or not.
struct Ready(Option<Copies>);

impl Catalog for Ready {
    type View = Copies;
    fn now(&self) -> Option<Copies> {
        self.0.clone()
    }
}

struct Server {
    dns: Dns,
    metrics: Arc<Metrics>,
}

impl Server {
    fn address(&self) -> SocketAddr {
        self.dns.addresses()[0]
    }

    fn start(catalog: Option<Copies>) -> Self {
        Self::forwarding(catalog, None)
    }

    /// With `upstreams`, a server that forwards for loopback.
    fn forwarding(catalog: Option<Copies>, upstreams: Option<Vec<SocketAddr>>) -> Self {
        let metrics = Arc::<Metrics>::default();
        let mut listener = Listener::new("127.0.0.1:0".parse().unwrap());
        if upstreams.is_some() {
            listener.forward_for = vec!["127.0.0.0/8".parse().unwrap()];
        }
        let config = DnsConfig {
            zone: Zone::new("portolan.internal", 5).unwrap(),
            listeners: vec![listener],
            upstreams,
            resolv_conf: "/nonexistent".into(),
            metrics: metrics.clone(),
        };
        Self { dns: Dns::start(config, Arc::new(Ready(catalog))).unwrap(), metrics }
    }

    /// What `dig` prints: everything with comments when `arguments` have no `+short`.
    async fn dig(&self, arguments: &str) -> String {
        let address = self.address();
        let mut command = programs::command("dig", ["+tries=1", "+time=5"]);
        command.arg(format!("@{}", address.ip())).args(["-p", &address.port().to_string()]);
        command.args(arguments.split(' '));
        let text = tokio::task::spawn_blocking(move || programs::run(&mut command)).await.unwrap();
        // Columns of tabs and spaces, as wide as the names: one space tells as much.
        let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n");
        lines.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_finds_addresses_and_ports() {
    let server = Server::start(Some(Copies::new(3)));
    let mut addresses: Vec<_> =
        server.dig("+short s.portolan.internal A").await.lines().map(str::to_owned).collect();
    addresses.sort();
    assert_eq!(addresses, ["10.9.0.1", "10.9.0.2", "10.9.0.3"]);

    let srv = server.dig("_game._udp.s.portolan.internal SRV").await;
    assert!(srv.contains("status: NOERROR"), "{srv}");
    assert!(srv.contains("flags: qr aa rd;"), "authoritative, no recursion offered: {srv}");
    assert!(srv.contains("ANSWER: 3, AUTHORITY: 0, ADDITIONAL: 4"), "glue and OPT: {srv}");
    assert!(srv.contains("udp: 1232"), "{srv}");
    for i in 0..3 {
        let line = format!("5 IN SRV 0 100 {} s-{i}.portolan.internal.", 20000 + i);
        assert!(srv.contains(&line), "{srv}");
        assert!(srv.contains(&format!("s-{i}.portolan.internal. 5 IN A 10.9.0.{}", i + 1)), "{srv}");
    }
    assert!(server.metrics.encode().contains("portolan_dns_queries_total{rcode=\"NOERROR\"} 2"));
    server.dns.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_no_data_and_an_unknown_name_is_denied() {
    let server = Server::start(Some(Copies::new(1)));
    let down = server.dig("_game._tcp.down.portolan.internal SRV").await;
    assert!(down.contains("status: NOERROR") && down.contains("ANSWER: 0, AUTHORITY: 1"), "{down}");
    assert!(down.contains("0 IN SOA ns.dns.portolan.internal. hostmaster.portolan.internal. 41 "), "{down}");
    assert!(down.contains(" 86400 0\n"), "kept for 0 s: {down}");
    let nobody = server.dig("nobody.portolan.internal").await;
    assert!(nobody.contains("status: NXDOMAIN") && nobody.contains(" 86400 1\n"), "{nobody}");
    let server_name = server.dig("+short portolan.internal NS").await;
    assert_eq!(server_name, "ns.dns.portolan.internal.\n");
    assert_eq!(server.dig("+short ns.dns.portolan.internal").await, "127.0.0.1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_copies_fit_over_tcp_and_udp_says_what_is_missing() {
    let server = Server::start(Some(Copies::new(60)));
    for (how, most, wanted) in [
        ("+noedns +ignore", 512, "qr aa tc rd"),
        ("+bufsize=4096 +ignore", 1232, "qr aa tc rd"),
        ("+bufsize=100 +ignore", 512, "qr aa tc rd"),
    ] {
        let cut = server.dig(&format!("{how} _game._udp.s.portolan.internal SRV")).await;
        let size = cut.rsplit_once("MSG SIZE rcvd: ").unwrap().1.trim().parse::<usize>().unwrap();
        assert!(size <= most && size > most - 60, "{size} of {most}: {cut}");
        assert!(cut.contains(&format!("flags: {wanted};")), "{how}: {cut}");
        assert_eq!(cut.contains("OPT PSEUDOSECTION"), !how.contains("noedns"), "{cut}");
    }
    // Without +ignore dig asks again over TCP, as resolvers do.
    for kind in ["_game._udp.s.portolan.internal SRV", "s.portolan.internal A"] {
        let all = server.dig(&format!("+noedns +short {kind}")).await;
        let mut lines: Vec<_> = all.lines().filter(|line| !line.starts_with(';')).collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 60, "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn glue_that_does_not_fit_is_left_out_without_a_truncation_bit() {
    // 20 SRV records fit into 1232 octets, their 20 addresses do not.
    let server = Server::start(Some(Copies::new(20)));
    let answer = server.dig("+bufsize=1232 +ignore _game._udp.s.portolan.internal SRV").await;
    assert!(answer.contains("flags: qr aa rd;") && answer.contains("ANSWER: 20,"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_refused() {
    let server = Server::start(Some(Copies::new(1)));
    for (arguments, status) in [
        ("example.org A", "REFUSED"),
        ("+tcp portolan.internal AXFR", "Transfer failed."),
        ("portolan.internal IXFR=1", "Transfer failed."),
        ("-c CH s.portolan.internal A", "REFUSED"),
        ("+opcode=NOTIFY portolan.internal SOA", "NOTIMP"),
        ("+opcode=UPDATE portolan.internal SOA", "NOTIMP"),
        ("+opcode=2 portolan.internal SOA", "NOTIMP"),
        ("+edns=1 +noednsnegotiation s.portolan.internal", "BADVERS"),
    ] {
        let answer = server.dig(arguments).await;
        assert!(answer.contains(status), "{arguments}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_denied_before_the_catalog_is_there() {
    let server = Server::start(None);
    for name in ["s.portolan.internal", "nobody.portolan.internal"] {
        let answer = server.dig(name).await;
        assert!(answer.contains("status: SERVFAIL"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_packets_are_answered_or_dropped_and_the_server_lives() {
    let server = Server::start(Some(Copies::new(1)));
    let address = server.address();
    let good: &[u8] =
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01s\x08portolan\x08internal\x00\x00\x01\x00\x01";
    tokio::task::spawn_blocking(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(address).unwrap();
        let mut buffer = [0; 2048];
        let mut ask = |packet: &[u8]| {
            socket.send(packet).unwrap();
            socket.recv(&mut buffer).map(|length| buffer[..length].to_vec())
        };
        let rcode = |reply: &[u8]| reply[3] & 15;
        // Every prefix and every single byte set to 0xff or 0xc0, each followed by a good question that is answered.
        let prefixes = (0..good.len()).map(|length| good[..length].to_vec());
        let flips = (0..good.len()).flat_map(|at| {
            [0xff, 0xc0, 0x3f].map(|byte| {
                let mut packet = good.to_vec();
                packet[at] = byte;
                packet
            })
        });
        for mut packet in prefixes.chain(flips) {
            if packet.len() >= 2 {
                packet[..2].copy_from_slice(b"\xba\xad");
            }
            socket.send(&packet).unwrap();
            let mut reply = ask(good).unwrap();
            if reply[..2] == *b"\xba\xad" {
                reply = socket.recv(&mut [0; 2048]).map(|_| good.to_vec()).unwrap();
            }
            assert_eq!(reply[..2], good[..2], "after {packet:02x?}");
        }
        // Two questions, and none: RFC 9619.
        let mut two = [good, &good[12..]].concat();
        two[5] = 2;
        assert_eq!(rcode(&ask(&two).unwrap()), 1);
        let mut none = good[..12].to_vec();
        none[5] = 0;
        assert_eq!(rcode(&ask(&none).unwrap()), 1);
        // A reply gets no reply: two servers would talk for ever.
        let mut reply = good.to_vec();
        reply[2] |= 0x80;
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.send(&reply).unwrap();
        socket.recv(&mut [0; 512]).unwrap_err();

        // TCP: half a question and gone, a length without a question, several questions on one connection.
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[0, 200, 1, 2]).unwrap();
        drop(stream);
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&[0, 0]).unwrap();
        assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0, "closed");
        let mut stream = TcpStream::connect(address).unwrap();
        for _ in 0..3 {
            stream.write_all(&[&(good.len() as u16).to_be_bytes(), good].concat()).unwrap();
        }
        for _ in 0..3 {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!((&reply[..2], reply[7]), (&good[..2], 1));
        }
    })
    .await
    .unwrap();
    assert_eq!(server.dig("+short s.portolan.internal").await, "10.9.0.1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named_with_what_to_do() {
    let server = Server::start(Some(Copies::new(1)));
    let config = DnsConfig {
        zone: Zone::new("portolan.internal", 5).unwrap(),
        listeners: vec![Listener::new(server.address())],
        upstreams: None,
        resolv_conf: "/etc/resolv.conf".into(),
        metrics: Arc::default(),
    };
    let error = Dns::start(config, Arc::new(Ready(None))).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "cannot listen for DNS on {} (tcp): Address already in use",
            server.address()
        )),
        "{error}"
    );
    assert!(error.ends_with("stop it, or choose another address"), "{error}");

    // What stops has stopped: the address is free for the next.
    let address = server.address();
    server.dns.stop().await;
    let again = DnsConfig {
        zone: Zone::new("portolan.internal", 5).unwrap(),
        listeners: vec![Listener::new(address)],
        upstreams: None,
        resolv_conf: "/etc/resolv.conf".into(),
        metrics: Arc::default(),
    };
    Dns::start(again, Arc::new(Ready(None))).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_are_bound_already_are_taken_over() {
    let tcp = std::net::TcpListener::bind("[::1]:0").unwrap();
    let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
    let config = DnsConfig {
        zone: Zone::new("portolan.internal", 5).unwrap(),
        listeners: vec![Listener::bound(udp, tcp).unwrap()],
        upstreams: None,
        resolv_conf: "/nonexistent".into(),
        metrics: Arc::default(),
    };
    let metrics = config.metrics.clone();
    let server = Server { dns: Dns::start(config, Arc::new(Ready(Some(Copies::new(1))))).unwrap(), metrics };
    for how in ["+tcp", "+notcp"] {
        assert_eq!(server.dig(&format!("{how} +short s.portolan.internal")).await, "10.9.0.1\n");
    }
    assert_eq!(server.dig("+short ns.dns.portolan.internal AAAA").await, "::1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_are_asked_of_the_upstream_resolver() {
    let upstream = upstream::start().await;
    let server = Server::forwarding(Some(Copies::new(1)), Some(vec![upstream]));
    let answer = server.dig("www.example.org A").await;
    assert!(answer.contains("status: NOERROR") && answer.contains("flags: qr rd ra"), "{answer}");
    assert!(answer.contains("203.0.113.80"), "{answer}");
    // Ours stay ours.
    assert_eq!(server.dig("+short s.portolan.internal").await, "10.9.0.1\n");
    // Too large for a datagram: fetched over TCP, cut again for a client of UDP, whole for one of TCP.
    let big = server.dig("+short big.example.org TXT").await;
    assert_eq!(big.lines().filter(|line| line.starts_with('"')).count(), 40, "{big}");
    let cut = server.dig("+ignore +bufsize=1232 big.example.org TXT").await;
    assert!(cut.contains("flags: qr tc rd ra"), "{cut}");
    let none = server.dig("nx.example.org").await;
    assert!(none.contains("status: NXDOMAIN"), "{none}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_answer_is_not_taken() {
    let upstream = upstream::start().await;
    let server = Server::forwarding(Some(Copies::new(1)), Some(vec![upstream]));
    // The upstream sends answers with a wrong id and to a wrong question first.
    assert_eq!(server.dig("+short forged.example.org").await, "203.0.113.80\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_resolver_is_asked_when_one_fails() {
    let upstream = upstream::start().await;
    // Nobody listens on the first: the kernel says so at once.
    let nobody = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = Server::forwarding(Some(Copies::new(1)), Some(vec![nobody, upstream]));
    assert_eq!(server.dig("+short www.example.org").await, "203.0.113.80\n");
    // Both fail.
    let answer = server.dig("fail.example.org").await;
    assert!(answer.contains("status: SERVFAIL"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_never_answers_keeps_nobody_waiting() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let upstream = upstream::start().await;
    let server = Server::forwarding(Some(Copies::new(1)), Some(vec![silent.local_addr().unwrap(), upstream]));
    // The second is asked in time for the same question of the client, which waits 5 s.
    assert_eq!(server.dig("+short www.example.org").await, "203.0.113.80\n");

    // Names of ours are answered meanwhile, and the server can end.
    let address = server.address();
    let waiting = tokio::task::spawn_blocking(move || {
        let mut dig = programs::command("dig", ["+tries=1", "+time=2", "@127.0.0.1", "www.example.org"]);
        programs::output(dig.args(["-p", &address.port().to_string()]))
    });
    let mut buffer = [0; 512];
    silent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    silent.recv(&mut buffer).unwrap();
    silent.recv(&mut buffer).unwrap();
    assert_eq!(server.dig("+short s.portolan.internal").await, "10.9.0.1\n");
    tokio::time::timeout(Duration::from_secs(1), server.dns.stop()).await.expect("ends at once");
    assert!(!waiting.await.unwrap().status.success(), "nobody answers any more");
}
