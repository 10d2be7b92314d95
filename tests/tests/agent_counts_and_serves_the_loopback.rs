//! What a node's agent shows of the ports of its Pods, and how programs of the node itself reach them.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use portolan_testkit::{ask, echo::Echo, eventually_ok, need_root};
use portolan_tests::{
    agent::Node,
    cni::{Container, Host},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

fn metrics(node: &Node) -> String {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 10083));
    node.host.node.run(|| ask::http_get(address, "/metrics")).unwrap_or_default()
}

/// Who answers on the loopback of the node.
#[track_caller]
fn on_loopback(node: &Node, port: u16, name: &str) {
    for to in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))] {
        let answer = eventually_ok(SOON, || {
            node.host.node.run(|| ask::tcp(to)).ok().filter(|answer| answer.starts_with(name)).ok_or("nobody")
        });
        assert!(answer.is_ok(), "{to}: {}", node.transcript());
    }
}

#[test]
fn what_came_by_a_port_is_in_the_metrics_as_long_as_its_pod_lives() {
    need_root!();
    let node = Node::with(&["--count=traffic"]);
    let container = node.host.container();
    let config = node.config(&[("portolan.dev/ports", "web=:8080")], json!([]));
    node.call("ADD", "lobby", &container, &config).ok();
    let _echo = Echo::tcp(&container.namespace, "lobby", "[::]:8080");
    let port = node.port(&container);
    let labels = format!(r#"{{namespace="games",pod="lobby",port="web",host_port="{port}",protocol="tcp"}}"#);
    let value = |text: &str, name: &str| {
        let begin = format!("portolan_port_{name}_total{labels} ");
        text.lines().find_map(|line| line.strip_prefix(&begin)?.parse::<u64>().ok())
    };
    assert_eq!(value(&metrics(&node), "connections"), Some(0), "{}", metrics(&node));
    for _ in 0..3 {
        assert!(node.host.from_world(Host::V4, port).is_some());
    }
    let text = metrics(&node);
    assert_eq!(value(&text, "connections"), Some(3), "{text}");
    for name in ["received_packets", "received_bytes", "sent_packets", "sent_bytes"] {
        assert!(value(&text, name).is_some_and(|count| count >= 6), "{name}: {text}");
    }
    node.call("DEL", "lobby", &container, &config).ok();
    assert!(!metrics(&node).contains("portolan_port_connections"), "{}", metrics(&node));
}

#[test]
fn by_default_connections_are_counted() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let mapping = json!([{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]);
    node.call("ADD", "lobby", &container, &node.config(&[], mapping)).ok();
    let _echo = Echo::tcp(&container.namespace, "lobby", "[::]:8080");
    assert!(node.host.from_world(Host::V6, 18080).is_some());
    let text = metrics(&node);
    let sample = r#"portolan_port_connections_total{namespace="games",pod="lobby",port="tcp-8080",host_port="18080",protocol="tcp"} 1"#;
    assert!(text.lines().any(|line| line == sample), "{text}");
    assert!(!text.contains("portolan_port_sent"), "{text}");
}

/// The holder of the node's agent.
fn holder(node: &Node) -> Option<Pid> {
    let folder = node.at("").to_string_lossy().into_owned();
    let found = std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let words = String::from_utf8_lossy(&words).into_owned();
        let is = words.contains("\0holder\0") && words.contains(&folder);
        is.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    });
    Pid::from_raw(found?)
}

#[test]
fn a_port_on_the_loopback_outlives_its_holder_and_is_held_by_the_next() {
    need_root!();
    let mut node = Node::with(&["--localhost"]);
    let container = node.host.container();
    let config = node.config(&[("portolan.dev/ports", "web=:8080")], json!([]));
    node.call("ADD", "lobby", &container, &config).ok();
    let _echo = Echo::tcp(&container.namespace, "lobby", "[::]:8080");
    let port = node.port(&container);
    on_loopback(&node, port, "lobby");
    let first = holder(&node).expect("a holder");
    kill_process(first, Signal::KILL).expect("it can be killed");
    let next = eventually_ok(SOON, || holder(&node).filter(|next| *next != first).ok_or("no holder"));
    assert!(next.is_ok(), "{}", node.transcript());
    // Only the holder's socket can tell which of them has the port: the relay's is the same one.
    let held = eventually_ok(SOON, || {
        if metrics(&node).contains("\nportolan_ports_unheld 0\n") && sockets(holder(&node)) > 1 {
            Ok(())
        } else {
            Err("not held")
        }
    });
    assert!(held.is_ok(), "{}\n{}", node.transcript(), metrics(&node));
    on_loopback(&node, port, "lobby");
    node.end(Signal::KILL);
    assert!(node.is_held(port), "the next holder has nothing");
}

/// How many sockets a process has: one listens, the agent is connected by one, the others hold ports.
fn sockets(process: Option<Pid>) -> usize {
    let Some(process) = process else { return 0 };
    let folder = format!("/proc/{}/fd", process.as_raw_nonzero());
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count().saturating_sub(1)
}

/// A call for another interface of the container: another network of the same Pod.
#[track_caller]
fn call_for(node: &Node, interface: &str, command: &str, container: &Container, config: &Value) {
    let mut config = config.clone();
    config["prevResult"] = container.result("1.1.0");
    let file = container.namespace.path().display().to_string();
    config["prevResult"]["interfaces"] = json!([{ "name": interface, "sandbox": file }]);
    for address in config["prevResult"]["ips"].as_array_mut().into_iter().flatten() {
        address["interface"] = json!(0);
    }
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=lobby;K8S_POD_UID=uid-lobby";
    node.host
        .plugin(
            &[
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", &container.id),
                ("CNI_NETNS", &file),
                ("CNI_IFNAME", interface),
                ("CNI_ARGS", arguments),
                ("CNI_PATH", "/opt/cni/bin"),
            ],
            &config.to_string(),
        )
        .ok();
}

#[test]
fn ports_that_a_runtime_wants_on_every_interface_of_a_container_are_given_once() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let mapping = json!([{"hostPort": 18080, "containerPort": 8080, "protocol": "tcp"}]);
    let config = node.config(&[("portolan.dev/ports", "web=:8080")], mapping);
    let _echo = Echo::tcp(&container.namespace, "lobby", "[::]:8080");
    for interface in ["eth0", "net1"] {
        for command in ["ADD", "CHECK"] {
            call_for(&node, interface, command, &container, &config);
        }
    }
    let leases = node.leases();
    assert_eq!(leases.keys().collect::<Vec<_>>(), ["games/lobby"]);
    assert_eq!(leases["games/lobby"].len(), 2, "{leases:?}");
    call_for(&node, "net1", "DEL", &container, &config);
    assert_eq!(node.host.from_world(Host::V4, 18080).as_deref(), Some("lobby"));
    call_for(&node, "eth0", "DEL", &container, &config);
    assert!(node.leases().is_empty());
}
