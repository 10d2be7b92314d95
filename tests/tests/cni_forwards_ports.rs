//! The CNI plugin alone, in the place of portmap: which packets its mappings forward, and which not.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use portolan_testkit::{
    ask,
    echo::Echo,
    need_root,
    net::{End, Namespace, link},
};
use portolan_tests::cni::{Host, VERSIONS, acquaint, who};
use serde_json::{Value, json};

/// How long nobody must answer to count as nobody.
const SILENCE: Duration = Duration::from_millis(300);

fn mapping(host: u16, container: u16, protocol: &str) -> Value {
    json!({"hostPort": host, "containerPort": container, "protocol": protocol})
}

#[test]
fn a_mapped_port_is_reached_from_everywhere_in_every_version() {
    need_root!();
    for version in VERSIONS {
        let host = Host::new();
        let (container, neighbour) = (host.container(), host.container());
        let _echo = Echo::tcp(&container.namespace, "it", "[::]:8080");
        let mut config = host.config(json!([mapping(18080, 8080, "tcp")]));
        config["cniVersion"] = json!(version);
        let answer = host.call("ADD", &container, &config).ok();
        assert_eq!(answer.json, container.result(version), "{version}: the result is passed on");

        for address in [Host::V4, Host::V6] {
            let to = SocketAddr::new(address, 18080);
            for (from, namespace) in [
                ("the world", &host.world),
                ("the machine", &host.node),
                ("itself", &container.namespace),
                ("another container", &neighbour.namespace),
            ] {
                let answer = who(namespace.run(|| ask::tcp(to)));
                assert_eq!(answer.as_deref(), Some("it"), "{version}: {to} from {from}");
            }
        }
        let direct = who(host.node.run(|| ask::tcp(SocketAddr::new(container.v4(), 8080))));
        assert_eq!(direct.as_deref(), Some("it"));

        host.call("DEL", &container, &config).ok();
        assert!(host.from_world(Host::V4, 18080).is_none(), "{version}: gone after DEL");
        assert!(!host.rules().contains("18080"), "{}", host.rules());
    }
}

#[test]
fn who_connects_is_seen_by_the_container() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let listener = container.namespace.run(|| std::net::TcpListener::bind("0.0.0.0:80")).expect("a listener");
    host.call("ADD", &container, &host.config(json!([mapping(18080, 80, "tcp")]))).ok();
    let to = SocketAddr::new(Host::V4, 18080);
    let _stream = host.world.run(|| std::net::TcpStream::connect(to)).expect("a connection");
    let (_, peer) = listener.accept().expect("its other end");
    assert_eq!(peer.ip(), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)));
}

#[test]
fn a_udp_flow_goes_to_the_second_container_once_the_first_is_gone() {
    need_root!();
    let host = Host::new();
    let config = host.config(json!([mapping(18053, 53, "udp")]));
    // One socket: the same five-tuple, which conntrack knows.
    let socket = host.world.run(|| UdpSocket::bind("192.0.2.2:0")).expect("a socket");
    let to = SocketAddr::new(Host::V4, 18053);
    for name in ["first", "second"] {
        let container = host.container();
        let _echo = Echo::udp(&container.namespace, name, "0.0.0.0:53");
        host.call("ADD", &container, &config).ok();
        let answer = ask::udp_on(&socket, to, Duration::from_secs(5));
        assert_eq!(who(answer).as_deref(), Some(name));
        host.call("DEL", &container, &config).ok();
        assert!(ask::udp_on(&socket, to, SILENCE).is_err(), "nobody answers after DEL");
    }
}

#[test]
fn each_mapping_forwards_its_own_protocol_address_and_family() {
    need_root!();
    let host = Host::new();
    host.node.ip("address add 192.0.2.7/24 dev eth0");
    host.node.ip("address add fd02::7/64 dev eth0 nodad");
    let container = host.container();
    let _eighty = Echo::tcp(&container.namespace, "eighty", "[::]:80");
    let _udp = Echo::udp(&container.namespace, "eighty-one", "[::]:81");
    let on = |address: &str, port: u16| json!({"hostPort": port, "containerPort": 80, "protocol": "tcp", "hostIP": address});
    // After "generates correct rules" of plugins/meta/portmap/portmap_nftables_test.go.
    let config = host.config(json!([
        mapping(8080, 80, "tcp"),
        mapping(8081, 80, "tcp"),
        mapping(8080, 81, "udp"),
        on("192.0.2.7", 8083),
        on("0.0.0.0", 8084),
        on("fd02::7", 8085),
        on("::", 8086),
    ]));
    host.call("ADD", &container, &config).ok();
    let v4: [IpAddr; 2] = [Host::V4, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7))];
    let v6: [IpAddr; 2] = [Host::V6, "fd02::7".parse().expect("an address")];
    let open = |address: IpAddr, port: u16| {
        host.world.run(|| ask::tcp_within(SocketAddr::new(address, port), Duration::from_secs(2))).is_ok()
    };
    for (port, expected) in [
        (8080, [true; 4]),
        (8081, [true; 4]),
        (8083, [false, true, false, false]),
        (8084, [true, true, false, false]),
        (8085, [false, false, false, true]),
        (8086, [false, false, true, true]),
    ] {
        let found = [v4[0], v4[1], v6[0], v6[1]].map(|address| open(address, port));
        assert_eq!(found, expected, "port {port} on {v4:?} {v6:?}\n{}", host.rules());
    }
    let udp = who(host.world.run(|| ask::udp(SocketAddr::new(Host::V4, 8080))));
    assert_eq!(udp.as_deref(), Some("eighty-one"), "UDP has a target of its own");
    host.call("CHECK", &container, &config).ok();
}

#[test]
fn many_ports_are_one_call() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    let mappings: Vec<Value> = (0..200).map(|n| mapping(21000 + n, 80, "tcp")).collect();
    let config = host.config(json!(mappings));
    host.call("ADD", &container, &config).ok();
    for port in [21000, 21015, 21016, 21199] {
        assert!(host.from_world(Host::V4, port).is_some(), "{port}");
    }
    host.call("DEL", &container, &config).ok();
    assert!(!host.rules().contains("210"), "{}", host.rules());
}

#[test]
fn packets_that_only_pass_are_not_touched() {
    need_root!();
    // CVE-2025-67499: a server elsewhere, on the port number that is mapped here, reached through this machine.
    let host = Host::new();
    let elsewhere = Namespace::new();
    link(
        End::new(&elsewhere, "eth0", &["198.18.0.2/24", "fd18::2/64"]),
        End::new(&host.node, "eth1", &["198.18.0.1/24", "fd18::1/64"]),
    );
    elsewhere.route("default via 198.18.0.1");
    elsewhere.route("default via fd18::1");
    host.world.route("198.18.0.0/24 via 192.0.2.1");
    host.world.route("fd18::/64 via fd02::1");
    for (namespace, neighbour) in [(&host.node, "fd18::2"), (&elsewhere, "fd18::1")] {
        acquaint(namespace, neighbour.parse().expect("an address"));
    }
    let container = host.container();
    let _mapped = Echo::tcp(&container.namespace, "mapped", "[::]:80");
    let _other = Echo::tcp(&elsewhere, "elsewhere", "[::]:18080");
    let _udp = Echo::udp(&elsewhere, "elsewhere", "[::]:18080");
    let config = host.config(json!([mapping(18080, 80, "tcp"), mapping(18080, 80, "udp")]));
    host.call("ADD", &container, &config).ok();
    for namespace in [&host.world, &container.namespace, &host.node] {
        for address in ["198.18.0.2", "fd18::2"] {
            let to = SocketAddr::new(address.parse().expect("an address"), 18080);
            let tcp = who(namespace.run(|| ask::tcp(to)));
            assert_eq!(tcp.as_deref(), Some("elsewhere"), "{to}");
            let udp = who(namespace.run(|| ask::udp(to)));
            assert_eq!(udp.as_deref(), Some("elsewhere"), "{to}/udp");
        }
    }
}

#[test]
fn what_a_container_sends_from_a_mapped_port_has_the_published_number() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    host.call("ADD", &container, &host.config(json!([mapping(18053, 53, "udp")]))).ok();
    let far = host.world.run(|| UdpSocket::bind("192.0.2.2:7000")).expect("a socket");
    far.set_read_timeout(Some(Duration::from_secs(5))).expect("a time limit");
    let near = container.namespace.run(|| UdpSocket::bind("0.0.0.0:53")).expect("a socket");
    near.send_to(b"hello", "192.0.2.2:7000").expect("sent");
    let mut buffer = [0; 16];
    let (_, from) = far.recv_from(&mut buffer).expect("a datagram");
    assert_eq!(from, SocketAddr::new(Host::V4, 18053));
}

#[test]
fn a_host_port_of_zero_is_a_random_one_that_can_be_looked_up() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    let mut config = host.config(json!([mapping(0, 80, "tcp"), {"containerPort": 80}]));
    config["pool"] = json!("23000-23099");
    let answer = host.call("ADD", &container, &config).ok();
    assert_eq!(answer.json, container.result("1.1.0"));
    let ports = host.published(&container);
    assert_eq!(ports.len(), 2);
    for port in &ports {
        assert!((23000..23100).contains(port), "{ports:?}");
        assert_eq!(host.from_world(Host::V4, *port).as_deref(), Some("it"));
    }
    assert_ne!(ports[0], ports[1]);
    // The same again has the same answer.
    host.call("ADD", &container, &config).ok();
    assert_eq!(host.published(&container), ports);
    host.call("DEL", &container, &config).ok();
    assert!(host.published(&container).is_empty());
}
