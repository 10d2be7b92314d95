//! As many sandboxes as a node has: 250 of them with 20 ports each, by the plugin's own process and a real agent.

use std::{
    collections::BTreeSet,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::{
    agent::Node,
    cni::{Answer, Container, Host},
};
use serde_json::{Value, json};

const SANDBOXES: usize = 250;
const PORTS: usize = 20;
/// How many of a runtime's calls run at the same time.
const AT_ONCE: usize = 8;

/// Calls `work` for each of them, some at the same time.
fn each<T: Sync>(all: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((index, one)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    all.get(index).map(|one| (index, one))
                } {
                    work(index, one);
                }
            });
        }
    });
}

#[test]
fn two_hundred_and_fifty_sandboxes_with_twenty_ports_each_come_answer_and_go() {
    need_root!();
    let begun = Instant::now();
    let node = Node::with(&["--pool=20000-24999"]);
    let asks: Vec<String> = (0..PORTS).map(|port| format!("p{port}=:{}", 8000 + port)).collect();
    let config = node.config(&[("portolan.dev/ports", &asks.join(", "))], json!([]));
    let containers: Vec<Container> = (1..=SANDBOXES)
        .map(|number| node.host.container_at(u8::try_from(number).expect("a number"), &format!("s{number}")))
        .collect();
    let made = begun.elapsed();
    let call = |command: &str, index: usize, container: &Container| -> Answer {
        let mut config = config.clone();
        // One network for all of them, as a bridge has.
        let result =
            container.result("1.1.0").to_string().replace(".2/24", ".2/16").replace("::2/64", "::2/16");
        config["prevResult"] = serde_json::from_str(&result).expect("JSON");
        node.call(command, &format!("pod-{index}"), container, &config).ok()
    };

    let begun_adds = Instant::now();
    each(&containers, |index, container| drop(call("ADD", index, container)));
    let added = begun_adds.elapsed();

    // The pool has exactly as many: each is given once, and another Pod gets none.
    let leases = node.leases();
    let all: BTreeSet<&String> = leases.values().flatten().collect();
    assert_eq!((leases.len(), all.len()), (SANDBOXES, SANDBOXES * PORTS));
    let refused = node.host.container_at(251, "one-too-many");
    let one = node.config(&[("portolan.dev/ports", "http")], json!([]));
    let (_, reason) = node.call("ADD", "one-too-many", &refused, &one).error();
    assert!(reason.contains("5000 of 5000 in use"), "{reason}");

    // Every port of every sandbox reaches it and nobody else.
    let answered = AtomicUsize::new(0);
    each(&containers, |_, container| {
        let told = node.told(container).unwrap_or_else(|| panic!("{} was told nothing", container.id));
        let ports = told["ports"].as_array().cloned().unwrap_or_default();
        assert_eq!(ports.len(), PORTS, "{told}");
        for port in ports {
            reach(&node, container, &port);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    });
    assert_eq!(answered.into_inner(), SANDBOXES * PORTS);
    each(&containers[..10], |index, container| drop(call("CHECK", index, container)));

    // Half of them go by DEL, the rest because the runtime does not know them any more.
    let (by_del, by_gc) = containers.split_at(SANDBOXES / 2);
    let begun_dels = Instant::now();
    each(by_del, |index, container| drop(call("DEL", index, container)));
    let deleted = begun_dels.elapsed();
    assert_eq!(node.leases().len(), by_gc.len());
    let kept = &by_gc[0];
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": kept.id, "ifname": "eth0"}]);
    node.host.plugin(&[("CNI_COMMAND", "GC")], &gc.to_string()).ok();
    assert_eq!(node.leases().len(), 1);
    call("DEL", SANDBOXES / 2, kept);
    let left = eventually_ok(Duration::from_secs(10), || {
        let rules = node.host.rules();
        let mapped: Vec<&str> = rules.lines().filter(|line| line.contains("10.86.")).collect();
        if node.leases().is_empty() && !rules.contains(" : 10.86.") { Ok(()) } else { Err(mapped.join("\n")) }
    });
    assert!(left.is_ok(), "{left:?}");
    assert!((20000..25000).step_by(97).all(|port| !node.is_held(port)), "something is still held");
    // Each is a process of its own. On two cores that others use as well it is some 20 ms of theirs.
    let times = format!("ADD {added:?}, DEL of half of them {deleted:?}");
    assert!(added + deleted < Duration::from_secs(90), "{times}");
    assert!(
        begun.elapsed() < Duration::from_secs(240),
        "{:?}, of which {made:?} for namespaces",
        begun.elapsed()
    );
}

/// That a client of the world reaches the sandbox at this port.
fn reach(node: &Node, container: &Container, port: &Value) {
    let number = |key: &str| port[key].as_str().map_or(port[key].to_string(), str::to_owned);
    let parse = |key: &str| number(key).parse::<u16>().unwrap_or_else(|_| panic!("{port}"));
    let (host, inside) = (parse("host"), parse("container"));
    let listener = container.namespace.run(|| TcpListener::bind(("0.0.0.0", inside)));
    let listener = listener.unwrap_or_else(|error| panic!("{} {inside}: {error}", container.id));
    let to = SocketAddr::new(Host::V4, host);
    let connect = || TcpStream::connect_timeout(&to, Duration::from_secs(5));
    let stream =
        node.host.world.run(connect).unwrap_or_else(|error| panic!("{to} of {}: {error}", container.id));
    let (accepted, _) = listener.accept().unwrap_or_else(|error| panic!("{to}: {error}"));
    assert_eq!(accepted.peer_addr().ok(), stream.local_addr().ok(), "{to} of {}", container.id);
}
