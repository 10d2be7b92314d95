//! `portolan relay`: Services without privileges, in user space.

use std::{
    collections::BTreeSet,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use portolan_testkit::{
    Background, Portolan, ask, echo::Echo, eventually, eventually_ok, need_root, net::Namespace,
};
use portolan_tests::world::{MACHINE, PATIENCE, connected};
use rustix::process::Signal;

const NODE_PORT: u16 = 30080;

/// A Service with a node port for TCP and UDP, and these endpoints of it.
fn manifest(tcp: &[SocketAddr], udp: &[SocketAddr], more: &str) -> String {
    let slices = [("tcp", tcp), ("udp", udp)].map(|(protocol, all)| {
        let slices = all.iter().enumerate().map(|(n, address)| {
            format!(
                "---\n{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{name: {protocol}-{n}, labels: {{kubernetes.io/service-name: web}}}}, addressType: IPv4, ports: [{{name: {protocol}, protocol: {}, port: {}}}], endpoints: [{{addresses: [{}]}}]}}\n",
                protocol.to_uppercase(),
                address.port(),
                address.ip(),
            )
        });
        slices.collect::<String>()
    });
    format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: web}}, spec: {{type: NodePort, {more} ports: [{{name: tcp, port: 80, nodePort: {NODE_PORT}}}, {{name: udp, protocol: UDP, port: 80, nodePort: {NODE_PORT}}}]}}}}\n{}",
        slices.concat()
    )
}

fn write(machine: &Portolan, text: &str) -> String {
    let (path, new) = (machine.folder().join("services.yaml"), machine.folder().join("new"));
    std::fs::write(&new, text).expect("a file");
    std::fs::rename(&new, &path).expect("another name");
    path.to_str().expect("a path").to_owned()
}

/// A relay that listens.
fn relay(machine: &Portolan, file: &str, more: &[&str]) -> Background {
    let mut relay = machine.start(&[&["relay", "-f", file, "--log-level", "info"], more].concat());
    relay.wait_stderr(PATIENCE, |text| text.contains("web:tcp on "));
    relay
}

fn at() -> SocketAddr {
    SocketAddr::from((MACHINE, NODE_PORT))
}

fn names(world: &Namespace, ask: impl Fn(SocketAddr) -> io::Result<String> + Sync) -> BTreeSet<String> {
    let name = |answer: String| answer.split_whitespace().next().unwrap_or_default().to_owned();
    world.run(|| (0..40).filter_map(|_| ask(at()).ok().map(name)).collect())
}

fn set(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn node_ports_are_served_without_privileges_and_follow_the_file() {
    need_root!();
    let machine = Portolan::unprivileged();
    let world = connected(&machine);
    let tcp = ["a", "b"].map(|name| Echo::tcp(machine.namespace(), name, "127.0.0.1:0"));
    let udp = ["c", "d"].map(|name| Echo::udp(machine.namespace(), name, "127.0.0.1:0"));
    let (tcp_at, udp_at) = (tcp.each_ref().map(Echo::address), udp.each_ref().map(Echo::address));
    let file = write(&machine, &manifest(&tcp_at, &udp_at, ""));
    let mut relay = relay(&machine, &file, &["--metrics-listen", "127.0.0.1:9090"]);
    assert_eq!(names(&world, ask::tcp), set(&["a", "b"]));
    assert_eq!(names(&world, ask::udp), set(&["c", "d"]));
    // Both families, whatever the endpoints have.
    let v6: SocketAddr = "[fd02::1]:30080".parse().expect("an address");
    world.run(|| ask::tcp(v6)).expect("an answer");
    let metrics =
        machine.namespace().run(|| ask::http_get("127.0.0.1:9090".parse().expect("an address"), "/metrics"));
    let metrics = metrics.expect("metrics");
    assert!(metrics.contains("portolan_relay_opened_total{service=\"default/web:tcp\",listen=\"0.0.0.0:30080\",protocol=\"tcp\"} 40"), "{metrics}");

    write(&machine, &manifest(&tcp_at[..1], &udp_at, ""));
    let only = || names(&world, ask::tcp) == set(&["a"]);
    eventually(PATIENCE, only);
    write(&machine, "kind: [");
    let said = relay.wait_stderr(PATIENCE, |text| text.contains("still holds"));
    assert!(said.contains("services.yaml:1"), "{said}");
    assert_eq!(names(&world, ask::tcp), set(&["a"]));
    // Nobody is left: clients are told.
    write(&machine, &manifest(&[], &[], ""));
    let refused = || ask::tcp(at()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    world.run(|| eventually(PATIENCE, refused));
}

#[test]
fn affinity_and_source_ranges_of_the_file_hold() {
    need_root!();
    let machine = Portolan::unprivileged();
    let world = connected(&machine);
    let echoes: Vec<Echo> =
        (0..6).map(|n| Echo::tcp(machine.namespace(), &format!("n{n}"), "127.0.0.1:0")).collect();
    let addresses: Vec<SocketAddr> = echoes.iter().map(Echo::address).collect();
    let file = write(&machine, &manifest(&addresses, &[], "sessionAffinity: ClientIP,"));
    let _relay = relay(&machine, &file, &[]);
    assert_eq!(names(&world, ask::tcp).len(), 1);
    let text = manifest(&addresses, &[], "").replace(
        "metadata: {name: web}",
        "metadata: {name: web, annotations: {portolan.dev/node-source-ranges: 198.51.100.0/24}}",
    );
    write(&machine, &text);
    world.run(|| eventually(PATIENCE, || ask::tcp(at()).is_err()));
}

#[test]
fn another_address_and_the_proxy_protocol_are_flags() {
    need_root!();
    let machine = Portolan::unprivileged();
    let world = connected(&machine);
    let listener = machine.namespace().run(|| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let backend = listener.local_addr().expect("an address");
    let server = thread::spawn(move || {
        let mut all = String::new();
        listener.accept().expect("a client").0.read_to_string(&mut all).expect("text");
        all
    });
    let file = write(&machine, &manifest(&[backend], &[], ""));
    let words = ["--listen", "web:tcp=192.0.2.1:8080", "--no-node-ports", "--proxy-protocol", "v1"];
    let _relay = relay(&machine, &file, &words);
    let to: SocketAddr = "192.0.2.1:8080".parse().expect("an address");
    let client = world.run(|| {
        assert!(ask::tcp_within(at(), Duration::from_secs(1)).is_err(), "no node ports were asked for");
        let mut stream = TcpStream::connect(to).expect("a connection");
        stream.write_all(b"hello").expect("bytes");
        stream.local_addr().expect("an address")
    });
    let said = server.join().expect("a server");
    assert_eq!(said, format!("PROXY TCP4 192.0.2.2 192.0.2.1 {} 8080\r\nhello", client.port()));
}

#[test]
fn a_signal_takes_nobody_new_and_lets_connections_end() {
    need_root!();
    let machine = Portolan::unprivileged();
    let world = connected(&machine);
    let echo = Echo::tcp(machine.namespace(), "a", "127.0.0.1:0");
    let file = write(&machine, &manifest(&[echo.address()], &[], ""));
    let mut relay = relay(&machine, &file, &[]);
    let mut stream = world.run(|| TcpStream::connect(at()).expect("a connection"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let mut greeting = [0; 64];
    assert!(stream.read(&mut greeting).expect("a greeting") > 0);
    relay.signal(Signal::TERM);
    let refused = || ask::tcp(at()).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    world.run(|| eventually(PATIENCE, refused));
    stream.write_all(b"still there").expect("bytes");
    let mut answer = [0; 11];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"still there");
    assert!(relay.is_running());
    drop(stream);
    assert!(relay.wait(PATIENCE).success());
}

#[test]
fn what_is_in_the_way_is_told() {
    need_root!();
    let machine = Portolan::unprivileged();
    let world = connected(&machine);
    let echo = Echo::tcp(machine.namespace(), "a", "127.0.0.1:0");
    let taken = machine.namespace().run(|| TcpListener::bind(("0.0.0.0", NODE_PORT)).expect("a port"));
    let file = write(&machine, &manifest(&[echo.address()], &[], ""));
    let mut relay = machine.start(&[
        "relay",
        "-f",
        &file,
        "--listen",
        "other=0.0.0.0:8080",
        "--listen",
        "web:x=0.0.0.0:8081",
        "--listen",
        "web:tcp=0.0.0.0:80",
    ]);
    let said = relay.wait_stderr(PATIENCE, |text| text.contains(":80/tcp"));
    for line in [
        "cannot serve default/web:tcp on 0.0.0.0:30080/tcp: the port is in use",
        "--listen default/other: no file has a Service of that name",
        "--listen default/web: it has no port x, but tcp, udp",
        "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    // Given up, it is served.
    drop(taken);
    world.run(|| eventually_ok(PATIENCE, || ask::tcp(at()))).expect("an answer");
    let said = machine.portolan(&["relay", "-f", "/nowhere"]).stderr;
    assert!(said.contains("/nowhere: cannot be read"), "{said}");
    let said = machine.portolan(&["relay", "-f", &file, "--listen", "web"]).stderr;
    assert!(said.contains("write web=0.0.0.0:8080"), "{said}");
}
