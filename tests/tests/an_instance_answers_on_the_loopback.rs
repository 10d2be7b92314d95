//! `portolan up --localhost`: programs of the machine reach published ports by 127.0.0.1 and [::1] too.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use portolan_testkit::{Portolan, ask, eventually_ok, need_root};
use portolan_tests::world::{connected, host_port, page};

const SOON: Duration = Duration::from_secs(10);

/// Runs the dynamic-port server on a static port, and gives its supervisor.
fn serve(machine: &Portolan, name: &str) -> portolan_testkit::Background {
    let program = portolan_testkit::binary().to_string_lossy().into_owned();
    let words = ["run", "--network", "own", "--name", name, "-p", "http=18080", "-p", "echo/udp", "--"];
    let mut words: Vec<&str> = words.to_vec();
    words.extend([program.as_str(), "serve", "--udp-echo"]);
    machine.start(&words)
}

#[test]
fn published_ports_answer_on_the_loopback_and_are_free_for_the_next() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&["--localhost", "--quarantine", "0"]);
    for name in ["first", "second"] {
        let mut server = serve(&machine, name);
        let http = host_port(&machine, name, "http");
        for to in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, http)), SocketAddr::from((Ipv6Addr::LOCALHOST, http))]
        {
            let answer = eventually_ok(SOON, || machine.namespace().run(|| ask::http_get(to, "/healthz")));
            assert!(answer.is_ok(), "{name} at {to}: {answer:?}");
        }
        let echo = SocketAddr::from((Ipv4Addr::LOCALHOST, host_port(&machine, name, "echo")));
        let answer = eventually_ok(SOON, || machine.namespace().run(|| ask::udp(echo)));
        assert!(answer.is_ok(), "{name} at {echo}: {answer:?}");
        page(&world, http, "/healthz");
        machine.interrupt(&mut server);
    }
}

#[test]
fn without_it_nobody_answers_there() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let _up = machine.up(&[]);
    let _server = serve(&machine, "web");
    let http = host_port(&machine, "web", "http");
    page(&world, http, "/healthz");
    let refused =
        machine.namespace().run(|| ask::http_get(SocketAddr::from((Ipv4Addr::LOCALHOST, http)), "/"));
    assert!(refused.is_err(), "{refused:?}");
}
