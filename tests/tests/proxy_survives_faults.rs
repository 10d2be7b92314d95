//! What the world does to `portolan proxy`: kills it at any moment, flushes its rules, takes the API server away, forgets
//! what it has watched, floods it. Connections go on, and at the end there is what there should be.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use portolan_testkit::{eventually, eventually_ok, need_root};
use portolan_tests::proxy::{
    etcd,
    load::{Open, while_connecting},
    probe::ask,
    program::Program,
    service::{Protocol, Service, Target},
    stage::{PATIENCE, Stage},
    world::{Family, Place, node_address},
};
use rustix::process::Signal;
use serde_json::json;

const POD: Place = Place::Pod(1, 'c');
const OUTSIDE: Place = Place::Outside(1);
const TABLE: &str = "portolan-services";

fn at(service: &Service) -> Target {
    service.cluster(Family::V4, Protocol::Tcp)
}

fn some_services(stage: &Stage, count: usize) -> Vec<Service> {
    let all: Vec<Service> =
        (0..count).map(|_| Service::new(Family::V4, Protocol::Tcp).node_ports().at(&["1a", "2a"])).collect();
    all.iter().for_each(|service| service.create(&stage.api));
    all
}

/// Every element of the table, whatever counts or runs out in it left out.
fn elements(stage: &Stage) -> BTreeSet<String> {
    let text = stage.on_node(1, "nft", &["list", "table", "inet", TABLE]);
    let mut set = String::new();
    let mut all = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line
            .strip_prefix("set ")
            .or_else(|| line.strip_prefix("map "))
            .or_else(|| line.strip_prefix("chain "))
        {
            name.clone_into(&mut set);
        }
        for part in line.trim_start_matches("elements = {").split(", ") {
            let part =
                part.split(" counter packets").next().unwrap_or_default().trim_matches([' ', ',', '}', '{']);
            // Affinity is made by packets.
            if !part.is_empty() && !set.starts_with("affinity") {
                all.insert(format!("{set} {part}"));
            }
        }
    }
    all
}

#[test]
fn killed_at_any_moment_the_next_one_ends_at_the_same_table() {
    need_root!();
    let Some(stage) = Stage::new("killed") else { return };
    let services = some_services(&stage, 150);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    // Moments of the first start, of changes and of starts that find half of it.
    for (round, moment) in [15, 40, 80, 120, 160, 200, 250, 300, 400].into_iter().enumerate() {
        let started = Instant::now();
        let endpoints: &[&str] = if round % 2 == 0 { &["1a"] } else { &["1a", "1b", "2a"] };
        let changed = &services[round * 10..round * 10 + 10];
        std::thread::scope(|scope| {
            scope.spawn(|| changed.iter().for_each(|service| service.move_to(&stage.api, endpoints)));
            let due = || started.elapsed() >= Duration::from_millis(moment);
            eventually(PATIENCE, due);
            proxies[0].process.signal(Signal::KILL);
        });
        proxies[0].process.wait(PATIENCE);
        proxies[0] = stage.start(Program::Portolan, 1, &[]);
    }
    stage.fence(&mut proxies);
    stage.expect(POD, at(&services[0]), "1a");
    stage.expect(POD, at(&services[15]), "1a 1b 2a");
    stage.expect(POD, at(&services[149]), "1a 2a");
    let found = elements(&stage);
    assert!(found.len() > 450, "{found:?}");

    proxies[0].process.signal(Signal::TERM);
    proxies[0].process.wait(PATIENCE);
    stage.on_node(1, "nft", &["delete", "table", "inet", TABLE]);
    proxies[0] = stage.start(Program::Portolan, 1, &[]);
    proxies[0].wait_healthy(&stage.world, PATIENCE);
    let same = eventually_ok(PATIENCE, || {
        let fresh = elements(&stage);
        let differences: Vec<String> = fresh.symmetric_difference(&found).cloned().collect();
        if differences.is_empty() { Ok(()) } else { Err(differences) }
    });
    assert_eq!(same, Ok(()), "a start from nothing makes another table");
}

#[test]
fn what_others_flush_is_back_within_a_second_and_what_is_theirs_is_left_alone() {
    need_root!();
    let Some(stage) = Stage::new("flushed") else { return };
    let service = some_services(&stage, 20).remove(0);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let port = service.at_node(node_address(1, Family::V4), Protocol::Tcp);
    let whole = elements(&stage);
    for damage in
        ["flush ruleset", "delete table inet portolan-services", "flush table inet portolan-services"]
    {
        stage.on_node(1, "nft", &damage.split(' ').collect::<Vec<_>>());
        stage.answered_within(Duration::from_secs(1), POD, at(&service));
        stage.answered_within(Duration::from_secs(1), OUTSIDE, port);
        eventually(PATIENCE, || elements(&stage) == whole);
    }

    // Somebody else drops: nobody answers, and nobody but they may undo it.
    let theirs =
        "table inet firewall { chain forward { type filter hook forward priority 10; policy drop; }; }";
    stage.on_node(1, "nft", &[theirs]);
    stage.expect(POD, at(&service), "silence");
    stage.on_node(1, "nft", &["delete", "table", "inet", "firewall"]);
    stage.answered_within(Duration::from_secs(5), POD, at(&service));
    assert!(proxies[0].process.is_running(), "{}", proxies[0].process.transcript());
}

#[test]
fn without_an_api_server_everything_goes_on_and_a_restart_takes_nothing_away() {
    need_root!();
    let Some(stage) = Stage::new("away") else { return };
    let services = some_services(&stage, 50);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let targets =
        [(POD, at(&services[0])), (OUTSIDE, services[1].at_node(node_address(1, Family::V4), Protocol::Tcp))];
    let mut open = Open::new(&stage.world, POD, at(&services[0]), 200);

    let whole = elements(&stage);
    let (_, anew) = while_connecting(&stage.world, &targets, || {
        stage.api.cluster().stop_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
        // Three times what a watch waits before it asks again.
        let away = Instant::now();
        eventually(PATIENCE, || away.elapsed() > Duration::from_secs(15));
        assert!(proxies[0].process.is_running(), "{}", proxies[0].process.transcript());
        // Nothing is known to the next one yet, and so nothing is taken away.
        proxies[0].process.signal(Signal::KILL);
        proxies[0].process.wait(PATIENCE);
        proxies[0] = stage.start(Program::Portolan, 1, &[]);
        let restarted = Instant::now();
        eventually(PATIENCE, || restarted.elapsed() > Duration::from_secs(5));
        assert!(proxies[0].process.is_running(), "{}", proxies[0].process.transcript());
        assert_eq!(elements(&stage), whole);
        stage.api.cluster().start_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    });
    assert_eq!(anew.failures, [""; 0], "of {} new connections", anew.tries);
    assert_eq!(open.broken(), 0);
    services[0].move_to(&stage.api, &["2a"]);
    stage.expect(POD, at(&services[0]), "2a");
}

#[test]
fn a_watch_whose_history_is_forgotten_begins_anew() {
    need_root!();
    let Some(stage) = Stage::new("expired") else { return };
    let services = some_services(&stage, 10);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    // It sleeps while a Service goes, one comes and one changes, and the API server forgets how that was.
    proxies[0].process.signal(Signal::STOP);
    stage.api.delete(&services[0].path());
    services[1].move_to(&stage.api, &["1b"]);
    let came = some_services(&stage, 1).remove(0);
    let cluster = stage.api.cluster();
    cluster.stop_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    let revision =
        etcd::call(cluster, "range", &json!({"key": "AA==", "range_end": "AA==", "limit": 1}))["header"]["revision"]
            .clone();
    let revision = revision.as_str().unwrap_or_else(|| panic!("no revision: {revision}")).to_owned();
    etcd::call(cluster, "compaction", &json!({"revision": revision, "physical": true}));
    cluster.start_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    proxies[0].process.signal(Signal::CONT);
    stage.expect(POD, at(&services[0]), "silence");
    stage.expect(POD, at(&services[1]), "1b");
    stage.expect(POD, at(&came), "1a 2a");
    stage.expect(POD, at(&services[2]), "1a 2a");
    assert!(proxies[0].process.is_running(), "{}", proxies[0].process.transcript());
}

#[test]
fn a_storm_of_foreign_changes_hides_no_damage() {
    need_root!();
    let Some(stage) = Stage::new("storm") else { return };
    let service = some_services(&stage, 20).remove(0);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let whole = elements(&stage);
    // More notifications than a socket's buffer has room for (ENOBUFS), and in their midst our table goes.
    let elements_of =
        |from: u32, to: u32| (from..to).map(|number| number.to_string()).collect::<Vec<_>>().join(", ");
    let mut storm = String::from("add table inet storm\nadd set inet storm numbers { type mark; }\n");
    for part in 0..20_u32 {
        storm += &format!(
            "add element inet storm numbers {{ {} }}\n",
            elements_of(part * 5_000, (part + 1) * 5_000)
        );
        if part == 10 {
            storm += "delete table inet portolan-services\n";
        }
    }
    let file = stage.api.file("storm.nft");
    std::fs::write(&file, storm).unwrap_or_else(|error| panic!("{error}"));
    stage.on_node(1, "nft", &["-f", &file.to_string_lossy()]);
    stage.on_node(1, "nft", &["delete", "table", "inet", "storm"]);
    stage.answered_within(Duration::from_secs(10), POD, at(&service));
    eventually(PATIENCE, || elements(&stage) == whole);
    service.move_to(&stage.api, &["1b"]);
    stage.expect(POD, at(&service), "1b");
}

#[test]
#[ignore = "sixteen thousand Services take a minute: `make conformance` runs it"]
fn sixteen_thousand_services_that_come_at_once_are_served() {
    need_root!();
    const COUNT: usize = 16_000;
    let Some(stage) = Stage::new("many") else { return };
    let first = some_services(&stage, 1).remove(0);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    proxies[0].process.signal(Signal::STOP);
    // Beyond the numbers that cases have; written while it sleeps, so that all come to it at once.
    let (service, slice) = (stage.api.get(&first.path()), stage.api.get(&first.slice_path(0)));
    let of_number = |number: usize| {
        let (name, address) = (format!("many{number}"), many(number).to_string());
        let (mut service, mut slice) = (service.clone(), slice.clone());
        service["metadata"] = json!({"name": name, "namespace": "proxy", "uid": name});
        service["spec"]["clusterIP"] = json!(address);
        service["spec"]["clusterIPs"] = json!([address]);
        service["spec"]["type"] = json!("ClusterIP");
        service["spec"]["ports"] =
            json!([{"name": "tcp-80", "protocol": "TCP", "port": 80, "targetPort": 80}]);
        slice["metadata"] = json!({"name": name, "namespace": "proxy", "uid": name,
            "labels": {"kubernetes.io/service-name": name}});
        // Without it the API server repairs one Service after the other meanwhile.
        let given = json!({"apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": {"name": address, "uid": name, "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4",
                "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}},
            "spec": {"parentRef": {"group": "", "resource": "services", "namespace": "proxy", "name": name}}});
        [
            (format!("/registry/ipaddresses/{address}"), given),
            (format!("/registry/services/specs/proxy/{name}"), service),
            (format!("/registry/endpointslices/proxy/{name}"), slice),
        ]
    };
    etcd::put(&stage.api, &(0..COUNT).flat_map(of_number).collect::<Vec<_>>());
    let target = |number: usize| Target { protocol: Protocol::Tcp, address: (many(number), 80).into() };
    let awake = Instant::now();
    proxies[0].process.signal(Signal::CONT);
    // Those that are served already are served all the time.
    let ((), anew) = while_connecting(&stage.world, &[(POD, at(&first))], || {
        // Not in the order in which they were written: a list is by name, and a batch is as its maps are.
        for number in (0..COUNT).step_by(97) {
            let served = eventually_ok(PATIENCE * 2, || ask(&stage.world, POD, target(number)));
            assert!(served.is_ok(), "Service {number}: {served:?}\n{}", proxies[0].process.transcript());
        }
    });
    let took = awake.elapsed();
    assert_eq!(anew.failures, [""; 0], "of {} new connections", anew.tries);
    use std::io::Write as _;
    let _ = writeln!(
        std::io::stdout(),
        "{COUNT} Services at once: all served {:.1} s after they could be read; the longest pause of one that was there: {:.0} ms",
        took.as_secs_f32(),
        anew.longest.as_secs_f32() * 1000.0
    );
}

/// The cluster address of one of many.
fn many(number: usize) -> std::net::Ipv4Addr {
    let number = 8_192 + u16::try_from(number).unwrap_or_else(|_| panic!("{number} is too many"));
    let [high, low] = number.to_be_bytes();
    std::net::Ipv4Addr::new(10, 96, high, low)
}
