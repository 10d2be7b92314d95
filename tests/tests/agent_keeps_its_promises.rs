//! The node agent without a cluster, with the real plugin and the real kernel: what Pods get, what they are told, and what
//! becomes of it when the agent is killed.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use portolan_testkit::{ask, binary, echo::Echo, eventually, eventually_ok, need_root, programs};
use portolan_tests::{
    agent::Node,
    cni::{Container, Host},
};
use rustix::process::Signal;
use serde_json::{Value, json};

#[test]
fn a_pod_that_asks_is_reached_and_told_and_keeps_its_ports_in_its_next_life() {
    need_root!();
    let node = Node::new();
    let first = node.host.container();
    let config = node.config(&[("portolan.dev/ports", "http=:8080, media/udp:10")], json!([]));
    node.call("ADD", "lobby-0", &first, &config).ok();
    let _echo = Echo::tcp(&first.namespace, "first", "[::]:8080");
    let port = node.port(&first);
    for address in [Host::V4, Host::V6] {
        assert_eq!(node.host.from_world(address, port).as_deref(), Some("first"), "{}", node.transcript());
    }
    node.call("CHECK", "lobby-0", &first, &config).ok();

    // The next sandbox of the Pod comes, and only then the runtime says that the last one is gone.
    let second = node.host.container();
    let _echo = Echo::tcp(&second.namespace, "second", "[::]:8080");
    node.call("ADD", "lobby-0", &second, &config).ok();
    assert_eq!(node.port(&second), port);
    node.call("DEL", "lobby-0", &first, &config).ok();
    node.call("DEL", "lobby-0", &first, &config).ok();
    assert_eq!(node.host.from_world(Host::V4, port).as_deref(), Some("second"));
    node.call("DEL", "lobby-0", &second, &config).ok();
    assert_eq!(node.host.from_world(Host::V4, port), None);
    assert!(node.leases().is_empty() && node.told(&second).is_none());
}

#[test]
fn what_a_pod_may_not_have_is_refused_with_the_reason_and_leaves_nothing() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    for (ask, reason) in [
        ("http,,game", "there is nothing between two commas"),
        ("ssh=22", "choose one that is"),
        ("http,pool=other", "there is no pool other on this node: name one of default"),
        ("big/udp:20000", "a block of 20000 cannot fit"),
    ] {
        let config = node.config(&[("portolan.dev/ports", ask)], json!([]));
        let (code, text) = node.call("ADD", "lobby-0", &container, &config).error();
        assert!(code >= 100 && text.contains(reason), "{ask}: {code} {text}");
    }
    assert!(node.leases().is_empty());
    // A Pod that asks for nothing is not the agent's business.
    node.call("ADD", "plain", &container, &node.config(&[], json!([]))).ok();
    assert!(node.leases().is_empty());
}

#[test]
fn interfaces_of_a_container_that_ask_at_once_share_its_ports() {
    need_root!();
    let node = Node::new();
    for round in 0..20 {
        let container = node.host.container();
        let mappings =
            json!([{"hostPort": 18080, "containerPort": 80}, {"hostPort": 18081, "containerPort": 81}]);
        let mut config = node.config(&[("portolan.dev/ports", "http=:8080")], mappings);
        config["prevResult"] = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.99.0.2/24"}]});
        let all = |command: &str| {
            let call = |interface| node.call_on(command, "lobby-0", &container, interface, &config);
            std::thread::scope(|scope| {
                let calls = ["eth0", "net1", "net2"].map(|interface| scope.spawn(move || call(interface)));
                for call in calls {
                    let answer = call.join().expect("a call");
                    assert!(answer.success, "round {round}: {answer:?}\n{}", node.transcript());
                }
            });
        };
        all("ADD");
        let leases = node.leases();
        let ports: Vec<&String> = leases.values().flatten().collect();
        assert_eq!(ports.len(), 3, "round {round}: {leases:?}");
        all("DEL");
        assert!(node.leases().is_empty());
    }
}

#[test]
fn a_pod_asks_the_node_for_its_own_ports_even_where_another_has_port_80() {
    need_root!();
    let node = Node::new();
    let (lobby, web) = (node.host.container(), node.host.container());
    node.call("ADD", "lobby", &lobby, &node.config(&[("portolan.dev/ports", "http")], json!([]))).ok();
    let mapping = json!([{"hostPort": 80, "containerPort": 8080, "protocol": "tcp"}]);
    node.call("ADD", "web", &web, &node.config(&[], mapping)).ok();
    let _echo = Echo::tcp(&web.namespace, "web", "[::]:8080");
    assert_eq!(node.host.from_world(Host::V4, 80).as_deref(), Some("web"));
    let address = SocketAddr::from((Ipv4Addr::new(169, 254, 86, 80), 80));
    let answer = lobby.namespace.run(|| ask::http_get(address, "/v1/self/ports")).expect("an answer");
    assert_eq!(serde_json::from_str::<Value>(&answer).ok(), node.told(&lobby));
    let variables = lobby.namespace.run(|| ask::http_get(address, "/v1/self/env")).expect("an answer");
    assert!(
        variables.contains(&format!("PORTOLAN_ADDR_HTTP=192.0.2.1:{}\n", node.port(&lobby))),
        "{variables}"
    );
    // Who has chosen all by itself is told that as well.
    let answer = web.namespace.run(|| ask::http_get(address, "/v1/self/ports")).expect("an answer");
    assert!(answer.contains("\"host\":\"80\""), "{answer}");
}

#[test]
fn a_port_on_the_loopback_is_served_and_free_again_for_the_next() {
    need_root!();
    let node = Node::new();
    let local = json!([{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1"}]);
    let config = node.config(&[], local);
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 18080));
    for name in ["first", "second"] {
        let container = node.host.container();
        let _echo = Echo::tcp(&container.namespace, name, "[::]:8080");
        node.call("ADD", name, &container, &config).ok();
        let answer = eventually_ok(Duration::from_secs(5), || {
            node.host.node.run(|| ask::tcp(to)).ok().filter(|answer| answer.starts_with(name)).ok_or("nobody")
        });
        assert!(answer.is_ok(), "{name}: {}", node.transcript());
        assert_eq!(node.host.from_world(Host::V4, 18080), None, "the world reaches the loopback");
        node.call("DEL", name, &container, &config).ok();
    }
}

#[test]
fn killed_at_any_moment_of_adds_and_dels_it_agrees_with_itself_afterwards() {
    need_root!();
    let mut node = Node::new();
    let containers: Vec<Container> = (0..4).map(|_| node.host.container()).collect();
    let ask = |count: usize| (0..count).map(|n| format!("p{n}=:{}", 8000 + n)).collect::<Vec<_>>().join(",");
    let mut there: BTreeMap<String, u16> = BTreeMap::new();
    let begun = Instant::now();
    for round in 0..24_u64 {
        // Half of the Pods come or go while the agent is killed, at a moment that moves through the work.
        std::thread::scope(|scope| {
            let node = &node;
            for (index, container) in containers.iter().enumerate() {
                let config = node.config(&[("portolan.dev/ports", &ask(index + 1))], json!([]));
                let command = if (round + index as u64).is_multiple_of(2) { "ADD" } else { "DEL" };
                scope.spawn(move || {
                    // What it answers without its agent is the plugin's promise.
                    let _ = node.call(command, &format!("pod-{index}"), container, &config);
                });
            }
            std::thread::sleep(Duration::from_millis(5 + (round * 7) % 90));
            let pid =
                i32::try_from(node.pid()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
            rustix::process::kill_process(pid, Signal::KILL).expect("it runs");
        });
        node.end(Signal::KILL);
        node.start(&[]);
        // The runtime tries again until it has its answer: then all is as it was told.
        for (index, container) in containers.iter().enumerate() {
            let pod = format!("pod-{index}");
            let config = node.config(&[("portolan.dev/ports", &ask(index + 1))], json!([]));
            if (round + index as u64).is_multiple_of(2) {
                node.call("ADD", &pod, container, &config).ok();
                there.insert(pod, node.port(container));
            } else {
                node.call("DEL", &pod, container, &config).ok();
                there.remove(&pod);
            }
        }
        let why = node.disagreement(&there);
        assert!(why.is_none(), "round {round}: {}\n{}", why.unwrap_or_default(), node.transcript());
    }
    assert!(begun.elapsed() < Duration::from_secs(300), "it took {:?}", begun.elapsed());
}

#[test]
fn a_restart_breaks_no_connection_and_cleaning_up_leaves_nothing() {
    need_root!();
    let mut node = Node::new();
    let rules_before = node.host.rules();
    assert!(rules_before.contains("table inet portolan"));
    let container = node.host.container();
    let config = node.config(&[("portolan.dev/ports", "http=:8080")], json!([]));
    node.call("ADD", "lobby", &container, &config).ok();
    let port = node.port(&container);
    let listener =
        container.namespace.run(|| std::net::TcpListener::bind("0.0.0.0:8080")).expect("a listener");
    let to = SocketAddr::new(Host::V4, port);
    let mut client = node.host.world.run(|| std::net::TcpStream::connect(to)).expect("a connection");
    let (mut server, _) = listener.accept().expect("its other end");

    node.end(Signal::TERM);
    use std::io::{Read as _, Write as _};
    let mut said = [0; 4];
    client.write_all(b"ping").expect("without an agent");
    server.read_exact(&mut said).expect("without an agent");
    assert!(node.is_held(port), "the hold ends with the agent");
    node.start(&[]);
    client.write_all(b"pong").expect("with the next agent");
    server.read_exact(&mut said).expect("with the next agent");
    assert_eq!(&said, b"pong");
    assert_eq!(node.port(&container), port);

    node.end(Signal::TERM);
    let mut cleanup = node.host.node.command(&binary().to_string_lossy());
    let folders = ["bin", "conf"].map(|name| node.at(name).to_string_lossy().into_owned());
    cleanup.args(node.arguments()).arg("--cleanup");
    cleanup.args([format!("--cni-bin-dir={}", folders[0]), format!("--cni-conf-dir={}", folders[1])]);
    for _ in 0..2 {
        programs::run(&mut cleanup);
    }
    assert!(!node.host.rules().contains("portolan"), "{}", node.host.rules());
    eventually(Duration::from_secs(5), || !node.is_held(port));
    let address = IpAddr::V4(Ipv4Addr::new(169, 254, 86, 80)).to_string();
    assert!(!node.host.node.ip("address show dev lo").contains(&address));
    assert_eq!(node.host.node.read_sysctl("net/ipv4/ip_local_reserved_ports").trim(), "");
    let left: Vec<_> =
        fs::read_dir(node.at("data")).into_iter().flatten().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!node.at("agent.sock").exists());
}
