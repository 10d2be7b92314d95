//! The network of an instance: mapped ports of both families and protocols, outbound traffic, names.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use portolan_testkit::{Background, Portolan, ask, echo::Echo, eventually, need_root, programs};
use portolan_tests::world::{
    CLIENT, MACHINE, PATIENCE, connected, host_port, leases, page, page_at, wait_passing,
};

/// The dynamic-port server with a port for TCP and UDP.
fn server(machine: &Portolan, network: &str, name: &str) -> Background {
    let program = portolan_testkit::binary().to_str().expect("a path").to_owned();
    machine.start(&[
        "run",
        "--network",
        network,
        "--name",
        name,
        "-p",
        "http",
        "-p",
        "echo/udp",
        "--health",
        "http:/healthz,interval=1s",
        "--",
        &program,
        "serve",
        "--udp-echo",
    ])
}

#[test]
fn a_published_port_answers_in_both_families() {
    need_root!();
    for network in ["own", "host"] {
        let machine = Portolan::new();
        let world = connected(&machine);
        let _up = machine.up(&[]);
        let _server = server(&machine, network, "web");
        let (http, echo) = (host_port(&machine, "web", "http"), host_port(&machine, "web", "echo"));
        page(&world, http, "/healthz");
        let v6: IpAddr = Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1).into();
        page_at(&world, v6, http, "/healthz");
        for address in [MACHINE.into(), v6] {
            let answer = world.run(|| ask::udp(SocketAddr::new(address, echo)));
            assert!(answer.is_ok(), "{network}, {address}: {answer:?}");
        }
        // And on the machine itself.
        let local = SocketAddr::from((MACHINE, http));
        machine.namespace().run(|| ask::http_get(local, "/healthz")).expect("an answer on the machine");
    }
}

#[test]
fn what_an_instance_sends_comes_back() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let tcp = Echo::tcp(&world, "outside", &format!("{CLIENT}:0"));
    let udp = Echo::udp(&world, "outside", &format!("{CLIENT}:0"));
    let _up = machine.up(&[]);
    let ask = |target: String| {
        let script = format!("echo hi | timeout 5 socat -t 2 - {target}");
        machine
            .portolan(&["run", "--network", "own", "--restart", "no", "-p", "web", "--", "sh", "-c", &script])
            .success()
    };
    // As the outside sees it, the machine asks: the instance's own address is nobody's there.
    for target in [format!("TCP4:{}", tcp.address()), format!("UDP4:{}", udp.address())] {
        let said = ask(target);
        assert!(said.starts_with(&format!("outside {MACHINE}:")), "{said}");
    }
}

#[test]
fn names_are_resolved_inside() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&[]);
    let _server = server(&machine, "own", "web");
    let http = host_port(&machine, "web", "http");
    page(&world, http, "/healthz");
    wait_passing(&machine, 1);
    let dig = "dig +short +time=2 +tries=2 _http._tcp.web.portolan.internal SRV; getent hosts web.portolan.internal";
    let said = machine.portolan(&["run", "--network", "own", "--", "sh", "-c", dig]).success();
    assert!(said.contains(&format!(" {http} ")), "{said}");
    assert!(said.contains("web.portolan.internal"), "{said}");
}

#[test]
fn an_instance_reaches_another_by_its_published_port() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&[]);
    let _server = server(&machine, "own", "web");
    let http = host_port(&machine, "web", "http");
    page(&world, http, "/healthz");
    let ask = format!("curl -s --max-time 5 http://{MACHINE}:{http}/healthz");
    machine.portolan(&["run", "--network", "own", "--", "sh", "-c", &ask]).success();
}

#[test]
fn what_a_command_really_bound_is_said() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let bind = |port: &str| format!("socat TCP-LISTEN:{port},fork /dev/null");
    let mut good = machine.start(&[
        "run",
        "--network",
        "host",
        "--name",
        "good",
        "-p",
        "web",
        "--",
        "sh",
        "-c",
        &bind("$PORT"),
    ]);
    let said = good.wait_stderr(PATIENCE, |text| text.contains("bound"));
    assert!(said.contains("the command bound its ports"), "{said}");
    let mut bad = machine.start(&[
        "run",
        "--network",
        "host",
        "--name",
        "bad",
        "-p",
        "web",
        "--",
        "sh",
        "-c",
        &bind("9999"),
    ]);
    let said = bad.wait_stderr(PATIENCE, |text| text.contains("has not bound"));
    assert!(said.contains("9999"), "{said}");
}

#[test]
fn a_port_is_held_until_its_command_has_it() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let _idle =
        machine.start(&["run", "--network", "own", "--name", "idle", "-p", "web", "--", "sleep", "1000"]);
    let port = host_port(&machine, "idle", "web");
    let bound = machine.namespace().run(|| std::net::TcpListener::bind(("0.0.0.0", port)));
    assert_eq!(bound.expect_err("it is held").kind(), std::io::ErrorKind::AddrInUse);
    let reserved = machine.namespace().read_sysctl("net/ipv4/ip_local_reserved_ports");
    assert!(reserved.contains("20000-29999"), "{reserved}");
}

#[test]
fn sockets_are_handed_over_without_a_gap() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let script = "echo \"fds=$LISTEN_FDS mine=$([ \"$LISTEN_PID\" = $$ ] && echo yes) $(readlink /proc/$$/fd/3)\"; sleep 1000";
    let mut run = machine.start(&[
        "run",
        "--network",
        "host",
        "--name",
        "web",
        "-p",
        "web",
        "--socket-activation",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let said = run.wait_stdout(PATIENCE, |text| text.contains("fds="));
    assert!(said.starts_with("fds=1 mine=yes socket:["), "{said}");
    let port = host_port(&machine, "web", "web");
    let listening = || programs::run(machine.program("ss").args(["-Hlnt", &format!("sport = :{port}")]));
    eventually(PATIENCE, || !listening().is_empty());
}

#[test]
fn a_network_goes_away_with_its_command() {
    need_root!();
    let machine = Portolan::new();
    let _up = machine.up(&[]);
    let mut run =
        machine.start(&["run", "--network", "own", "--name", "web", "-p", "web", "--", "sleep", "1000"]);
    host_port(&machine, "web", "web");
    let namespaces = || programs::run(machine.program("ip").args(["netns", "list"]));
    assert!(namespaces().contains("portolan-web"), "{}", namespaces());
    machine.interrupt(&mut run);
    assert_eq!(namespaces(), "");
    assert!(leases(&machine).is_empty());
}
