//! The test kit itself: networks connect, servers answer, nothing is left behind.

use std::{net::SocketAddr, time::Duration};

use portolan_testkit::{
    Background, ask,
    echo::Echo,
    need_root,
    net::{End, Namespace, link, private_machine, private_namespace},
    nft, programs,
};

fn socket(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn two_namespaces_talk_over_both_families_and_protocols() {
    need_root!();
    let (one, other) = (Namespace::new(), Namespace::new());
    link(
        End::new(&one, "eth0", &["10.9.0.1/24", "fd09::1/64"]),
        End::new(&other, "eth1", &["10.9.0.2/24", "fd09::2/64"]),
    );
    for address in ["10.9.0.2:0", "[fd09::2]:0"] {
        let tcp = Echo::tcp(&other, "answerer", address);
        let answer = one.run(|| ask::tcp(tcp.address())).expect("an answer over TCP");
        assert!(
            answer.starts_with("answerer ")
                && (answer.contains("10.9.0.1:") || answer.contains("[fd09::1]:"))
        );
        let udp = Echo::udp(&other, "answerer", address);
        let answer = one.run(|| ask::udp(udp.address())).expect("an answer over UDP");
        assert!(answer.contains("10.9.0.1:") || answer.contains("[fd09::1]:"), "{answer}");
        assert_eq!(udp.answered(), 1);
    }
}

#[test]
fn a_router_forwards_between_its_links() {
    need_root!();
    let (client, router, server) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(End::new(&client, "eth0", &["10.8.1.2/24"]), End::new(&router, "left", &["10.8.1.1/24"]));
    link(End::new(&router, "right", &["10.8.2.1/24"]), End::new(&server, "eth0", &["10.8.2.2/24"]));
    router.forward();
    client.route("default via 10.8.1.1");
    server.route("default via 10.8.2.1");
    let echo = Echo::tcp(&server, "far", "10.8.2.2:0");
    let answer = client.run(|| ask::tcp(echo.address())).expect("an answer through the router");
    assert!(answer.contains("10.8.1.2:"), "{answer}");
}

#[test]
fn a_namespace_goes_away_with_its_value() {
    need_root!();
    let namespace = Namespace::new();
    let path = namespace.path();
    assert!(path.exists());
    drop(namespace);
    assert!(!path.exists());
}

#[test]
fn a_panic_inside_is_a_panic_outside() {
    need_root!();
    let namespace = Namespace::new();
    let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("from inside")));
    let panic = caught.expect_err("a panic");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"from inside"));
}

#[test]
fn private_namespaces_are_empty_and_their_own() {
    need_root!();
    let rules = private_namespace(|| {
        nft::load("table inet mine { }");
        nft::nft("list tables")
    });
    assert_eq!(rules, "table inet mine\n");
    assert_eq!(private_namespace(|| nft::nft("list tables")), "");
}

#[test]
fn a_private_machine_has_named_namespaces_of_its_own() {
    need_root!();
    private_machine(|| {
        let folder = || std::fs::read_dir("/run/netns").expect("the folder").count();
        assert_eq!(folder(), 0);
        programs::run(&mut programs::command("ip", ["netns", "add", "same-name"]));
        assert_eq!(folder(), 1);
        programs::run(&mut programs::command("ip", ["netns", "del", "same-name"]));
    });
    assert!(!std::path::Path::new("/run/netns/same-name").exists());
}

#[test]
fn commands_run_inside_and_end_with_their_value() {
    need_root!();
    let namespace = Namespace::new();
    namespace.ip("link add probe0 type veth peer name probe1");
    let links = programs::run(namespace.command("ip").args(["-brief", "link"]));
    assert!(links.contains("probe0"), "{links}");

    let mut sleeper = Background::start(namespace.command("sleep").arg("1000"));
    assert!(sleeper.is_running());
    let pid = sleeper.pid();
    drop(sleeper);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn nobody_answers_at_a_closed_port() {
    need_root!();
    let namespace = Namespace::new();
    let short = Duration::from_millis(500);
    namespace.run(|| {
        assert!(ask::tcp_within(socket("127.0.0.1:9"), short).is_err());
        assert!(ask::udp_within(socket("127.0.0.1:9"), short).is_err());
    });
}

#[test]
fn the_oracle_shows_the_bytecode_of_a_rule() {
    need_root!();
    let code = private_namespace(|| nft::debug_rule("", "", "tcp dport 80 accept"));
    assert_eq!(
        code,
        [
            "meta load l4proto => reg 1",
            "cmp eq reg 1 0x00000006",
            "payload load 2b @ transport header + 2 => reg 1",
            "cmp eq reg 1 0x00005000",
            "immediate reg 0 accept",
        ]
    );
}
