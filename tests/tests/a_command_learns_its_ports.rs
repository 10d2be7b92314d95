//! `portolan run`: the command knows its ports before it starts, and `run` ends as the command does.

use std::collections::BTreeMap;

use portolan_testkit::{Portolan, need_root};
use portolan_tests::world::{array, connected, json, leases};

/// The environment that a command printed by `env`.
fn environment(said: &str) -> BTreeMap<String, String> {
    said.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

const SHOW: &str = "env; echo \"FILE=$(tr -d '\\n' < $PORTOLAN_PORTS_FILE)\"";

fn a_command_is_told_everything(machine: &Portolan, network: &str) {
    let _up = machine.up(&[]);
    let said = machine
        .portolan(&[
            "run",
            "--network",
            network,
            "--name",
            "web",
            "-p",
            "http/tcp+udp",
            "-p",
            "media/udp:8",
            "--",
            "sh",
            "-c",
            SHOW,
        ])
        .success();
    let environment = environment(&said);
    let get = |name: &str| {
        environment.get(name).map(String::as_str).unwrap_or_else(|| panic!("no {name} in {said}"))
    };
    let http: u16 = get("PORTOLAN_PORT_HTTP").parse().expect("a port");
    assert!((20_000..30_000).contains(&http), "{http}");
    assert!(get("PORTOLAN_ADDR_HTTP").ends_with(&format!(":{http}")), "{}", get("PORTOLAN_ADDR_HTTP"));
    let (first, last) = get("PORTOLAN_PORT_MEDIA").split_once('-').expect("a block");
    let (first, last): (u16, u16) = (first.parse().expect("a port"), last.parse().expect("a port"));
    assert_eq!((last - first, first % 8), (7, 0), "eight ports, aligned");
    get("PORT").parse::<u16>().expect("the first port");
    assert_eq!(get("PORTOLAN_INSTANCE"), "web");
    assert_eq!(get("PORTOLAN_NETWORK"), network);

    let ports = json(get("PORTOLAN_PORTS"));
    assert_eq!(array(&ports).len(), 2);
    assert_eq!(ports[0]["host"], http.to_string());
    assert_eq!(json(get("FILE")), ports, "the file says the same");

    assert!(leases(machine).is_empty(), "the ports are given back at the end");
}

#[test]
fn in_a_network_of_its_own() {
    need_root!();
    a_command_is_told_everything(&Portolan::new(), "own");
}

#[test]
fn on_the_network_of_the_host() {
    need_root!();
    a_command_is_told_everything(&Portolan::new(), "host");
}

#[test]
fn on_the_network_of_the_host_without_privileges() {
    need_root!();
    a_command_is_told_everything(&Portolan::unprivileged(), "host");
}

#[test]
fn the_first_port_is_where_the_command_shall_listen() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let run = |network: &str, port: &str| {
        let words =
            ["run", "--network", network, "-p", port, "--", "sh", "-c", "echo $PORT $PORTOLAN_PORT_WEB"];
        machine.portolan(&words).success()
    };
    assert!(run("own", "web=:8080").starts_with("8080 2"), "the container port");
    let said = run("host", "web");
    let (port, host) = said.trim().split_once(' ').expect("two words");
    assert_eq!(port, host, "the host port itself");
}

#[test]
fn run_ends_with_the_code_of_the_command() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    for network in ["own", "host"] {
        let run =
            |command: &[&str]| machine.portolan(&[&["run", "--network", network, "--"], command].concat());
        assert_eq!(run(&["true"]).status.code(), Some(0));
        assert_eq!(run(&["sh", "-c", "exit 7"]).status.code(), Some(7));
        assert_eq!(run(&["sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    }
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_is_no_program_126() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let said = machine.portolan(&["run", "-p", "web", "--", "no-such-program"]).failure(127);
    assert!(said.contains("no-such-program") && said.contains("not found"), "{said}");
    let file = machine.folder().join("notes");
    std::fs::write(&file, "no program").expect("a file");
    let said = machine.portolan(&["run", "-p", "web", "--", file.to_str().expect("a path")]).failure(126);
    assert!(said.contains("not executable"), "{said}");
    assert!(leases(&machine).is_empty());
}

#[test]
fn output_of_the_command_is_its_own() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    let _up = machine.up(&[]);
    let output = machine.portolan(&["run", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!(output.stdout, "out\n", "standard output is the command's alone");
    assert!(output.stderr.lines().any(|line| line == "err"), "{}", output.stderr);
}
