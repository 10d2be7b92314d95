//! F33 to F36: what becomes of connections that are there when endpoints change.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use portolan_testkit::eventually_ok;
use serde_json::json;

use super::{NODE, OUTSIDE, POD, family_name};
use crate::proxy::{
    api::Api,
    case::{Case, Scene},
    echo::{family_of, parse},
    endpoint::endpoint,
    probe::{connect, udp_by},
    service::{Protocol, Service, Target},
    world::{FAMILIES, Family, Place, node_address},
};

const UDP: Protocol = Protocol::Udp;
/// As long as the e2e tests of Kubernetes allow is a minute; nobody needs that.
const SOON: Duration = Duration::from_secs(10);

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = FAMILIES
        .into_iter()
        .flat_map(|family| datagrams(family).into_iter().chain(connections(family)))
        .collect();
    let settings =
        [("tcp_timeout_established", "86400"), ("tcp_timeout_close_wait", "3600"), ("tcp_be_liberal", "1")];
    for (name, value) in settings {
        let path = format!("net/netfilter/nf_conntrack_{name}");
        let look = move |scene: Scene<'_>| scene.world.at(NODE).read_sysctl(&path);
        cases.push(
            Case::new(format!("F35 nf_conntrack_{name} is set"), &[])
                .look("it is", look, value)
                .short_if(true),
        );
    }
    cases
}

/// A client that keeps its port.
struct Flow(UdpSocket, Target);

impl Flow {
    fn open(scene: Scene<'_>, place: Place, target: Target) -> Self {
        let source = place.address(family_of(target.address.ip()));
        let socket = scene.world.at(place).run(|| UdpSocket::bind((source, 0)));
        Self(socket.unwrap_or_else(|error| panic!("no socket at {source}: {error}")), target)
    }

    /// Who answers now.
    fn asks(&self) -> String {
        match udp_by(&self.0, self.1.address) {
            Ok(answer) => parse(&answer)
                .map_or(answer, |(name, port, _)| if port == 8080 { name } else { format!("{name}:{port}") }),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => "refused".to_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => "silence".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    fn until(&self, wanted: &str) -> String {
        let seen = eventually_ok(SOON, || {
            let seen = self.asks();
            if seen == wanted { Ok(seen) } else { Err(seen) }
        });
        seen.unwrap_or_else(|seen| seen)
    }
}

/// One flow before and after a change: what it sees at the end.
fn moved(
    name: String,
    service: &Service,
    (place, target): (Place, Target),
    change: impl Fn(&Service, &Api) + Send + Sync + 'static,
    (before, after): (&'static str, &'static str),
) -> Case {
    let changed = service.clone();
    Case::new(name, &[service]).on(place.node()).look(
        "the flow",
        move |scene| {
            for slice in 0..changed.slices.len() {
                scene.api.patch(&changed.slice_path(slice), &json!({"endpoints": changed.slices[slice]["endpoints"], "ports": changed.slices[slice]["ports"]}));
            }
            let flow = Flow::open(scene, place, target);
            let first = flow.until(before);
            change(&changed, scene.api);
            format!("{first}, then {}", flow.until(after))
        },
        &format!("{before}, then {after}"),
    )
}

fn datagrams(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let new = || Service::new(family, UDP).balancer().external();
    let one = || new().at(&["1a"]);
    let to_other = |service: &Service, api: &Api| service.move_to(api, &["2a"]);
    let node = node_address(1, family);
    let mut cases = Vec::new();
    for (what, place) in [
        ("a cluster address", POD),
        ("a node port", OUTSIDE),
        ("a load balancer", OUTSIDE),
        ("an external address", POD),
        ("a node port of its own", NODE),
    ] {
        let service = one();
        let target = match what {
            "a cluster address" => service.cluster(family, UDP),
            "a load balancer" => service.at_balancer(family, UDP),
            "an external address" => service.at_external(family, UDP),
            _ => service.at_node(node, UDP),
        };
        let title = format!("F33 a UDP flow at {what} goes to the next endpoint, {name}");
        cases.push(
            moved(title, &service, (place, target), to_other, ("1a", "2a")).short_if(family == Family::V4),
        );
    }
    let at_cluster = |service: &Service| (POD, service.cluster(family, UDP));
    let service = one();
    cases.push(moved(
        format!("F33 a UDP flow goes to the next port of its endpoint, {name}"),
        &service,
        at_cluster(&service),
        |service, api| {
            let mut ports = service.slices[0]["ports"].clone();
            ports[0]["port"] = 9090.into();
            api.patch(&service.slice_path(0), &json!({"ports": ports}));
        },
        ("1a", "1a:9090"),
    ));
    let service = new().endpoints(&[]);
    cases.push(moved(
        format!("F33 a UDP flow that began before there was an endpoint finds it, {name}"),
        &service,
        at_cluster(&service),
        |service, api| service.move_to(api, &["1a"]),
        ("refused", "1a"),
    ));
    let service = one();
    let ending = |service: &Service, api: &Api| {
        service.change_endpoints(api, 0, &[endpoint("1a").terminating(), endpoint("2a")])
    };
    cases.push(moved(
        format!("F33 a UDP flow stays while its endpoint serves, {name}"),
        &service,
        at_cluster(&service),
        ending,
        ("1a", "1a"),
    ));
    // As the sweep of conntrack sees no change of a Service without endpoints in kube-proxy: see the differences.
    let service = one();
    cases.push(
        moved(
            format!("F34 a UDP flow ends with the last endpoint, {name}"),
            &service,
            at_cluster(&service),
            |service, api| service.move_to(api, &[]),
            ("1a", "refused"),
        )
        .short_if(family == Family::V4),
    );
    cases.push(bystanders(family));
    cases
}

/// Flows whose endpoint stays are left alone: each of sixteen would change with a chance of one half if it were swept.
fn bystanders(family: Family) -> Case {
    let service = Service::new(family, UDP).at(&["1a", "1b", "2a"]);
    let target = service.cluster(family, UDP);
    let changed = service.clone();
    Case::new(
        format!("F33 flows of endpoints that stay are left alone, {}", family_name(family)),
        &[&service],
    )
    .look(
        "sixteen",
        move |scene| {
            changed.move_to(scene.api, &["1a", "1b", "2a"]);
            let flows: Vec<Flow> = (0..24).map(|_| Flow::open(scene, POD, target)).collect();
            let before: Vec<String> = flows.iter().map(Flow::asks).collect();
            changed.move_to(scene.api, &["1a", "1b"]);
            // When one of the endpoint that has gone has moved, the sweep has been.
            let Some(gone) = before.iter().position(|name| name == "2a") else {
                return "nobody at 2a".to_owned();
            };
            let swept = eventually_ok(SOON, || if flows[gone].asks() == "2a" { Err(()) } else { Ok(()) });
            let kept = |(flow, name): (&Flow, &String)| name == "2a" || flow.asks() == *name;
            match (swept, flows.iter().zip(&before).all(kept)) {
                (Ok(()), true) => "as before".to_owned(),
                (Ok(()), false) => "some moved".to_owned(),
                (Err(()), _) => "nothing was swept".to_owned(),
            }
        },
        "as before",
    )
}

fn connections(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let conversation =
        move |scene: Scene<'_>, place: Place, target: Target| -> std::io::Result<BufReader<TcpStream>> {
            let stream = scene.world.at(place).run(|| connect(place.address(family), 0, target.address))?;
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            stream.read_line(&mut line)?;
            Ok(stream)
        };
    let says = |stream: &mut BufReader<TcpStream>| {
        let mut line = String::new();
        let done = stream.get_mut().write_all(b"still there?\n").and_then(|()| stream.read_line(&mut line));
        match done {
            Ok(1..) => parse(&line).map_or(line, |(name, ..)| name),
            Ok(0) => "closed".to_owned(),
            Err(error) => error.to_string(),
        }
    };
    let mut cases = Vec::new();
    for (what, place) in [("a cluster address", POD), ("a node port", OUTSIDE)] {
        let service = Service::new(family, Protocol::Tcp).node_ports().at(&["1a"]);
        let target = if place == POD {
            service.cluster(family, Protocol::Tcp)
        } else {
            service.at_node(node_address(1, family), Protocol::Tcp)
        };
        let changed = service.clone();
        cases.push(
            Case::new(
                format!("F33 a TCP connection at {what} outlives its endpoint and its Service, {name}"),
                &[&service],
            )
            .look(
                "it",
                move |scene| {
                    let mut stream = match conversation(scene, place, target) {
                        Ok(stream) => stream,
                        Err(error) => return error.to_string(),
                    };
                    changed.move_to(scene.api, &["2a"]);
                    let next =
                        eventually_ok(SOON, || match crate::proxy::probe::ask(scene.world, place, target) {
                            Ok((name, _)) if name == "2a" => Ok(()),
                            other => Err(other),
                        });
                    let first = says(&mut stream);
                    scene.api.delete(&changed.path());
                    let gone = eventually_ok(SOON, || {
                        crate::proxy::probe::ask(scene.world, place, target).err().ok_or(())
                    });
                    format!(
                        "{first}, {}{}",
                        says(&mut stream),
                        if next.is_ok() && gone.is_ok() { "" } else { ", and nothing changed" }
                    )
                },
                "1a, 1a",
            )
            .short_if(family == Family::V4),
        );
    }
    cases
}
