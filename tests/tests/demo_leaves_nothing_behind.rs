//! `portolan demo`: three servers are found and reached, and Ctrl-C takes everything away again.

use std::{net::SocketAddr, time::Duration};

use portolan_testkit::{Background, Portolan, ask, need_root, programs};
use portolan_tests::{
    machine::Picture,
    world::{MACHINE, PATIENCE, array, connected, page, wait_passing},
};

/// A demo with the machine's own choice of a data folder, as a newcomer starts it.
fn start(machine: &Portolan, arguments: &[&str]) -> Background {
    let mut command = machine.command(&[&["demo"], arguments].concat());
    command.env_remove("PORTOLAN_DATA");
    let mut demo = Background::start(&mut command);
    machine.wait_ready(&mut demo);
    demo
}

fn port(instance: &serde_json::Value, name: &str) -> u16 {
    let ports = array(&instance["ports"]);
    let port = ports.iter().find(|port| port["name"] == name).expect("the port");
    port["port"].as_str().expect("a number").parse().expect("one port")
}

/// All that a newcomer is promised, then Ctrl-C.
fn a_demo_works_and_goes_away(machine: &Portolan) {
    let world = connected(machine);
    let before = Picture::of(machine);
    let mut demo = start(machine, &[]);

    let instances = wait_passing(machine, 3);
    let mut seen = Vec::new();
    for instance in &instances {
        let http = port(instance, "http");
        assert!((20_000..30_000).contains(&http), "{http}");
        let said = page(&world, http, "/");
        assert!(said.contains(instance["name"].as_str().expect("a name")), "{said}");
        let echo = SocketAddr::from((MACHINE, port(instance, "echo")));
        let answer = world.run(|| ask::udp(echo)).expect("an echo");
        assert!(answer.contains("who are you?"), "{answer}");
        seen.push(http);
    }
    seen.dedup();
    assert_eq!(seen.len(), 3);

    let table = demo.wait_stdout(PATIENCE, |text| text.matches("passing").count() >= 3);
    assert!(table.contains("http://127.0.0.1:10082/"), "{table}");
    let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
    for port in [10080, 10082] {
        let home = machine.namespace().run(|| ask::http_get(local(port), "/")).expect("the page");
        assert!(home.contains("<html"), "{home}");
    }
    let metrics = machine.namespace().run(|| ask::http_get(local(10080), "/metrics")).expect("metrics");
    assert!(metrics.contains("portolan"), "{metrics}");
    let mut dig = machine.program("dig");
    dig.args(["@127.0.0.1", "-p", "10053", "+short", "_http._tcp.port-server.portolan.internal", "SRV"]);
    let records = programs::run(&mut dig);
    for port in seen {
        assert!(records.contains(&format!(" {port} ")), "{records}");
    }

    let status = machine.interrupt(&mut demo);
    assert!(status.success(), "{status}\n{}", demo.transcript());
    assert!(!demo.stderr().contains("not cleaned up"), "{}", demo.stderr());
    Picture::of(machine).assert_same(&before);
}

#[test]
fn a_demo_as_root_leaves_nothing_behind() {
    need_root!();
    a_demo_works_and_goes_away(&Portolan::new());
}

#[test]
fn a_demo_without_privileges_leaves_nothing_behind() {
    need_root!();
    a_demo_works_and_goes_away(&Portolan::unprivileged());
}

#[test]
fn a_demo_that_is_terminated_leaves_nothing_behind() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let before = Picture::of(&machine);
    let mut demo = start(&machine, &["--replicas", "1"]);
    demo.signal(rustix::process::Signal::TERM);
    let status = demo.wait(PATIENCE);
    assert!(status.success(), "{status}\n{}", demo.transcript());
    Picture::of(&machine).assert_same(&before);
}

#[test]
fn ctrl_c_during_the_start_leaves_nothing_behind() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let before = Picture::of(&machine);
    // Another moment of the start each time; most of them while the servers ask for their ports.
    for milliseconds in [1, 5, 20].into_iter().chain((40..400).step_by(23)).chain([800]) {
        let mut command = machine.command(&["demo"]);
        let mut demo = Background::start(command.env_remove("PORTOLAN_DATA"));
        std::thread::sleep(Duration::from_millis(milliseconds));
        machine.interrupt(&mut demo);
        let after = Picture::of(&machine);
        let left = after.differences(&before);
        assert!(left.is_empty(), "after {milliseconds} ms: {left:#?}\n{}", demo.transcript());
    }
}
