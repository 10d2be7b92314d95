//! What the world does to a node: a full disk, flushed rules, a machine without a data plane.

use std::{net::SocketAddr, time::Duration};

use portolan_testkit::{Background, Portolan, ask, eventually, eventually_ok, need_root, nft, programs};
use portolan_tests::world::{MACHINE, PATIENCE, connected, host_port, leases, page};

/// The dynamic-port server in a network of its own.
fn serve(machine: &Portolan, name: &str) -> Background {
    let program = portolan_testkit::binary().to_str().expect("a path").to_owned();
    machine.start(&["run", "--network", "own", "--name", name, "-p", "http", "--", &program, "serve"])
}

#[test]
fn a_full_disk_refuses_what_cannot_be_kept_and_hurts_nothing_else() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    // The machine has mounts of its own, so this small disk is seen by nobody else.
    let data = machine.data();
    programs::run(machine.program("mount").args(["-t", "tmpfs", "-o", "size=8m", "small"]).arg(&data));
    let mut up = machine.up(&[]);
    let _server = serve(&machine, "web");
    let port = host_port(&machine, "web", "http");
    page(&world, port, "/healthz");

    let full = format!("cat /dev/zero > {}/filler; true", data.display());
    programs::run(machine.program("sh").args(["-c", &full]));
    let said = machine.portolan(&["run", "--restart", "no", "--name", "late", "-p", "http", "--", "true"]);
    // Refused with the reason, or done with what space there was; never half.
    if !said.status.success() {
        assert!(said.stderr.contains("space"), "{}", said.stderr);
    }
    assert!(up.is_running(), "{}", up.transcript());
    page(&world, port, "/healthz");

    programs::run(machine.program("rm").arg(data.join("filler")));
    machine.portolan(&["run", "--restart", "no", "--name", "late", "-p", "http", "--", "true"]).success();
    let names: Vec<_> = leases(&machine).iter().map(|lease| lease["instance"].clone()).collect();
    assert_eq!(names, ["web"]);
}

#[test]
fn flushed_rules_are_back_within_a_second_and_it_is_logged() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let mut up = machine.up(&[]);
    let _server = serve(&machine, "web");
    let port = host_port(&machine, "web", "http");
    page(&world, port, "/healthz");
    let target = SocketAddr::from((MACHINE, port));
    let rules = || machine.namespace().run(|| nft::nft("list table inet portolan"));
    let before = rules();
    for damage in ["flush ruleset", "delete table inet portolan"] {
        machine.namespace().run(|| nft::nft(damage));
        let again = world.run(|| eventually_ok(Duration::from_secs(1), || ask::http_get(target, "/healthz")));
        assert!(again.is_ok(), "{damage}: {again:?}\n{}", up.transcript());
        assert_eq!(without_counters(&rules()), without_counters(&before));
    }
    let said = up.wait_stderr(PATIENCE, |text| text.contains("WARN"));
    assert!(said.contains("portolan"), "{said}");
}

/// Counters go on.
fn without_counters(rules: &str) -> String {
    let keep = |word: &&str| !word.chars().all(|c| c.is_ascii_digit());
    rules.lines().map(|line| line.split(' ').filter(keep).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn other_tables_are_left_alone() {
    need_root!();
    let machine = Portolan::new();
    let other = "table inet others {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 192.0.2.77 }\n\t}\n}\n";
    machine.namespace().run(|| nft::load(other));
    let mut up = machine.up(&[]);
    let mut server = serve(&machine, "web");
    host_port(&machine, "web", "http");
    assert_eq!(machine.namespace().run(|| nft::nft("list table inet others")), other);
    // In this order: while an instance runs, its rules stay, and the next `up` finds them.
    machine.interrupt(&mut server);
    machine.interrupt(&mut up);
    assert_eq!(machine.namespace().run(|| nft::nft("list ruleset")), other, "and ours is gone");
}

#[test]
fn without_a_data_plane_the_network_of_the_host_is_there() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&["--no-dataplane"]);
    assert_eq!(machine.namespace().run(|| nft::nft("list tables")), "");
    let said = machine.portolan(&["run", "--network", "own", "-p", "web", "--", "true"]).failure(1);
    assert!(said.contains("network of its own"), "{said}");
    let program = portolan_testkit::binary().to_str().expect("a path");
    let _server =
        machine.start(&["run", "--network", "host", "--name", "web", "-p", "http", "--", program, "serve"]);
    page(&world, host_port(&machine, "web", "http"), "/healthz");
}

#[test]
fn up_that_is_asked_to_end_gives_everything_back() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let before = portolan_tests::machine::Picture::of(&machine);
    let mut up = machine.up(&[]);
    up.signal(rustix::process::Signal::TERM);
    let status = up.wait(PATIENCE);
    assert!(status.success(), "{status}\n{}", up.transcript());
    eventually(PATIENCE, || machine.processes().is_empty());
    portolan_tests::machine::Picture::of(&machine).assert_same(&before);
}
