//! Ports stay where they are: through the death of a copy, and through the death of `up`.

use std::net::SocketAddr;

use portolan_testkit::{Background, Portolan, ask, eventually, eventually_ok, need_root};
use portolan_tests::world::{MACHINE, PATIENCE, connected, host_port, leases, page, wait_passing};
use rustix::process::{Pid, Signal, kill_process};

/// A server that is started again when it dies.
fn serve(machine: &Portolan, network: &str, name: &str) -> Background {
    let program = portolan_testkit::binary().to_str().expect("a path").to_owned();
    machine.start(&[
        "run",
        "--network",
        network,
        "--name",
        name,
        "-p",
        "http",
        "--health",
        "http:/healthz,interval=1s",
        "--restart",
        "always",
        "--",
        &program,
        "serve",
    ])
}

/// The process ids of the servers that `run` started.
fn servers(machine: &Portolan) -> Vec<u32> {
    let command = format!("{} serve", portolan_testkit::binary().display());
    machine.processes().into_iter().filter(|(_, words)| *words == command).map(|(pid, _)| pid).collect()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).expect("a process id");
    kill_process(pid, Signal::KILL).expect("it runs");
}

fn a_copy_that_dies_comes_back_at_the_same_port(network: &str) {
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&[]);
    let _run = serve(&machine, network, "web");
    let port = host_port(&machine, "web", "http");
    page(&world, port, "/healthz");
    let first = servers(&machine);
    assert_eq!(first.len(), 1, "{:?}", machine.processes());
    kill(first[0]);
    eventually(PATIENCE, || servers(&machine).iter().any(|pid| *pid != first[0]));
    page(&world, port, "/healthz");
    assert_eq!(host_port(&machine, "web", "http"), port);
    wait_passing(&machine, 1);
}

#[test]
fn through_its_own_death() {
    need_root!();
    a_copy_that_dies_comes_back_at_the_same_port("own");
}

#[test]
fn through_its_own_death_on_the_network_of_the_host() {
    need_root!();
    a_copy_that_dies_comes_back_at_the_same_port("host");
}

#[test]
fn through_the_death_of_up_with_traffic_all_the_time() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let mut up = machine.up(&[]);
    let mut run = serve(&machine, "own", "web");
    let port = host_port(&machine, "web", "http");
    page(&world, port, "/healthz");
    let server = servers(&machine);

    up.signal(Signal::KILL);
    up.wait(PATIENCE);
    let target = SocketAddr::from((MACHINE, port));
    world.run(|| ask::http_get(target, "/healthz")).expect("an answer while `up` is dead");
    let mut again = machine.up(&[]);
    world.run(|| ask::http_get(target, "/healthz")).expect("an answer while `up` is new");
    assert_eq!(host_port(&machine, "web", "http"), port);
    assert_eq!(servers(&machine), server, "the command was not touched");
    wait_passing(&machine, 1);

    // And what belongs to nobody is gone: the run is killed while `up` is dead.
    again.signal(Signal::KILL);
    again.wait(PATIENCE);
    run.signal(Signal::KILL);
    run.wait(PATIENCE);
    let _up = machine.up(&[]);
    let gone = eventually_ok(PATIENCE, || {
        let leases = leases(&machine);
        if leases.is_empty() { Ok(()) } else { Err(leases) }
    });
    gone.expect("no lease of a dead process");
    eventually(PATIENCE, || servers(&machine).is_empty());
    assert!(world.run(|| ask::http_get(target, "/healthz")).is_err());
}

#[test]
fn a_name_gets_its_former_ports_again() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&["--quarantine", "1h"]);
    let port = || {
        machine
            .portolan(&["run", "--name", "web", "-p", "http", "--", "sh", "-c", "echo $PORTOLAN_PORT_HTTP"])
            .success()
    };
    let first = port();
    assert_eq!(port(), first);
    let other = machine.portolan(&[
        "run",
        "--name",
        "other",
        "-p",
        "http",
        "--",
        "sh",
        "-c",
        "echo $PORTOLAN_PORT_HTTP",
    ]);
    assert_ne!(other.success(), first, "nobody else gets them meanwhile");
}
