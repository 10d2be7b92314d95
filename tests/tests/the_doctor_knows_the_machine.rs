//! `portolan doctor` says what the machine allows, what is in the way, and how to mend it.

use std::net::TcpListener;

use portolan_testkit::{Portolan, need_root, programs};
use portolan_tests::{machine::Picture, world::json};

#[test]
fn a_machine_where_all_is_well_passes_and_is_left_as_it_was() {
    need_root!();
    let machine = Portolan::new();
    let before = Picture::of(&machine);
    let said = machine.portolan(&["doctor"]).success();
    for line in [
        "ok    privileges: CAP_NET_ADMIN and CAP_SYS_ADMIN",
        "ok    network namespaces can be made",
        "ok    nftables can be written",
        "ok    nftables: look-ups of local addresses (fib)",
        "ok    127.0.0.1:10053/udp: free",
        "ok    nothing is left from an earlier `portolan up`",
    ] {
        assert!(said.lines().any(|said| said == line), "no {line:?} in {said}");
    }
    Picture::of(&machine).assert_same(&before);
}

#[test]
fn another_firewall_that_drops_is_named_with_the_rule_that_helps() {
    need_root!();
    let machine = Portolan::new();
    let rules = "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }";
    programs::run(machine.program("nft").arg(rules));
    let said = machine.portolan(&["doctor"]).success();
    let line = said.lines().find(|line| line.starts_with("warn  the chain ip filter FORWARD"));
    let (_, mend) = line.and_then(|line| line.split_once("  —  ")).unwrap_or_else(|| panic!("{said}"));
    // The rule that it proposes is one that nft takes.
    let rule = mend.split_once("nft ").unwrap_or_else(|| panic!("{mend}")).1;
    programs::run(machine.program("nft").arg(rule));
}

#[test]
fn a_taken_address_fails_and_names_the_process() {
    need_root!();
    let machine = Portolan::new();
    let _taken = machine.namespace().run(|| TcpListener::bind("127.0.0.1:10080")).expect("a listener");
    let output = machine.portolan(&["doctor", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let findings = json(&output.stdout);
    let fail = findings.as_array().and_then(|all| all.iter().find(|finding| finding["level"] == "fail"));
    let what = fail.map(|finding| finding["what"].to_string()).unwrap_or_default();
    assert!(
        what.contains("127.0.0.1:10080/tcp") && what.contains(&std::process::id().to_string()),
        "{findings:#}"
    );
}

#[test]
fn a_running_up_is_no_trouble_and_a_killed_one_is_told() {
    need_root!();
    let machine = Portolan::new();
    let mut up = machine.up(&[]);
    let said = machine.portolan(&["doctor"]).success();
    let expected = format!("ok    127.0.0.1:10080/tcp: `portolan up` (pid {}) listens", up.pid());
    assert!(said.contains(&expected), "{said}");
    up.signal(rustix::process::Signal::KILL);
    up.wait(portolan_tests::world::PATIENCE);
    let said = machine.portolan(&["doctor"]).success();
    assert!(said.contains("the table inet portolan is there, but no `portolan up` runs"), "{said}");
}

#[test]
fn without_privileges_it_says_what_is_left_to_do() {
    need_root!();
    let machine = Portolan::unprivileged();
    let said = machine.portolan(&["doctor"]).success();
    assert!(said.contains("warn  privileges: no CAP_NET_ADMIN and CAP_SYS_ADMIN"), "{said}");
    assert!(said.contains("--network host"), "{said}");
}
