//! What cannot be done is refused with what was wrong, where, and what to do; and nothing is left of the attempt.

use std::{net::TcpListener, os::unix::fs::PermissionsExt as _};

use portolan_testkit::{Background, Portolan, need_root, programs};
use portolan_tests::{
    machine::Picture,
    world::{PATIENCE, connected, host_port, leases},
};

#[test]
fn unknown_flags_and_bad_ports_are_wrong_usage() {
    need_root!();
    let machine = Portolan::new();
    for (words, why) in [
        (&["up", "--no-such-flag"][..], "--no-such-flag"),
        (&["run", "-p", "web=70000:80", "--", "true"], "70000"),
        (&["run", "-p", "web/icmp", "--", "true"], "icmp"),
        (&["run", "-p", "", "--", "true"], "port"),
        (&["run", "-p", "web=0:80", "--", "true"], "0"),
        (&["run", "-p", "web", "-p", "web", "--", "true"], "web"),
        (&["run", "-p", "web=8080:80", "--replicas", "2", "--network", "own", "--", "true"], "8080"),
        (&["up", "--pool", "30000-20000"], "30000-20000"),
        (&["run"], "COMMAND"),
    ] {
        let said = machine.portolan(words).failure(2);
        assert!(said.contains(why), "{words:?}: {said}");
    }
}

#[test]
fn a_static_port_that_is_taken_says_by_whom() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let _taken = machine.namespace().run(|| TcpListener::bind("0.0.0.0:8080")).expect("a listener");
    let said = machine.portolan(&["run", "-p", "web=8080:80", "--", "true"]).failure(1);
    assert!(said.contains("8080"), "{said}");
    let me = std::process::id().to_string();
    assert!(said.contains(&me), "not by which process ({me}): {said}");
    assert!(leases(&machine).is_empty());
}

#[test]
fn a_static_port_of_another_instance_says_of_which() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let _first = machine.start(&["run", "--name", "first", "-p", "web=8080:80", "--", "sleep", "1000"]);
    assert_eq!(host_port(&machine, "first", "web"), 8080);
    let said = machine.portolan(&["run", "--name", "second", "-p", "web=8080:80", "--", "true"]).failure(1);
    assert!(said.contains("8080/tcp is leased already"), "{said}");
}

#[test]
fn an_exhausted_pool_is_named_with_its_use() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&["--pool", "20000-20003"]);
    let _all = machine.start(&["run", "--name", "all", "-p", "media/udp:4", "--", "sleep", "1000"]);
    host_port(&machine, "all", "media");
    let said = machine.portolan(&["run", "--name", "one", "-p", "web/udp", "--", "true"]).failure(1);
    assert!(said.contains("default") && said.contains("20000-20003") && said.contains('4'), "{said}");
    assert_eq!(leases(&machine).len(), 1);
}

#[test]
fn two_ups_on_one_machine_do_not_mix() {
    need_root!();
    let machine = Portolan::new();
    let mut up = machine.up(&[]);
    let said = machine.portolan(&["up"]).failure(1);
    assert!(said.contains(&up.pid().to_string()) && said.contains("--data"), "{said}");
    let other = machine.folder().join("other");
    let other = other.to_str().expect("a path");
    let said = machine.portolan(&["up", "--data", other]).failure(1);
    assert!(said.contains("hint:"), "{said}");
    let listen = [
        "--listen",
        "127.0.0.1:11080",
        "--register-listen",
        "127.0.0.1:11081",
        "--dns-listen",
        "127.0.0.1:11053",
    ];
    let said = machine.portolan(&[&["up", "--data", other], &listen[..]].concat()).failure(1);
    assert!(said.contains("data plane") && said.contains("--no-dataplane"), "{said}");
    assert!(up.is_running(), "{}", up.transcript());
}

#[test]
fn an_address_in_use_says_by_whom_and_by_which_flag_to_move() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let before = Picture::of(&machine);
    for (port, flag) in
        [(10080, "--listen"), (10082, "--page-listen"), (10081, "--register-listen"), (10053, "--dns-listen")]
    {
        let taken = machine.namespace().run(|| TcpListener::bind(("127.0.0.1", port))).expect("a listener");
        let said = machine.portolan(&["up"]).failure(1);
        assert!(said.contains(&port.to_string()) && said.contains(flag), "{said}");
        assert!(said.contains(&std::process::id().to_string()), "{said}");
        drop(taken);
        Picture::of(&machine).assert_same(&before);
    }
}

#[test]
fn a_data_folder_that_cannot_be_written_is_refused() {
    need_root!();
    let machine = Portolan::unprivileged();
    let closed = machine.folder().join("closed");
    std::fs::create_dir(&closed).expect("a folder");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let said = machine.portolan(&["up", "--data", closed.to_str().expect("a path")]).failure(1);
    assert!(said.contains("closed") && said.contains("--data"), "{said}");
}

#[test]
fn a_network_of_its_own_needs_root() {
    need_root!();
    let machine = Portolan::unprivileged();
    let _up = machine.up(&[]);
    let said = machine.portolan(&["run", "--network", "own", "-p", "web", "--", "true"]).failure(1);
    assert!(said.contains("root") && said.contains("--network host"), "{said}");
}

#[test]
fn root_without_the_capability_is_told_so() {
    need_root!();
    let machine = Portolan::new();
    // As in a container that may not change the network: root, but not its powers.
    let mut command = machine.program("setpriv");
    command.args(["--bounding-set=-net_admin,-sys_admin", "--inh-caps=-net_admin,-sys_admin", "--"]);
    command.arg(portolan_testkit::binary()).arg("up");
    let mut up = Background::start(&mut command);
    machine.wait_ready(&mut up);
    let said = machine.portolan(&["run", "--network", "own", "-p", "web", "--", "true"]);
    assert!(!said.status.success());
    assert!(said.stderr.contains("CAP_NET_ADMIN"), "{}", said.stderr);
    machine.portolan(&["run", "--network", "host", "-p", "web", "--", "true"]).success();
}

#[test]
fn without_up_every_verb_says_how_to_start_it() {
    need_root!();
    let machine = Portolan::new();
    for words in [&["list"][..], &["ports"], &["get", "web"], &["run", "-p", "web", "--", "true"]] {
        let said = machine.portolan(words).failure(1);
        assert!(said.contains("portolan up"), "{words:?}: {said}");
    }
}

#[test]
fn a_command_that_never_becomes_healthy_is_stopped() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let mut run = machine.start(&[
        "run",
        "-p",
        "web",
        "--health",
        "tcp,interval=1s",
        "--ready-timeout",
        "2s",
        "--restart",
        "no",
        "--",
        "sleep",
        "1000",
    ]);
    let status = run.wait(PATIENCE);
    assert!(!status.success());
    assert!(run.stderr().contains("not healthy"), "{}", run.transcript());
    assert!(leases(&machine).is_empty());
}

#[test]
fn a_journal_that_was_cut_in_the_middle_is_used_as_far_as_it_goes() {
    need_root!();
    let machine = Portolan::new();
    let mut up = machine.up(&[]);
    let _run = machine.start(&["run", "--name", "web", "-p", "http", "--", "sleep", "1000"]);
    host_port(&machine, "web", "http");
    up.signal(rustix::process::Signal::KILL);
    up.wait(PATIENCE);
    // The last bytes of every journal are lost, as when the power went.
    let found =
        programs::run(machine.program("find").arg(machine.data()).args(["-name", "*journal*", "-type", "f"]));
    assert!(!found.is_empty(), "no journal in the data folder");
    for path in found.lines() {
        let bytes = std::fs::read(path).expect("a journal");
        std::fs::write(path, &bytes[..bytes.len().saturating_sub(5)]).expect("a shorter journal");
    }
    let _up = machine.up(&[]);
    machine.portolan(&["run", "--name", "other", "-p", "http", "--", "true"]).success();
}
