//! From kube-proxy to ours and back, and from one of ours to the next, while thousands of connections are open.

use portolan_testkit::{eventually_ok, need_root, programs};
use portolan_tests::proxy::{
    load::{Held, be_holder, many_files, while_connecting},
    program::{Program, Running},
    service::{Protocol, Service, Target},
    stage::{PATIENCE, Stage},
    world::{Family, Place, node_address},
};
use rustix::process::Signal;

const POD: Place = Place::Pod(1, 'c');
const OUTSIDE: Place = Place::Outside(1);
/// A second proxy cannot have the first one's ports.
const OTHER_PORTS: [&str; 2] =
    ["--healthz-bind-address=0.0.0.0:20256", "--metrics-bind-address=127.0.0.1:20249"];

/// Two Services, by cluster address and node port: what is asked for all the time, and what many connections are open to.
fn services(stage: &Stage) -> [(Place, Target); 4] {
    let tcp = Service::new(Family::V4, Protocol::Tcp).node_ports().at(&["1a", "2a"]);
    let six = Service::new(Family::V6, Protocol::Tcp).node_ports().at(&["1a", "2a"]);
    let udp = Service::new(Family::V4, Protocol::Udp).at(&["1a", "2a"]);
    for service in [&tcp, &six, &udp] {
        service.create(&stage.api);
    }
    [
        (POD, tcp.cluster(Family::V4, Protocol::Tcp)),
        (OUTSIDE, tcp.at_node(node_address(1, Family::V4), Protocol::Tcp)),
        (OUTSIDE, six.at_node(node_address(1, Family::V6), Protocol::Tcp)),
        (POD, udp.cluster(Family::V4, Protocol::Udp)),
    ]
}

/// Opens connections to the first two targets, half of them each.
fn open(stage: &Stage, targets: &[(Place, Target)], count: usize) -> Vec<Held> {
    many_files();
    let held = |(place, target): &(Place, Target)| {
        Held::new(&stage.world, *place, *target, count / 2, "holds_connections")
    };
    targets[..2].iter().map(held).collect()
}

#[test]
#[ignore = "a part of others, in a process of its own"]
fn holds_connections() {
    be_holder();
}

#[track_caller]
fn none_broken(held: &mut [Held], when: &str) {
    let (count, broken) =
        (held.iter().map(|held| held.count).sum::<usize>(), held.iter_mut().map(Held::broken).sum::<usize>());
    assert_eq!(broken, 0, "of {count} connections, {when}");
}

/// Ends a proxy as an operator does, and waits for it.
#[track_caller]
fn end(mut proxy: Running) {
    proxy.process.signal(Signal::TERM);
    proxy.process.wait(PATIENCE);
}

#[test]
#[ignore = "two proxies under load take minutes: `make conformance` runs it"]
fn ours_takes_over_ten_thousand_connections_from_kube_proxy_and_hands_them_back() {
    need_root!();
    to_ours_and_back(
        "takeover",
        &[],
        &[["nft", "list table ip kube-proxy"], ["nft", "list table ip6 kube-proxy"]],
    );
}

#[test]
#[ignore = "two proxies under load take minutes: `make conformance` runs it"]
fn ours_takes_over_ten_thousand_connections_from_kube_proxy_with_iptables_and_hands_them_back() {
    need_root!();
    let listed = [["iptables-save", "-t nat"], ["ip6tables-save", "-t nat"]];
    to_ours_and_back("takeover-ipt", &["--proxy-mode=iptables"], &listed);
}

/// With kube-proxy as `mode` says, whose rules are in what the commands of `listed` print.
fn to_ours_and_back(name: &str, mode: &[&str], listed: &[[&str; 2]]) {
    let Some(stage) = Stage::new(name) else { return };
    let targets = services(&stage);
    let mut theirs = vec![stage.start(Program::KubeProxy, 1, mode)];
    stage.fence(&mut theirs);
    let mut connections = open(&stage, &targets, 10_000);

    let (_, anew) = while_connecting(&stage.world, &targets, || {
        // Both serve for a moment: whichever rules come first translate a new connection, and the others leave it alone.
        let mut ours = vec![stage.start(Program::Portolan, 1, &OTHER_PORTS)];
        wait_for_rules(&stage, &targets, &[["nft", "list table inet portolan-services"]]);
        ours[0].wait_healthy_at(&stage.world, PATIENCE, 20_256);
        theirs.drain(..).for_each(end);
        clean_up_with(&stage, Program::KubeProxy, mode);
        let left = listed.iter().filter(|command| knows(&stage, &targets, command)).collect::<Vec<_>>();
        assert!(left.is_empty(), "rules of kube-proxy in {left:?}");
        none_broken(&mut connections, "taken over");

        let theirs = vec![stage.start(Program::KubeProxy, 1, mode)];
        wait_for_rules(&stage, &targets, listed);
        ours.drain(..).for_each(end);
        clean_up_with(&stage, Program::Portolan, &[]);
        assert!(!tables(&stage).contains("portolan"), "{}", tables(&stage));
        none_broken(&mut connections, "handed back");
        theirs
    });
    assert_eq!(anew.failures, [""; 0], "of {} new connections", anew.tries);
    assert!(anew.tries > 100, "{anew:?}");
}

#[test]
#[ignore = "two proxies under load take minutes: `make conformance` runs it"]
fn the_next_one_of_ours_takes_over_without_a_write() {
    need_root!();
    let Some(stage) = Stage::new("upgrade") else { return };
    let targets = services(&stage);
    let sticky = Service::new(Family::V4, Protocol::Tcp).affinity(600).at(&["1a", "1b", "2a", "2b"]);
    sticky.create(&stage.api);
    let sticky = sticky.cluster(Family::V4, Protocol::Tcp);
    let mut ours = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut ours);
    let mut connections = open(&stage, &targets, 2_000);
    let chosen = portolan_tests::proxy::probe::probe(&stage.world, POD, sticky);
    assert!(!chosen.contains(' '), "{chosen}");

    for signal in [Signal::TERM, Signal::KILL] {
        let before =
            stage.on_node(1, "nft", &["--handle", "--terse", "list", "table", "inet", "portolan-services"]);
        let (_, anew) = while_connecting(&stage.world, &targets, || {
            let mut old = ours.remove(0);
            old.process.signal(signal);
            old.process.wait(PATIENCE);
            ours.push(stage.start(Program::Portolan, 1, &[]));
            ours[0].wait_healthy(&stage.world, PATIENCE);
        });
        assert_eq!(anew.failures, [""; 0], "of {} new connections", anew.tries);
        none_broken(&mut connections, "after a restart");
        // Handles are numbers that the kernel never gives twice: nothing was deleted and made again.
        let after =
            stage.on_node(1, "nft", &["--handle", "--terse", "list", "table", "inet", "portolan-services"]);
        assert_eq!(without_counters(&before), without_counters(&after));
        assert_eq!(portolan_tests::proxy::probe::probe(&stage.world, POD, sticky), chosen);
        stage.fence(&mut ours);
    }
}

#[test]
#[ignore = "two proxies under load take minutes: `make conformance` runs it"]
fn ours_serves_its_own_beside_kube_proxy_and_a_service_changes_hands() {
    need_root!();
    let Some(stage) = Stage::new("beside") else { return };
    const LABEL: &str = "service.kubernetes.io/service-proxy-name";
    let new = || Service::new(Family::V4, Protocol::Tcp).node_ports().at(&["1a", "2a"]);
    let (theirs, ours) = (new(), new().label(LABEL, "portolan"));
    let foreign = new().label(LABEL, "somebody");
    for service in [&theirs, &ours, &foreign] {
        service.create(&stage.api);
    }
    let mut kube_proxy = vec![stage.start(Program::KubeProxy, 1, &[])];
    let mut portolan = stage.start(Program::Portolan, 1, &["--service-proxy-name=portolan"]);
    let at = |service: &Service| service.cluster(Family::V4, Protocol::Tcp);
    stage.fence(&mut kube_proxy);
    for service in [&theirs, &ours] {
        stage.expect(POD, at(service), "1a 2a");
        stage.expect(OUTSIDE, service.at_node(node_address(1, Family::V4), Protocol::Tcp), "1a 2a +m");
    }
    stage.expect(POD, at(&foreign), "silence");
    let rules = stage.on_node(1, "nft", &["list", "table", "inet", "portolan-services"]);
    let address = |service: &Service| at(service).address.ip().to_string();
    assert!(
        rules.contains(&address(&ours))
            && !rules.contains(&address(&theirs))
            && !rules.contains(&address(&foreign)),
        "{rules}"
    );

    let label = |service: &Service, value: serde_json::Value| {
        stage.api.patch(&service.path(), &serde_json::json!({"metadata": {"labels": {LABEL: value}}}));
    };
    let mut connections =
        [at(&theirs), at(&ours)].map(|target| Held::new(&stage.world, POD, target, 500, "holds_connections"));
    label(&theirs, "portolan".into());
    label(&ours, serde_json::Value::Null);
    let moved = eventually_ok(PATIENCE, || {
        let rules = stage.on_node(1, "nft", &["list", "table", "inet", "portolan-services"]);
        if rules.contains(&address(&theirs)) && !rules.contains(&address(&ours)) {
            Ok(())
        } else {
            Err(rules)
        }
    });
    assert_eq!(moved, Ok(()), "{}", portolan.log());
    stage.fence(&mut kube_proxy);
    for service in [&theirs, &ours] {
        stage.expect(POD, at(service), "1a 2a");
    }
    none_broken(&mut connections, "in other hands");

    // Without kube-proxy ours is what it was; its own clean-up takes its own table only.
    assert!(portolan.process.is_running(), "{}", portolan.process.transcript());
    end(portolan);
    clean_up_with(&stage, Program::Portolan, &["--service-proxy-name=portolan"]);
    assert!(
        tables(&stage).contains("kube-proxy") && !tables(&stage).contains("portolan"),
        "{}",
        tables(&stage)
    );
    stage.expect(POD, at(&ours), "1a 2a");
}

/// Waits until the rules that these commands list know the node ports of both families. Asking would not do: the other
/// proxy answers as well.
#[track_caller]
fn wait_for_rules(stage: &Stage, targets: &[(Place, Target)], listed: &[[&str; 2]]) {
    let there = eventually_ok(PATIENCE, || {
        let rules: String = listed.iter().map(|command| rules(stage, command)).collect();
        if node_ports(targets).iter().all(|port| mentions(&rules, *port)) { Ok(()) } else { Err(rules) }
    });
    assert_eq!(there, Ok(()), "{listed:?} without {:?}", node_ports(targets));
}

/// Whether one of the node ports is in what the command lists.
fn knows(stage: &Stage, targets: &[(Place, Target)], command: &[&str; 2]) -> bool {
    let rules = rules(stage, command);
    node_ports(targets).iter().any(|port| mentions(&rules, *port))
}

fn node_ports(targets: &[(Place, Target)]) -> [u16; 2] {
    [1, 2].map(|at: usize| targets[at].1.address.port())
}

/// nft writes it among the elements of a map, iptables after `--dport`.
fn mentions(rules: &str, port: u16) -> bool {
    rules.contains(&format!(". {port} ")) || rules.contains(&format!("--dport {port} "))
}

/// What a program with these arguments prints on the node; nothing where the table is not there.
fn rules(stage: &Stage, [program, arguments]: &[&str; 2]) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let listed = stage.world.at(Place::Node(1)).command(program).args(arguments).output();
    listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn tables(stage: &Stage) -> String {
    stage.on_node(1, "nft", &["list", "tables"])
}

/// Removes what a proxy that has ended left.
#[track_caller]
fn clean_up_with(stage: &Stage, program: Program, more: &[&str]) {
    let mut flags = vec!["--cleanup"];
    flags.extend(more);
    let mut proxy = stage.start(program, 1, &flags);
    let status = proxy.process.wait(PATIENCE);
    assert!(status.success(), "{}", proxy.process.transcript());
}

fn without_counters(rules: &str) -> Vec<String> {
    rules.lines().map(|line| line.split(" counter packets").next().unwrap_or_default().to_owned()).collect()
}

/// Keeps the oracle honest: without anybody there is no answer.
#[test]
fn without_a_proxy_nobody_answers() {
    need_root!();
    let Some(stage) = Stage::new("nobody") else { return };
    let service = Service::new(Family::V4, Protocol::Tcp).node_ports().at(&["1a"]);
    service.create(&stage.api);
    stage.expect(POD, service.cluster(Family::V4, Protocol::Tcp), "refused");
    assert!(programs::find("nft").is_some());
}
