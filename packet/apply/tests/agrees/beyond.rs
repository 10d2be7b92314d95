//! What Services can do here and not with kube-proxy, by real packets: ranges of ports, whole addresses, stable hashing,
//! weights, affinity of whole Services, source ranges on node ports, counters, the end of connections.

mod counted;
mod drained;
mod shared;
mod wide;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use portolan_apply::ServicePlane;
use portolan_model::{EndpointSlice, Protocol, Service, ServiceNode, ServiceOptions, ServiceType};
use portolan_nft::evaluate::Packet;
use portolan_services::{LocalDetector, ServicesConfig};
use portolan_testkit::eventually_ok;

use crate::{
    observe::{self, End},
    reference::{
        Asked,
        cases::{self, Ip, VERSIONS},
        random::{OWN, POD_NETWORK},
    },
    site::Site,
};

/// Where clients in numbers come from.
const CROWD: &str = "eth2";
const CLUSTER: &str = "172.30.0.9";
const EXTERNAL: &str = "192.0.2.9";
const NODE: &str = "192.168.0.2";
const NODE_PORT: u16 = 30_009;
/// Four Pods of other nodes.
const ENDPOINTS: [&str; 4] = ["10.2.0.11", "10.2.0.12", "10.3.0.11", "10.3.0.12"];

fn config() -> ServicesConfig {
    ServicesConfig {
        node: ServiceNode { name: OWN.to_owned(), zone: None, addresses: Site::own()[..2].to_vec() },
        detector: LocalDetector::Networks(VERSIONS.map(|ip| ip.network(POD_NETWORK)).to_vec()),
        service_networks: VERSIONS.map(|ip| ip.network("172.30.0.0/16")).to_vec(),
        ..ServicesConfig::default()
    }
}

/// TCP and UDP 80, led to 8080, on all kinds of addresses of both versions.
fn service(options: ServiceOptions) -> Service {
    let ports = vec![
        cases::port(Protocol::Tcp, 80, Some(NODE_PORT)),
        cases::port(Protocol::Udp, 80, Some(NODE_PORT)),
    ];
    Service {
        cluster_addresses: VERSIONS.map(|ip| ip.address(CLUSTER)).to_vec(),
        external_addresses: VERSIONS.map(|ip| ip.address(EXTERNAL)).to_vec(),
        options,
        ..cases::service("wide", ServiceType::NodePort, VERSIONS[0].address(CLUSTER), ports)
    }
}

/// Its endpoints, a slice for each version.
fn slices(endpoints: &[&str]) -> Vec<EndpointSlice> {
    let slice = |ip: Ip| {
        let targets = [(Protocol::Tcp, 80, 8080), (Protocol::Udp, 80, 8080)];
        let made = endpoints.iter().map(|text| cases::endpoint(ip.address(text), "two")).collect();
        let mut slice = cases::slice("wide", &targets, made);
        slice.name.name.push_str(ip.name());
        slice
    };
    VERSIONS.map(slice).to_vec()
}

fn apply(site: &Site, service: Service, endpoints: &[&str]) -> ServicePlane {
    site.apply(config(), vec![service], slices(endpoints))
}

/// The endpoints answer at these ports.
fn serve(site: &Site, ports: &[u16]) {
    let all: Vec<IpAddr> = ENDPOINTS.iter().flat_map(|text| VERSIONS.map(|ip| ip.address(text))).collect();
    site.servers.borrow().answer(&site.behind("eth1").namespace, &all, ports);
}

/// From a Pod, from outside and from the node.
const SOURCES: [(&str, Option<&str>); 3] =
    [("10.1.0.77", Some("pod1")), ("203.0.113.2", Some("eth2")), (NODE, None)];

fn asked(ip: Ip, source: (&str, Option<&str>), protocol: Protocol, to: &str, port: u16) -> Asked {
    Asked {
        protocol,
        source: ip.address(source.0),
        destination: SocketAddr::new(ip.address(to), port),
        interface: source.1.map(str::to_owned),
    }
}

/// One of many clients.
fn client(ip: Ip, number: u32) -> IpAddr {
    let [_, _, high, low] = number.to_be_bytes();
    ip.address(&format!("100.64.{high}.{low}"))
}

/// First packets of connections, each from this client to this protocol and place, sent by the crowd: where each ended.
fn ends(site: &Site, packets: &[(IpAddr, Protocol, SocketAddr)]) -> Vec<End> {
    let mut ends = Vec::new();
    // In portions: nobody's queue overflows.
    for packets in packets.chunks(500) {
        site.look_anew();
        let numbers: Vec<u32> = site.numbers(packets.len()).collect();
        for ((source, protocol, to), number) in packets.iter().zip(&numbers) {
            let source = SocketAddr::new(*source, 10_000 + (number % 50_000) as u16);
            site.send(&Packet::new(protocol.number(), source, *to), Some(CROWD), *number);
        }
        let kernel = &mut *site.kernel.borrow_mut();
        let all = eventually_ok(Duration::from_secs(5), || {
            let mut seen = observe::seen(kernel);
            let all: Option<Vec<End>> = numbers.iter().map(|number| seen.remove(number)).collect();
            all.ok_or("packets are missing")
        });
        ends.extend(all.unwrap());
    }
    ends
}

/// Which endpoint each of these was led to.
fn led(site: &Site, packets: &[(IpAddr, Protocol, SocketAddr)]) -> Vec<SocketAddr> {
    let led = ends(site, packets).into_iter().map(|end| match end {
        End::Sent { destination, .. } => destination,
        other => panic!("led nowhere: {other:?}"),
    });
    led.collect()
}

fn shares(led: &[SocketAddr]) -> BTreeMap<SocketAddr, usize> {
    led.iter().fold(BTreeMap::new(), |mut shares, to| {
        *shares.entry(*to).or_default() += 1;
        shares
    })
}

fn distinct(led: &[SocketAddr]) -> BTreeSet<IpAddr> {
    led.iter().map(SocketAddr::ip).collect()
}
