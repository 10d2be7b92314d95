//! What Galaxy's and Antrea's own tests of port mappings look at (`portmapping_test.go` and `iptables_test.go` of
//! tkestack/galaxy, `npl_controller_test.go` and `nodeportlocal_test.go` of antrea-io/antrea), asked of our agent and plugin
//! from outside. Each test says which of theirs it is; those that need a cluster are in cluster_faults.rs.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use portolan_testkit::{ask, echo::Echo, eventually, need_root, programs};
use portolan_tests::{
    agent::Node,
    cni::{Container, Host, who},
};
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

fn ask_for(node: &Node, ports: &str) -> Value {
    node.config(&[("portolan.dev/ports", ports)], json!([]))
}

/// The host ports that a Pod was told, in order.
fn ports(node: &Node, container: &Container) -> Vec<u16> {
    let told = node.told(container).unwrap_or_default();
    let hosts = told["ports"].as_array().cloned().unwrap_or_default();
    hosts.iter().filter_map(|port| port["host"].as_str()?.parse().ok()).collect()
}

fn udp_is_held(node: &Node, port: u16) -> bool {
    node.host.node.run(|| UdpSocket::bind(("0.0.0.0", port)).is_err())
}

/// Galaxy: TestOpenRandomPort.
#[test]
fn a_random_port_of_either_protocol_is_a_number_that_is_bound() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80, dns/udp=:53")).ok();
    let given = ports(&node, &container);
    assert!(given.len() == 2 && given.iter().all(|port| *port >= 20000), "{given:?}");
    assert!(node.is_held(given[0]) && udp_is_held(&node, given[1]));
    assert!(!udp_is_held(&node, given[0]) && !node.is_held(given[1]), "the other protocol is not asked for");
}

/// Galaxy: TestOpenHostports.
#[test]
fn three_ports_are_three_sockets_and_another_pod_can_have_none_of_them() {
    need_root!();
    let node = Node::new();
    let (silent, first, second) = (node.host.container(), node.host.container(), node.host.container());
    node.call("ADD", "silent", &silent, &node.config(&[("a", "b")], json!([]))).ok();
    assert!(node.leases().is_empty(), "nothing is opened for who does not ask");

    let three = json!([
        {"hostPort": 18080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 18080, "containerPort": 80, "protocol": "udp"},
        {"hostPort": 18081, "containerPort": 81, "protocol": "tcp"},
    ]);
    let _echo = Echo::tcp(&first.namespace, "first", "[::]:81");
    node.call("ADD", "first", &first, &node.config(&[], three)).ok();
    let held = || [node.is_held(18080), udp_is_held(&node, 18080), node.is_held(18081)];
    assert_eq!(held(), [true; 3]);

    let taken = json!([
        {"hostPort": 18082, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 18081, "containerPort": 80, "protocol": "tcp"},
    ]);
    let (_, reason) = node.call("ADD", "second", &second, &node.config(&[], taken.clone())).error();
    assert!(reason.contains("18081") && reason.contains("games/first"), "{reason}");
    assert!(!node.is_held(18082), "all or nothing");
    assert_eq!(held(), [true; 3]);
    assert_eq!(node.host.from_world(Host::V4, 18081).as_deref(), Some("first"));

    node.call("DEL", "second", &second, &node.config(&[], taken)).ok();
    node.call("DEL", "first", &first, &node.config(&[], json!([]))).ok();
    assert_eq!(held(), [false; 3]);
}

/// Galaxy: TestSetupAndCleanPortMapping.
#[test]
fn the_end_of_one_pod_leaves_the_ports_of_the_other() {
    need_root!();
    let node = Node::new();
    let (one, other) = (node.host.container(), node.host.container());
    let _echo = Echo::tcp(&other.namespace, "other", "[::]:80");
    for (name, container) in [("one", &one), ("other", &other)] {
        let mapping = json!([{"hostPort": 18000 + u16::from(container.number), "containerPort": 80}]);
        node.call("ADD", name, container, &node.config(&[("portolan.dev/ports", "web=:80")], mapping)).ok();
    }
    let (ones, others) = (ports(&node, &one), ports(&node, &other));
    node.call("DEL", "one", &one, &ask_for(&node, "web=:80")).ok();
    for port in ones {
        assert_eq!(node.host.from_world(Host::V4, port), None);
    }
    for port in others.into_iter().chain([18002]) {
        assert_eq!(node.host.from_world(Host::V4, port).as_deref(), Some("other"), "{port}");
    }
}

/// Galaxy: TestSetupPortMappingForAllPods; Antrea: TestInitInvalidPod.
#[test]
fn the_ports_of_a_pod_that_went_while_the_agent_was_away_are_gone_at_its_start() {
    need_root!();
    let mut node = Node::new();
    let (goes, stays) = (node.host.container(), node.host.container());
    let _echo = Echo::tcp(&stays.namespace, "stays", "[::]:80");
    for (name, container) in [("goes", &goes), ("stays", &stays)] {
        node.call("ADD", name, container, &ask_for(&node, "web=:80")).ok();
    }
    let (gone, kept) = (node.port(&goes), node.port(&stays));
    node.end(Signal::KILL);
    // The machine lost it, and nobody said DEL.
    drop(goes);
    node.start(&[]);
    assert_eq!(node.leases().keys().collect::<Vec<_>>(), ["games/stays"]);
    let rules = node.host.rules();
    assert!(!rules.contains(&format!(" {gone} ")) && rules.contains(&format!(" {kept} ")), "{rules}");
    assert!(!node.is_held(gone));
    assert_eq!(node.host.from_world(Host::V4, kept).as_deref(), Some("stays"));
}

/// Galaxy: TestEnsureBasicRule.
#[test]
fn rules_that_are_there_are_made_no_second_time() {
    need_root!();
    let mut node = Node::new();
    let container = node.host.container();
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
    let rules = |node: &Node| {
        let text = programs::run(node.host.node.command("nft").args(["-s", "list", "ruleset"]));
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = rules(&node);
    for signal in [Signal::TERM, Signal::KILL] {
        node.end(signal);
        node.start(&[]);
        node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
        assert_eq!(rules(&node), before, "after {signal:?}");
    }
}

/// Galaxy: TestCleanPortMappingWithRetry: there a busy xtables lock, here others that change the ruleset all the time.
#[test]
fn others_who_are_busy_with_the_ruleset_make_no_call_fail() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let busy = AtomicBool::new(true);
    thread::scope(|scope| {
        for other in ["a", "b"] {
            let (node, busy) = (&node, &busy);
            scope.spawn(move || {
                while busy.load(Ordering::Relaxed) {
                    for verb in ["add", "delete"] {
                        programs::run(node.host.node.command("nft").args([verb, "table", "inet", other]));
                    }
                }
            });
        }
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..25 {
                node.call("ADD", "pod", &container, &ask_for(&node, "web=:80, dns/udp=:53")).ok();
                node.call("CHECK", "pod", &container, &ask_for(&node, "web=:80, dns/udp=:53")).ok();
                node.call("DEL", "pod", &container, &ask_for(&node, "web=:80, dns/udp=:53")).ok();
            }
        }));
        busy.store(false, Ordering::Relaxed);
        assert!(ended.is_ok(), "{}", node.transcript());
    });
    assert!(node.leases().is_empty());
}

/// Galaxy: TestHostportChainName.
#[test]
fn mappings_that_differ_in_one_word_are_two() {
    need_root!();
    let node = Node::new();
    let (one, other) = (node.host.container(), node.host.container());
    let _servers = [
        (Echo::tcp(&one.namespace, "one-tcp", "[::]:80"), Echo::udp(&one.namespace, "one-udp", "[::]:81")),
        (
            Echo::tcp(&other.namespace, "other-tcp", "[::]:80"),
            Echo::udp(&other.namespace, "other-udp", "[::]:80"),
        ),
    ];
    let of_one = json!([
        {"hostPort": 18080, "containerPort": 80, "protocol": "tcp"},
        {"hostPort": 18081, "containerPort": 81, "protocol": "udp"},
    ]);
    let of_other = json!([
        {"hostPort": 18080, "containerPort": 80, "protocol": "udp"},
        {"hostPort": 18081, "containerPort": 80, "protocol": "tcp"},
    ]);
    node.call("ADD", "one", &one, &node.config(&[], of_one.clone())).ok();
    node.call("ADD", "other", &other, &node.config(&[], of_other)).ok();
    let tcp = |port| node.host.from_world(Host::V4, port);
    let udp = |port| who(node.host.world.run(|| ask::udp(SocketAddr::new(Host::V4, port))));
    assert_eq!([tcp(18080), udp(18081)], [Some("one-tcp".to_owned()), Some("one-udp".to_owned())]);
    assert_eq!([udp(18080), tcp(18081)], [Some("other-udp".to_owned()), Some("other-tcp".to_owned())]);
    node.call("DEL", "one", &one, &node.config(&[], of_one)).ok();
    assert_eq!([udp(18080), tcp(18081)], [Some("other-udp".to_owned()), Some("other-tcp".to_owned())]);
    assert_eq!(tcp(18080), None);
}

/// Antrea: TestPodIPRecycle.
#[test]
fn an_address_that_another_pod_has_now_is_not_taken_from_it_by_the_end_of_the_first() {
    need_root!();
    let node = Node::new();
    let old = node.host.container_at(9, "old");
    node.call("ADD", "old", &old, &ask_for(&node, "web=:80")).ok();
    let (former, config) = (node.port(&old), ask_for(&node, "web=:80"));
    // Its program has ended, its address is free for others, and the runtime has not said DEL yet.
    drop(old);
    let new = node.host.container_at(9, "new");
    let _echo = Echo::tcp(&new.namespace, "new", "[::]:80");
    node.call("ADD", "new", &new, &config).ok();
    let port = node.port(&new);
    for _ in 0..2 {
        let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=old;K8S_POD_UID=uid-old";
        let variables = [
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "old"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", arguments),
        ];
        node.host.plugin(&variables, &config.to_string()).ok();
        assert_eq!(node.host.from_world(Host::V4, port).as_deref(), Some("new"));
    }
    if former != port {
        assert_eq!(node.host.from_world(Host::V4, former), None);
    }
}

/// Antrea: TestNodePortAlreadyBoundTo.
#[test]
fn a_port_that_a_process_has_is_passed_over() {
    need_root!();
    let node = Node::with(&["--pool=20000-20002"]);
    let taken = [("0.0.0.0", 20000), ("192.0.2.1", 20001)];
    let _listeners =
        taken.map(|address| node.host.node.run(|| TcpListener::bind(address)).expect("a listener"));
    let (container, late) = (node.host.container(), node.host.container());
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
    assert_eq!(node.port(&container), 20002);
    assert_eq!(node.host.from_world(Host::V4, 20002).as_deref(), Some("it"));
    let (_, reason) = node.call("ADD", "late", &late, &ask_for(&node, "web=:80")).error();
    assert!(reason.contains("the pool default"), "{reason}");
}

/// Antrea: TestInitNodePortOutOfRange and its end-to-end test ChangePortRangeAgentRestart. There a Pod is moved to the new
/// range, which breaks its connections; here it keeps its port as long as it lives, and its next life has a new one.
#[test]
fn another_range_is_for_the_next_pods_and_nothing_of_the_old_one_stays_behind() {
    need_root!();
    let mut node = Node::new();
    let (old, new) = (node.host.container(), node.host.container());
    let _echo = Echo::tcp(&old.namespace, "old", "[::]:80");
    node.call("ADD", "old", &old, &ask_for(&node, "web=:80")).ok();
    let before = node.port(&old);
    node.end(Signal::TERM);
    node.start(&["--pool=40000-40009"]);
    assert_eq!(node.port(&old), before);
    assert_eq!(node.host.from_world(Host::V4, before).as_deref(), Some("old"));
    node.call("ADD", "new", &new, &ask_for(&node, "web=:80")).ok();
    assert!((40000..40010).contains(&node.port(&new)));
    node.call("DEL", "old", &old, &ask_for(&node, "web=:80")).ok();
    assert!(!node.is_held(before) && !node.host.rules().contains(&format!(" {before} ")));
    node.call("ADD", "old", &old, &ask_for(&node, "web=:80")).ok();
    assert!((40000..40010).contains(&node.port(&old)));
    let reserved = node.host.node.read_sysctl("net/ipv4/ip_local_reserved_ports");
    assert_eq!(reserved.trim(), "40000-40009");
}

/// Antrea: TestInitMissingPodIP.
#[test]
fn a_pod_without_an_address_gets_no_ports_and_leaves_none() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let mut config = ask_for(&node, "web=:80");
    config["prevResult"] = json!({"cniVersion": "1.1.0", "interfaces": [], "ips": []});
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=pod;K8S_POD_UID=uid";
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let variables = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", container.id.as_str()),
        ("CNI_NETNS", netns.as_str()),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", arguments),
    ];
    let (_, reason) = node.host.plugin(&variables, &config.to_string()).error();
    assert!(reason.contains("address"), "{reason}");
    assert!(node.leases().is_empty(), "{:?}", node.leases());
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
}

/// Antrea: TestPreventDefunctRuleReuse and TestSingleRuleDeletionError: a rule that is gone, or comes back, by somebody
/// else's hand.
#[test]
fn a_mapping_that_somebody_else_has_deleted_can_be_taken_back_and_its_port_given_to_another() {
    need_root!();
    let mut node = Node::with(&["--pool=20000-20001"]);
    let (first, second) = (node.host.container(), node.host.container());
    let _echo = Echo::tcp(&second.namespace, "second", "[::]:80");
    for repairs in [true, false] {
        let config = ask_for(&node, "web=:80, dns/udp=:53");
        node.call("ADD", "first", &first, &config).ok();
        let port = node.port(&first);
        // With an agent that sees it, and with one that finds it so.
        if !repairs {
            node.end(Signal::KILL);
        }
        programs::run(node.host.node.command("nft").args(["flush", "map", "inet", "portolan", "host_v4"]));
        if !repairs {
            node.start(&[]);
        }
        node.call("DEL", "first", &first, &config).ok();
        eventually(SOON, || !node.host.rules().contains(&format!(" {port} ")));
        node.call("ADD", "second", &second, &config).ok();
        assert_eq!(node.host.from_world(Host::V4, node.port(&second)).as_deref(), Some("second"));
        node.call("DEL", "second", &second, &config).ok();
    }
}

/// Antrea: TestPodIPChange.
#[test]
fn a_sandbox_that_has_another_address_is_reached_there() {
    need_root!();
    let node = Node::new();
    let (container, elsewhere) = (node.host.container(), node.host.container());
    let _echoes = [
        Echo::tcp(&container.namespace, "before", "[::]:80"),
        Echo::tcp(&elsewhere.namespace, "after", "[::]:80"),
    ];
    let config = ask_for(&node, "web=:80");
    node.call("ADD", "pod", &container, &config).ok();
    let port = node.port(&container);
    assert_eq!(node.host.from_world(Host::V4, port).as_deref(), Some("before"));
    // The same sandbox, and the result of the plugins before ours has the other address.
    let mut moved = elsewhere;
    moved.id.clone_from(&container.id);
    node.call("ADD", "pod", &moved, &config).ok();
    assert_eq!(node.port(&moved), port);
    for address in [Host::V4, Host::V6] {
        assert_eq!(node.host.from_world(address, port).as_deref(), Some("after"));
    }
}

/// Antrea: TestNodeIPUpdate.
#[test]
fn a_node_that_has_another_address_serves_its_pods_there() {
    need_root!();
    let node = Node::new();
    let container = node.host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
    let port = node.port(&container);
    node.host.node.ip("address add 192.0.2.9/24 dev eth0");
    let new = [192, 0, 2, 9].into();
    assert_eq!(node.host.from_world(new, port).as_deref(), Some("it"));
    node.host.node.ip("address del 192.0.2.1/24 dev eth0");
    // The addresses of an interface that follow the first go with it, unless promote_secondaries says otherwise.
    node.host.node.ip("address replace 192.0.2.9/24 dev eth0");
    assert_eq!(node.host.from_world(new, port).as_deref(), Some("it"));
}

/// Antrea: the end-to-end test AgentRestart; TestDualStack.
#[test]
fn a_mapping_that_was_deleted_while_the_agent_was_away_is_back_with_it_under_the_same_number() {
    need_root!();
    let mut node = Node::new();
    let container = node.host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    node.call("ADD", "pod", &container, &ask_for(&node, "web=:80")).ok();
    let (port, told) = (node.port(&container), node.told(&container));
    let both =
        |node: &Node| [Host::V4, Host::V6].map(|address| node.host.from_world(address, port).is_some());
    assert_eq!(both(&node), [true; 2]);
    for damage in ["flush map inet portolan host_v4", "delete table inet portolan", "flush ruleset"] {
        node.end(Signal::KILL);
        programs::run(node.host.node.command("nft").args(damage.split(' ')));
        assert!(!both(&node)[0], "{damage}");
        node.start(&[]);
        assert_eq!(both(&node), [true; 2], "{damage}");
        assert_eq!(node.told(&container), told);
    }
}
