//! Connections that were led to an endpoint which is gone.
//!
//! ```text
//! client 192.0.2.2 ── node ── 10.243.1.2 one
//!                       └──── 10.243.2.2 two
//! ```

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    thread::sleep,
    time::{Duration, Instant},
};

use portolan_apply::{
    ServiceEvent::{SetService, SetSlice},
    ServicePlane,
};
use portolan_model::{EndpointSlice, Protocol, Service};
use portolan_services::{Counting, ServicesConfig};
use portolan_testkit::{
    echo::Echo,
    eventually, need_root,
    net::{End, Namespace, link},
};

use crate::objects::{self, cluster_address, config, port, service, slice};

const SECOND: Duration = Duration::from_secs(1);

struct Site {
    client: Namespace,
    node: Namespace,
    _pods: [Namespace; 2],
    _servers: Vec<Echo>,
}

impl Site {
    fn new() -> Self {
        let [client, node, one, two] = std::array::from_fn(|_| Namespace::new());
        link(End::new(&client, "eth0", &["192.0.2.2/24"]), End::new(&node, "eth0", &["192.0.2.1/24"]));
        client.route("default via 192.0.2.1");
        node.forward();
        let mut servers = Vec::new();
        for (number, name, pod) in [(1, "one", &one), (2, "two", &two)] {
            let (here, there) = (format!("10.243.{number}.1/24"), format!("10.243.{number}.2/24"));
            link(End::new(&node, &format!("pod{number}"), &[&here]), End::new(pod, "eth0", &[&there]));
            pod.route(&format!("default via 10.243.{number}.1"));
            servers.extend([Echo::tcp(pod, name, "0.0.0.0:8080"), Echo::udp(pod, name, "0.0.0.0:8080")]);
        }
        // Where a cluster address goes that is not rewritten; without a route it would not reach the rules that refuse.
        node.route("default via 10.243.2.2");
        Self { client, node, _pods: [one, two], _servers: servers }
    }

    fn start(&self, service: Service, pods: &[u8]) -> ServicePlane {
        self.start_with(config(), service, pods)
    }

    fn start_with(&self, config: ServicesConfig, service: Service, pods: &[u8]) -> ServicePlane {
        self.node.run(|| ServicePlane::start(config, vec![service], vec![endpoints(pods)]).unwrap())
    }

    fn socket(&self) -> UdpSocket {
        self.client.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect((cluster_address(1), 53)).unwrap();
            socket.set_read_timeout(Some(SECOND)).unwrap();
            socket
        })
    }
}

/// Service 1 at these of the two Pods.
fn endpoints(pods: &[u8]) -> EndpointSlice {
    let mut slice = slice(1, []);
    let address = |number: &u8| objects::endpoint(Ipv4Addr::new(10, 243, *number, 2).into());
    slice.endpoints = pods.iter().map(address).collect();
    slice
}

/// Who answers.
fn ask(socket: &UdpSocket) -> Result<String, ErrorKind> {
    let mut answer = [0; 100];
    socket.send(b"?").map_err(|error| error.kind())?;
    let length = socket.recv(&mut answer).map_err(|error| error.kind())?;
    Ok(String::from_utf8_lossy(&answer[..length]).split(' ').next().unwrap_or_default().to_owned())
}

#[test]
fn a_client_that_never_stops_sending_loses_one_answer_at_most_when_its_endpoint_moves() {
    need_root!();
    let site = Site::new();
    let plane = site.start(service(1), &[1]);
    let socket = site.socket();
    assert_eq!(ask(&socket).unwrap(), "one");
    for _ in 0..50 {
        assert_eq!(ask(&socket).unwrap(), "one");
    }
    plane.change(vec![SetSlice(endpoints(&[2]))]).unwrap();
    // Some milliseconds, and a look at all connections: until then it is answered by the first one.
    let begun = Instant::now();
    let mut lost = 0;
    loop {
        match ask(&socket).as_deref() {
            Ok("one") => assert!(begun.elapsed() < SECOND * 5, "it does not move"),
            Ok(_) => break,
            // An answer on its way at the moment in which its flow is deleted is not translated back.
            Err(_) => lost += 1,
        }
        assert!(lost <= 1, "{lost} answers were lost");
    }
    for _ in 0..50 {
        assert_eq!(ask(&socket).unwrap(), "two");
    }
    assert!(plane.settle().unwrap());
    assert_eq!(plane.stats().flows_deleted, 1);
}

#[test]
fn a_flow_to_a_service_without_endpoints_is_refused_and_not_sent_to_the_last_one() {
    need_root!();
    let site = Site::new();
    let plane = site.start(service(1), &[1]);
    let socket = site.socket();
    assert_eq!(ask(&socket).unwrap(), "one");
    plane.change(vec![SetSlice(endpoints(&[]))]).unwrap();
    eventually(SECOND, || ask(&socket) == Err(ErrorKind::ConnectionRefused));
    plane.change(vec![SetSlice(endpoints(&[2]))]).unwrap();
    eventually(SECOND, || ask(&socket).as_deref() == Ok("two"));
}

#[test]
fn flows_go_on_over_a_restart_and_changes_of_others() {
    need_root!();
    let site = Site::new();
    let plane = site.start(service(1), &[1, 2]);
    let sockets: Vec<UdpSocket> = (0..20).map(|_| site.socket()).collect();
    let before: Vec<String> = sockets.iter().map(|socket| ask(socket).unwrap()).collect();
    plane.leave();
    let plane = site.start(service(1), &[2, 1]);
    // Another Service, and a terminating endpoint that still serves.
    plane.change(vec![SetService(service(2)), SetSlice(slice(2, [7]))]).unwrap();
    let mut leaving = endpoints(&[1, 2]);
    (leaving.endpoints[0].ready, leaving.endpoints[0].terminating) = (false, true);
    plane.change(vec![SetSlice(leaving)]).unwrap();
    assert!(plane.settle().unwrap());
    assert_eq!(plane.stats().flows_deleted, 0);
    let after: Vec<String> = sockets.iter().map(|socket| ask(socket).unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn many_thousand_flows_are_judged_while_changes_go_on() {
    need_root!();
    let site = Site::new();
    let plane = site.start(service(1), &[1]);
    // As many as there is room for, or enough: a full table drops new connections, not the deletion of old ones.
    let room: u32 = site.node.read_sysctl("net/netfilter/nf_conntrack_max").parse().unwrap();
    let wanted = room.min(60_000);
    site.client.run(|| {
        for port in 0..wanted {
            let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
            socket.send_to(b"?", (cluster_address(1), 53)).unwrap();
            if port % 1000 == 0 {
                sleep(Duration::from_millis(1));
            }
        }
    });
    let tracked: u64 = site.node.read_sysctl("net/netfilter/nf_conntrack_count").parse().unwrap();
    assert!(tracked > 10_000, "{tracked}");
    plane.change(vec![SetSlice(endpoints(&[2]))]).unwrap();
    // The owner goes on meanwhile.
    let mut longest = Duration::ZERO;
    for n in 0..200 {
        let start = Instant::now();
        plane.change(vec![SetService(service(10 + n % 3)), SetSlice(slice(10 + n % 3, [n]))]).unwrap();
        longest = longest.max(start.elapsed());
    }
    assert!(longest < SECOND / 2, "a change waited {longest:?}");
    eventually(SECOND * 20, || plane.settle().unwrap() && plane.stats().flows_deleted * 10 >= tracked * 9);
    assert_eq!(ask(&site.socket()).unwrap(), "two");
}

#[test]
fn connections_to_an_endpoint_that_is_gone_are_reset_after_their_services_time() {
    need_root!();
    let site = Site::new();
    let mut drains = service(1);
    drains.options.drain = Some(SECOND);
    let plane = site.start(drains, &[1]);
    let connect = || {
        let mut stream = site.client.run(|| TcpStream::connect((cluster_address(1), 80)).unwrap());
        stream.set_read_timeout(Some(SECOND * 5)).unwrap();
        assert!(greeting(&mut stream).starts_with("one"));
        stream
    };
    let (mut busy, mut back) = (connect(), connect());
    let begun = Instant::now();
    plane.change(vec![SetSlice(endpoints(&[2]))]).unwrap();
    assert_eq!(plane.stats().draining, 1);
    // It goes on for that time, and is reset then.
    let mut error = None;
    while error.is_none() && begun.elapsed() < SECOND * 5 {
        error = speak(&mut busy).err();
        sleep(Duration::from_millis(20));
    }
    assert!(begun.elapsed() >= SECOND, "{:?} after {:?}", error, begun.elapsed());
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    // An endpoint that is back is left alone.
    plane.change(vec![SetSlice(endpoints(&[1, 2]))]).unwrap();
    assert_eq!(plane.stats().draining, 0);
    speak(&mut back).unwrap();
}

#[test]
fn without_that_wish_connections_go_on() {
    need_root!();
    let site = Site::new();
    let plane = site.start(service(1), &[1]);
    let mut stream = site.client.run(|| TcpStream::connect((cluster_address(1), 80)).unwrap());
    assert!(greeting(&mut stream).starts_with("one"));
    plane.change(vec![SetSlice(endpoints(&[2]))]).unwrap();
    assert!(plane.settle().unwrap());
    speak(&mut stream).unwrap();
    plane.change(vec![SetSlice(endpoints(&[]))]).unwrap();
    speak(&mut stream).unwrap();
}

#[test]
fn what_comes_by_frontends_and_endpoints_is_counted() {
    need_root!();
    for counting in [Counting::Connections, Counting::Traffic] {
        let site = Site::new();
        let mut service = service(1);
        service.ports[0] = port(Protocol::Tcp, 80, Some(30_080));
        service.kind = portolan_model::ServiceType::NodePort;
        let plane = site.start_with(ServicesConfig { counting, ..config() }, service, &[1, 2]);
        for target in [(cluster_address(1), 80), ("192.0.2.1".parse().unwrap(), 30_080)] {
            for _ in 0..10 {
                let mut stream = site.client.run(|| TcpStream::connect(target).unwrap());
                greeting(&mut stream);
                speak(&mut stream).unwrap();
            }
        }
        let counts = plane.counters().unwrap();
        let connections: Vec<u64> = counts.frontends.iter().map(|one| one.counts.connections).collect();
        assert_eq!(connections, [10, 10], "{counts:?}");
        let to: u64 = counts.backends.iter().map(|one| one.connections).sum();
        assert_eq!((to, counts.backends.len()), (20, 2), "{counts:?}");
        assert!(counts.backends.iter().all(|one| one.service == objects::name(1)));
        let bytes: u64 = counts.frontends.iter().map(|one| one.counts.received_bytes).sum();
        assert_eq!(bytes > 0, counting == Counting::Traffic, "{counts:?}");
        // A repair begins at 0, and a change of another Service takes nothing away.
        plane.change(vec![SetService(crate::objects::service(3)), SetSlice(slice(3, [1]))]).unwrap();
        let after = plane.counters().unwrap();
        assert_eq!(after.backends, counts.backends);
        assert_eq!(after.frontends.len(), counts.frontends.len(), "{after:?}");
        for (now, then) in after.frontends.iter().zip(&counts.frontends) {
            assert_eq!((&now.front, now.counts.connections), (&then.front, then.counts.connections));
            // The last packets of a connection that was closed may come after the first look.
            assert!(now.counts.received_bytes >= then.counts.received_bytes, "{now:?}, after {then:?}");
            assert!(now.counts.sent_bytes >= then.counts.sent_bytes, "{now:?}, after {then:?}");
        }
    }
}

fn greeting(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with('\n') {
        stream.read_exact(&mut byte).unwrap();
        text.push(char::from(byte[0]));
    }
    text
}

/// Sends a byte and gets it back.
fn speak(stream: &mut TcpStream) -> Result<(), ErrorKind> {
    let mut byte = [0];
    stream.write_all(b"x").map_err(|error| error.kind())?;
    stream.read_exact(&mut byte).map_err(|error| error.kind())
}
