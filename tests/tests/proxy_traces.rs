//! `portolan trace` beside a running `portolan proxy`: what it says of a packet is what then happens to such a packet.

use std::{collections::BTreeSet, net::SocketAddr, process::Command};

use portolan_testkit::{Background, eventually, eventually_ok, need_root};
use portolan_tests::{
    proxy::{
        endpoint::endpoint,
        probe::{ask, probe},
        program::{Program, Running},
        service::{Protocol, Service, Target, unallocated},
        stage::{PATIENCE, Stage},
        world::{FAMILIES, Family, Place, node_address, pod_address},
    },
    world::{array, json},
};
use serde_json::{Value, json as object};

const POD: Place = Place::Pod(1, 'c');
const NODE: Place = Place::Node(1);
const OUTSIDE: Place = Place::Outside(1);

/// `portolan trace` on node 1, asking its proxy.
fn trace(stage: &Stage, from: Place, target: Target, more: &[&str]) -> Command {
    let family = if target.address.is_ipv4() { Family::V4 } else { Family::V6 };
    let program = portolan_testkit::binary().to_string_lossy().into_owned();
    let mut command = stage.world.at(NODE).command(&program);
    command.arg("trace").arg(format!("--socket={}", stage.api.file("node1.sock").display()));
    command.args(["-o", "json", "--protocol", target.protocol.name()]).args(more);
    command.args([from.address(family).to_string(), target.address.to_string()]);
    command
}

/// What it says, in the words of a probe.
fn expected(answer: &Value) -> String {
    let mut words = BTreeSet::new();
    let mut marks = BTreeSet::new();
    for ending in array(&answer["outcomes"]) {
        match ending["what"].as_str().unwrap_or_default() {
            "rejected" => _ = words.insert("refused".to_owned()),
            "dropped" => _ = words.insert("silence".to_owned()),
            _ => {
                words.insert(name_of(&ending["destination"]));
                marks.insert(ending["masqueraded"] == true);
            }
        }
    }
    assert!(marks.len() < 2, "some are masqueraded and some are not: {answer:#}");
    let mark = if marks.contains(&true) { " +m" } else { "" };
    format!("{}{mark}", words.into_iter().collect::<Vec<_>>().join(" "))
}

/// `1a` for the address of that Pod.
fn name_of(destination: &Value) -> String {
    let address: SocketAddr =
        destination.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{destination}"));
    let pods = [1, 2].into_iter().flat_map(|node| ['a', 'b', 'c'].map(|letter| (node, letter)));
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    let found = pods.into_iter().find(|(node, letter)| pod_address(*node, *letter, family) == address.ip());
    found.map_or(address.to_string(), |(node, letter)| format!("{node}{letter}"))
}

/// Every kind of answer there is, of each family.
fn targets() -> (Vec<Service>, Vec<Target>) {
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let (mut services, mut targets) = (Vec::new(), Vec::new());
    for family in FAMILIES {
        let node = node_address(1, family);
        let open = Service::bare(&[family]).port(tcp, 80, 8080).port(udp, 80, 8080).balancer().external();
        let open = open.at(&["1a", "2a"]);
        let local = Service::new(family, tcp).balancer().external_local().internal_local();
        let local = local.at(&["1a", "2a"]);
        let remote = Service::new(family, tcp).node_ports().external_local().internal_local().at(&["2a"]);
        let nobody = Service::new(family, tcp).balancer().at(&[]);
        let ending = [endpoint("1b").terminating(), endpoint("2a").terminating()];
        let ending = Service::new(family, udp).endpoints(&ending);
        let guarded = if family == Family::V4 { "203.0.113.0/24" } else { "2001:db8:dead::/48" };
        let guarded = Service::new(family, tcp).with("loadBalancerSourceRanges", object!([guarded]));
        let guarded = guarded.balancer().at(&["1a"]);
        for protocol in [tcp, udp] {
            targets.extend([
                open.cluster(family, protocol),
                open.at_node(node, protocol),
                open.at_balancer(family, protocol),
                open.at_external(family, protocol),
            ]);
        }
        targets.extend([
            local.cluster(family, tcp),
            local.at_node(node, tcp),
            local.at_balancer(family, tcp),
            remote.cluster(family, tcp),
            remote.at_node(node, tcp),
            nobody.cluster(family, tcp),
            nobody.at_node(node, tcp),
            ending.cluster(family, udp),
            guarded.at_balancer(family, tcp),
            guarded.cluster(family, tcp),
            open.cluster_at(family, tcp, 81),
            Target { protocol: tcp, address: (unallocated(family), 80).into() },
        ]);
        services.extend([open, local, remote, nobody, ending, guarded]);
    }
    (services, targets)
}

/// Node 1 with a proxy that serves all of these.
fn served(about: &str, services: &[Service]) -> Option<(Stage, Vec<Running>)> {
    let stage = Stage::new(about)?;
    services.iter().for_each(|service| service.create(&stage.api));
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    Some((stage, proxies))
}

#[test]
fn what_is_said_of_a_packet_is_what_happens_to_it() {
    need_root!();
    let (services, targets) = targets();
    let Some((stage, _proxies)) = served("traces", &services) else { return };
    let questions: Vec<(Place, Target)> =
        targets.iter().flat_map(|target| [POD, NODE, OUTSIDE].map(|from| (from, *target))).collect();
    // Waiting for silence is most of the time.
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let parts = questions.chunks(questions.len().div_ceil(12));
        let asked: Vec<_> = parts
            .map(|part| {
                let stage = &stage;
                scope.spawn(move || {
                    part.iter().filter_map(|one| disagreement(stage, *one)).collect::<Vec<_>>()
                })
            })
            .collect();
        let joined = asked.into_iter().map(|part| part.join());
        joined.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    });
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), questions.len(), wrong.join("\n"));
}

/// Asks what will happen, and then sees what does.
fn disagreement(stage: &Stage, (from, target): (Place, Target)) -> Option<String> {
    let said = portolan_testkit::programs::run(&mut trace(stage, from, target, &[]));
    let said = expected(&json(&said));
    let seen = probe(&stage.world, from, target);
    (said != seen).then(|| format!("{from:?} to {target:?}: {said} was said, and {seen} was seen"))
}

#[test]
fn a_packet_that_is_followed_does_in_the_kernel_what_was_said() {
    need_root!();
    let open = Service::new(Family::V4, Protocol::Tcp).node_ports().affinity(600).at(&["1a", "2a"]);
    let nobody = Service::new(Family::V4, Protocol::Udp).at(&[]);
    let services = [open, nobody];
    let Some((stage, _proxies)) = served("followed", &services) else { return };
    let port = services[0].at_node(node_address(1, Family::V4), Protocol::Tcp);
    for (from, target, rule) in [
        (POD, services[0].cluster(Family::V4, Protocol::Tcp), "dnat"),
        (OUTSIDE, port, "masquerade"),
        (POD, services[1].cluster(Family::V4, Protocol::Udp), "refuse"),
    ] {
        let mut following = Background::start(&mut trace(&stage, from, target, &["--live", "--wait=40s"]));
        let name = "table inet portolan-trace-";
        eventually(PATIENCE, || stage.on_node(1, "nft", &["list", "tables"]).contains(name));
        let answer = ask(&stage.world, from, target);
        let status = following.wait(PATIENCE);
        let said = following.stdout();
        assert!(status.success(), "{from:?} to {target:?}, {rule}: {}", following.transcript());
        let live = &json(&said)["live"];
        assert_eq!(live["agrees"], true, "{live:#}");
        assert!(array(&live["events"]).len() > 3, "{live:#}");
        assert_eq!(answer.is_ok(), target.protocol == Protocol::Tcp, "{answer:?}");
        // What follows goes with the one who asked.
        let tables = stage.on_node(1, "nft", &["list", "tables"]);
        assert!(!tables.contains(name), "{tables}");
    }
    // Sent by itself, from an address of the node.
    let target = services[0].cluster(Family::V4, Protocol::Tcp);
    let said = portolan_testkit::programs::run(&mut trace(&stage, NODE, target, &["--live", "--send"]));
    assert_eq!(json(&said)["live"]["agrees"], true, "{said}");
}

#[test]
fn who_is_not_there_is_named() {
    need_root!();
    let Some(stage) = Stage::new("unasked") else { return };
    // A proxy that knows nothing yet says so itself.
    stage.api.cluster().stop_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    let proxy = stage.start(Program::Portolan, 1, &[]);
    let target = Target { protocol: Protocol::Tcp, address: ([10, 96, 0, 1], 443).into() };
    let waits = eventually_ok(PATIENCE, || {
        let output = trace(&stage, POD, target, &[]).output().unwrap_or_else(|error| panic!("{error}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("the proxy waits for the API server") { Ok(()) } else { Err(said) }
    });
    assert_eq!(waits, Ok(()), "{}", proxy.log());
    // Without flags both are asked, where they usually are: hidden here, whoever runs on this machine.
    let nowhere = stage.api.file("nowhere");
    let program = portolan_testkit::binary();
    let words = format!(
        "mkdir -p /run/portolan && mount -t tmpfs none /run/portolan && exec {} trace node 10.96.0.1:443 --data {}",
        program.display(),
        nowhere.display()
    );
    let mut command = stage.world.at(NODE).command("unshare");
    command.args(["--mount", "sh", "-c", &words]);
    let output = command.output().unwrap_or_else(|error| panic!("{error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["`portolan proxy`", "`portolan up`", &nowhere.to_string_lossy(), "--socket", "--data"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
