//! The life of an attachment under the CNI plugin alone: twice, at once, in the wrong order, and not at all.

use std::{net::TcpListener, thread};

use portolan_testkit::{echo::Echo, need_root, programs};
use portolan_tests::cni::{Host, VERSIONS};
use serde_json::{Value, json};

fn mapping(host: u16, container: u16) -> Value {
    json!({"hostPort": host, "containerPort": container, "protocol": "tcp"})
}

#[test]
fn check_fails_before_add_and_after_del_for_each_container_by_itself() {
    need_root!();
    for version in VERSIONS {
        let host = Host::new();
        let (one, other) = (host.container(), host.container());
        let config = |port: u16| {
            let mut config = host.config(json!([mapping(port, 80)]));
            config["cniVersion"] = json!(version);
            config
        };
        let check = |container, port| host.call("CHECK", container, &config(port));
        if version < "0.4.0" {
            assert_eq!(check(&one, 18080).error().0, 1, "{version} has no CHECK");
            continue;
        }
        assert_eq!(check(&one, 18080).error().0, 101);
        host.call("ADD", &one, &config(18080)).ok();
        assert_eq!(check(&one, 18080).ok().stdout, "");
        assert_eq!(check(&other, 18081).error().0, 101);
        host.call("ADD", &other, &config(18081)).ok();
        check(&one, 18080).ok();
        check(&other, 18081).ok();
        host.call("DEL", &one, &config(18080)).ok();
        assert_eq!(check(&one, 18080).error().0, 101);
        check(&other, 18081).ok();
        // Somebody takes the rules away. A runtime may take a failed CHECK for permanent, so it mends them first.
        programs::run(host.node.command("nft").args(["delete", "table", "inet", "portolan"]));
        check(&other, 18081).ok();
        assert!(host.rules().contains("18081"), "{version}");
    }
}

#[test]
fn the_same_add_twice_is_one_mapping_and_the_same_del_twice_is_fine() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    let config = host.config(json!([mapping(18080, 80)]));
    host.call("ADD", &container, &config).ok();
    let rules = host.rules();
    host.call("ADD", &container, &config).ok();
    assert_eq!(host.rules(), rules);
    assert!(host.from_world(Host::V4, 18080).is_some());
    for _ in 0..3 {
        assert_eq!(host.call("DEL", &container, &config).ok().stdout, "");
    }
    assert!(!host.rules().contains("18080") && !host.bound().contains(":18080"));
}

#[test]
fn a_del_works_whatever_is_missing() {
    need_root!();
    let host = Host::new();
    let good = host.config(json!([mapping(18080, 80)]));
    let id = "abc";
    let call = |command: &str, id: &str, netns: &str, config: &Value| {
        let variables =
            [("CNI_COMMAND", command), ("CNI_CONTAINERID", id), ("CNI_NETNS", netns), ("CNI_IFNAME", "eth0")];
        host.plugin(&variables, &config.to_string())
    };
    // Never added, not even a folder for the state.
    call("DEL", id, "", &good).ok();
    let mut renamed = good.clone();
    renamed["name"] = json!("another-name");
    let mut bare = renamed.clone();
    bare["runtimeConfig"] = json!({});
    let mut absurd = bare.clone();
    absurd["prevResult"] = json!({"ips": "none"});
    absurd["conditionsV4"] = json!(["-s", "1.2.3.4"]);
    absurd["masqAll"] = json!(true);
    for (what, config, netns) in [
        ("as it was added", &good, None),
        ("without a namespace", &good, Some("")),
        ("with a namespace that is gone", &good, Some("/run/netns/gone")),
        ("renamed", &renamed, Some("")),
        ("renamed, without mappings and result", &bare, Some("")),
        ("with nonsense", &absurd, Some("")),
    ] {
        let container = host.container_at(7, id);
        host.call("ADD", &container, &good).ok();
        assert!(host.rules().contains("18080"), "{what}");
        let path = container.namespace.path().to_string_lossy().into_owned();
        if netns.is_some() {
            drop(container);
        }
        call("DEL", id, netns.unwrap_or(&path), config).ok();
        assert!(!host.rules().contains("18080"), "{what}: {}", host.rules());
        assert!(!host.bound().contains(":18080"), "{what}: still held");
    }
}

#[test]
fn ten_at_once_come_and_go_and_leave_nothing() {
    need_root!();
    let host = Host::new();
    let containers: Vec<_> = (0..10).map(|_| host.container()).collect();
    let config = |number: u8| {
        let number = u16::from(number);
        host.config(json!([mapping(18000 + number, 80), mapping(19000 + number, 81)]))
    };
    for command in ["ADD", "ADD", "DEL", "DEL"] {
        thread::scope(|scope| {
            for container in &containers {
                let (host, config) = (&host, config(container.number));
                scope.spawn(move || host.call(command, container, &config).ok());
            }
        });
        let rules = host.rules();
        for container in &containers {
            let port = format!("{}", 18000 + u16::from(container.number));
            assert_eq!(rules.contains(&port), command == "ADD", "{port} after {command}");
        }
    }
    assert!(!host.bound().contains(":180") && !host.bound().contains(":190"));
}

#[test]
fn calls_leave_one_socket_open_however_many_they_are() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let config = host.config(json!([mapping(18080, 80)]));
    // proc_pid_net(5) has no words for it: the second column is the protocol (12 is NETLINK_NETFILTER), the third the
    // address, which is 0 for the kernel's own.
    let sockets = || {
        let all = programs::run(host.node.command("cat").arg("/proc/net/netlink"));
        let is_ours = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields.get(1) == Some(&"12") && fields.get(2) != Some(&"0")
        };
        all.lines().filter(is_ours).count()
    };
    for _ in 0..4 {
        host.call("ADD", &container, &config).ok();
        assert!(host.rules().contains("18080"));
        host.call("DEL", &container, &config).ok();
        assert!(!host.rules().contains("18080"));
    }
    // The holder keeps it from one call to the next, so that no DEL waits for the close.
    assert_eq!(sockets(), 1);
}

#[test]
fn the_old_container_with_the_same_address_takes_nothing_from_the_new_one() {
    need_root!();
    let host = Host::new();
    let config = host.config(json!([mapping(18080, 80)]));
    let old = host.container_at(5, "old");
    host.call("ADD", &old, &config).ok();
    // It died, and its address was given to another one before its DEL came.
    drop(old);
    let new = host.container_at(5, "new");
    let _echo = Echo::tcp(&new.namespace, "new", "[::]:80");
    host.call("ADD", &new, &config).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("new"));
    let variables = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "old"), ("CNI_IFNAME", "eth0")];
    for _ in 0..2 {
        host.plugin(&variables, &config.to_string()).ok();
        assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("new"));
    }
    host.call("CHECK", &new, &config).ok();
}

#[test]
fn a_host_port_has_one_owner_at_a_time() {
    need_root!();
    let host = Host::new();
    let (one, other) = (host.container(), host.container());
    let _echo = Echo::tcp(&one.namespace, "one", "[::]:80");
    let config = host.config(json!([mapping(18080, 80)]));
    host.call("ADD", &one, &config).ok();
    let (code, text) = host.call("ADD", &other, &config).error();
    assert!(code >= 100 && text.contains("18080") && text.contains(&one.id), "{code} {text}");
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("one"));
    // All of its ports or none.
    let both = host.config(json!([mapping(18081, 80), mapping(18080, 80)]));
    host.call("ADD", &other, &both).error();
    assert!(!host.rules().contains("18081") && !host.bound().contains(":18081"));
    host.call("DEL", &other, &both).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("one"));
    host.call("DEL", &one, &config).ok();
    host.call("ADD", &other, &config).ok();
}

#[test]
fn a_port_that_a_process_has_is_not_mapped_over_it() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let _listener = host.node.run(|| TcpListener::bind("0.0.0.0:18080")).expect("a listener");
    let config = host.config(json!([mapping(18080, 80)]));
    let (code, text) = host.call("ADD", &container, &config).error();
    assert!(code >= 100 && text.contains("18080"), "{code} {text}");
    assert!(!host.rules().contains("18080"));
    let held = host.config(json!([mapping(18081, 80)]));
    host.call("ADD", &container, &held).ok();
    // And the other way round.
    let taken = host.node.run(|| TcpListener::bind("0.0.0.0:18081"));
    assert_eq!(taken.map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::AddrInUse));
    host.call("DEL", &container, &held).ok();
    host.node.run(|| TcpListener::bind("0.0.0.0:18081")).expect("free again");
}

#[test]
fn another_interface_of_the_container_needs_its_host_ports_no_second_time() {
    need_root!();
    // A runtime gives the same portMappings to each network of a container.
    let host = Host::new();
    let container = host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    let mut config = host.config(json!([mapping(18080, 80)]));
    host.call("ADD", &container, &config).ok();
    let second = |command: &str, config: &Value| {
        let netns = container.namespace.path().to_string_lossy().into_owned();
        let variables = [
            ("CNI_COMMAND", command),
            ("CNI_CONTAINERID", container.id.as_str()),
            ("CNI_NETNS", netns.as_str()),
            ("CNI_IFNAME", "eth1"),
        ];
        host.plugin(&variables, &config.to_string())
    };
    config["prevResult"] = json!({"cniVersion": "1.1.0", "ips": [{"address": "10.99.0.2/24"}]});
    second("ADD", &config).ok();
    second("CHECK", &config).ok();
    second("DEL", &config).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("it"));
}

#[test]
fn gc_takes_back_what_the_runtime_does_not_know_in_its_network_only() {
    need_root!();
    let host = Host::new();
    let (stale, valid, elsewhere) = (host.container(), host.container(), host.container());
    let config = |port: u16, network: &str| {
        let mut config = host.config(json!([mapping(port, 80)]));
        config["name"] = json!(network);
        config
    };
    host.call("ADD", &stale, &config(18081, "testnet")).ok();
    host.call("ADD", &valid, &config(18082, "testnet")).ok();
    host.call("ADD", &elsewhere, &config(18083, "othernet")).ok();
    let mut gc = config(1, "testnet");
    let run = |gc: &Value| host.plugin(&[("CNI_COMMAND", "GC")], &gc.to_string()).ok();
    run(&gc);
    assert!(host.rules().contains("18081"), "nothing is known to be stale");
    gc["cni.dev/valid-attachments"] = json!([{"containerID": valid.id, "ifname": "eth0"}]);
    run(&gc);
    let rules = host.rules();
    let there = ["18081", "18082", "18083"].map(|port| rules.contains(port));
    assert_eq!(there, [false, true, true], "{rules}");
}

#[test]
fn a_container_whose_namespace_is_gone_loses_its_ports_to_the_next() {
    need_root!();
    let host = Host::new();
    let config = host.config(json!([mapping(18080, 80)]));
    let (dead, next) = (host.container(), host.container());
    host.call("ADD", &dead, &config).ok();
    drop(dead);
    let _echo = Echo::tcp(&next.namespace, "next", "[::]:80");
    host.call("ADD", &next, &config).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("next"));
}

#[test]
fn refusals_have_the_code_of_the_specification_and_change_nothing() {
    need_root!();
    let host = Host::new();
    let container = host.container();
    let good = host.config(json!([mapping(18080, 80)]));
    let with = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        config
    };
    let mapped = |mapping: Value| with("runtimeConfig", json!({"portMappings": [mapping]}));
    for (config, expected) in [
        (with("cniVersion", json!("2.0.0")), 1),
        (with("conditionsV4", json!(["-s", "1.2.3.4"])), 2),
        (with("masqAll", json!(true)), 2),
        (with("backend", json!("ipvs")), 7),
        (with("prevResult", json!({"ips": []})), 7),
        (with("prevResult", json!({"ips": 7})), 6),
        (mapped(json!({"hostPort": 70000, "containerPort": 80})), 7),
        (mapped(json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"})), 7),
        (mapped(json!({"hostPort": 80})), 7),
    ] {
        assert_eq!(host.call("ADD", &container, &config).error().0, expected, "{config}");
    }
    // An address that the machine does not have cannot be held.
    let foreign = mapped(json!({"hostPort": 80, "containerPort": 80, "hostIP": "198.51.100.77"}));
    let (code, text) = host.call("ADD", &container, &foreign).error();
    assert!(code >= 100 && text.contains("198.51.100.77"), "{code} {text}");
    assert!(!host.rules().contains("10.86.1.2"), "{}", host.rules());
    host.call("ADD", &container, &with("runtimeConfig", json!({}))).ok();
    host.call("ADD", &container, &good).ok();
}

#[test]
fn status_says_whether_an_add_would_work() {
    need_root!();
    let host = Host::new();
    let status = |config: &Value| host.plugin(&[("CNI_COMMAND", "STATUS")], &config.to_string());
    assert_eq!(status(&host.config(json!([]))).ok().stdout, "");
    let mut config = host.config(json!([]));
    config["dataDir"] = json!("/proc/no-folder-here");
    assert_eq!(status(&config).error().0, 50);
}
