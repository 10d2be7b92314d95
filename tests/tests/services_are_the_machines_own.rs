//! Services of `up` on their machine: what `trace` says of them, ports that are nobody else's, health checks for load
//! balancers, and processes of the machine itself.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use portolan_testkit::{Portolan, ask, eventually, eventually_ok, need_root, net::Namespace};
use portolan_tests::{
    machine::Picture,
    services::{cluster_address, copies, service, up, wait_answers, web, who, write},
    world::{CLIENT, MACHINE, PATIENCE, array, connected, json, wait_passing},
};
use serde_json::Value;

const NODE_PORT: u16 = 30080;

fn node_port(more: &str) -> String {
    let pinned = format!("targetPort: http, nodePort: {NODE_PORT}");
    web(&format!("  type: NodePort\n{more}")).replace("targetPort: http", &pinned)
}

fn trace(machine: &Portolan, words: &[&str]) -> Value {
    json(&machine.portolan(&[&["trace", "-o", "json"], words].concat()).success())
}

#[test]
fn what_trace_says_of_a_service_of_up_is_what_happens() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let nobody = "---\n{apiVersion: v1, kind: Service, metadata: {name: nobody}, spec: {clusterIP: 10.250.0.9, selector: {app: none}, ports: [{port: 80}]}}\n";
    let file = write(&machine, "services.yaml", &format!("{}{nobody}", node_port("")));
    let _up = up(&machine, &file, &["--service-cidr", "10.250.0.0/24"]);
    let _copies = copies(&machine, "web", 3);
    wait_passing(&machine, 3);
    let cluster = SocketAddr::new(cluster_address(&machine, "web"), 80);
    wait_answers(machine.namespace(), cluster, &["web-0", "web-1", "web-2"]);
    world.route("10.250.0.0/24 via 192.0.2.1");
    let client = CLIENT.to_string();
    let port = SocketAddr::from((MACHINE, NODE_PORT));

    // By name, by address and by node port; from the machine, and from another one.
    for (from, to, asked, who_asks) in [
        ("node", "default/web", cluster, machine.namespace()),
        (client.as_str(), "default/web:http", cluster, &world),
        (client.as_str(), &port.to_string(), port, &world),
        ("node", ":30080", port, machine.namespace()),
    ] {
        let said = trace(&machine, &[from, to]);
        assert_eq!(said["frontend"]["service"], "default/web", "{from} {to}: {said:#}");
        assert_eq!(said["packet"]["destination"], asked.to_string(), "{said:#}");
        let endings = array(&said["outcomes"]);
        assert_eq!(endings.len(), 3, "one for each copy: {said:#}");
        assert!(endings.iter().all(|ending| ending["translated"] == true), "{said:#}");
        assert_eq!(array(&said["endpoints"]).iter().filter(|one| one["used"] == true).count(), 3, "{said:#}");
        wait_answers(who_asks, asked, &["web-0", "web-1", "web-2"]);
    }
    let refused = trace(&machine, &[&client, "10.250.0.9:80"]);
    assert_eq!(refused["outcomes"][0]["what"], "rejected", "{refused:#}");
    // The kernel sends one such error in a second to a destination (icmp(7)).
    let refused = || {
        let answer = ask::tcp(SocketAddr::from(([10, 250, 0, 9], 80)));
        answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    };
    world.run(|| eventually(PATIENCE, refused));
    let dropped = trace(&machine, &[&client, "10.250.0.77:80"]);
    assert_eq!(dropped["outcomes"][0]["what"], "dropped", "{dropped:#}");
    let live = trace(&machine, &["node", "default/web", "--live", "--send"]);
    assert_eq!(live["live"]["agrees"], true, "{live:#}");
}

#[test]
fn a_node_port_is_held_and_nobody_else_can_bind_it_while_up_is_away_either() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let both = node_port("").replace(
        "  ports:\n",
        &format!(
            "  ports:\n  - {{name: echo, port: 7, protocol: UDP, targetPort: echo, nodePort: {}}}\n",
            NODE_PORT + 1
        ),
    );
    let file = write(&machine, "services.yaml", &both);
    let before = Picture::of(&machine);
    let mut first = up(&machine, &file, &[]);
    let mut copies = copies(&machine, "web", 1);
    wait_passing(&machine, 1);
    let port = SocketAddr::from((MACHINE, NODE_PORT));
    wait_answers(&world, port, &["web"]);
    held(machine.namespace(), true);
    // It does not answer: it is only bound (F17).
    let listening = machine.namespace().command("ss").args(["-Hlnt"]).output().expect("ss");
    let listening = String::from_utf8_lossy(&listening.stdout).into_owned();
    assert!(!listening.contains(&NODE_PORT.to_string()), "{listening}");
    first.signal(rustix::process::Signal::KILL);
    first.wait(PATIENCE);
    held(machine.namespace(), true);
    let mut second = up(&machine, &file, &[]);
    wait_passing(&machine, 1);
    wait_answers(&world, port, &["web"]);
    held(machine.namespace(), true);
    // Given up, it is anybody's.
    write(&machine, "services.yaml", &web(""));
    held(machine.namespace(), false);
    machine.interrupt(&mut copies);
    assert!(machine.interrupt(&mut second).success(), "{}", second.transcript());
    Picture::of(&machine).assert_same(&before);
}

/// Waits until the ports are held, or anybody's.
#[track_caller]
fn held(machine: &Namespace, wanted: bool) {
    let tcp = || TcpListener::bind(("0.0.0.0", NODE_PORT)).is_err();
    let udp = || UdpSocket::bind(("0.0.0.0", NODE_PORT + 1)).is_err();
    machine.run(|| eventually(PATIENCE, || (tcp(), udp()) == (wanted, wanted)));
}

#[test]
fn a_load_balancer_is_told_whether_the_machine_has_copies() {
    need_root!();
    let machine = Portolan::new();
    let world = connected(&machine);
    let more = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 31999\n";
    let file = write(&machine, "services.yaml", &web(more));
    let mut up = up(&machine, &file, &[]);
    let at = SocketAddr::from((MACHINE, 31_999));
    let told = |wanted: &str| {
        let told = world.run(|| {
            eventually_ok(PATIENCE, || {
                let said = raw(at).unwrap_or_else(|error| error.to_string());
                if said.contains(wanted) { Ok(()) } else { Err(said) }
            })
        });
        assert_eq!(told, Ok(()), "instead of {wanted}");
    };
    told("503 Service Unavailable");
    let mut copies = copies(&machine, "web", 2);
    wait_passing(&machine, 2);
    told("200 OK");
    told("\"localEndpoints\":2");
    machine.interrupt(&mut copies);
    told("\"localEndpoints\":0");
    write(&machine, "services.yaml", &web(""));
    world.run(|| {
        eventually(PATIENCE, || raw(at).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
    });
    assert!(machine.interrupt(&mut up).success(), "{}", up.transcript());
}

/// Whatever it answers, whole.
fn raw(at: SocketAddr) -> io::Result<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect_timeout(&at, std::time::Duration::from_secs(2))?;
    stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
    stream.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_machine_without_a_default_route_reaches_its_own_services() {
    need_root!();
    let machine = Portolan::new();
    let _world = connected(&machine);
    for family in ["-4", "-6"] {
        machine.namespace().ip(&format!("{family} route del default"));
    }
    let both = "  ipFamilyPolicy: RequireDualStack\n";
    let file = write(&machine, "services.yaml", &web(both));
    let before = Picture::of(&machine);
    let mut up = up(&machine, &file, &[]);
    let mut copies = copies(&machine, "web", 2);
    wait_passing(&machine, 2);
    let addresses = array(&service(&machine, "web")["spec"]["clusterIPs"]);
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        let address: IpAddr = address.as_str().and_then(|text| text.parse().ok()).expect("an address");
        wait_answers(machine.namespace(), SocketAddr::new(address, 80), &["web-0", "web-1"]);
    }
    // An address that no Service has is silent, as everywhere, and does not come around for ever.
    let mut unused = cluster_address(&machine, "web").to_string();
    unused.truncate(unused.rfind('.').unwrap_or_default());
    let unused: IpAddr = format!("{unused}.254").parse().expect("an address");
    assert!(who(machine.namespace(), SocketAddr::new(unused, 80)).is_err());
    machine.interrupt(&mut copies);
    assert!(machine.interrupt(&mut up).success(), "{}", up.transcript());
    Picture::of(&machine).assert_same(&before);
}
