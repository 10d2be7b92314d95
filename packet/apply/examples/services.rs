//! How long the Services of a node take: `cargo run --release -p portolan-apply --example services -- 16000 2`, in a
//! network namespace of its own (`unshare -n`). Prints what it did, leaves the table, and with a third word waits.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{net::IpAddr, time::Instant};

use portolan_apply::{
    ServiceEvent::{RemoveService, SetService, SetSlice},
    ServicePlane,
};
use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceOptions, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
use portolan_services::ServicesConfig;

fn service(n: u32) -> Service {
    Service {
        name: ObjectName::new("default", format!("s-{n}")),
        generation: 1,
        kind: ServiceType::ClusterIp,
        cluster_addresses: vec![IpAddr::from((0x0a60_1000_u32 + n).to_be_bytes())],
        external_addresses: Vec::new(),
        load_balancer_addresses: Vec::new(),
        ports: vec![ServicePort { name: String::new(), protocol: Protocol::Tcp, port: 80, node_port: None }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(n: u32, endpoints: u32) -> EndpointSlice {
    let endpoint = |index: u32| Endpoint {
        address: IpAddr::from((0x0af4_0100_u32 + n * endpoints + index).to_be_bytes()),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("elsewhere".to_owned()),
        zones: Vec::new(),
        nodes: Vec::new(),
        target: None,
    };
    EndpointSlice {
        name: ObjectName::new("default", format!("s-{n}-a")),
        service: ObjectName::new("default", format!("s-{n}")),
        ports: vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (0..endpoints).map(endpoint).collect(),
        triggered: None,
    }
}

fn memory(what: &str) -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix(what)).unwrap_or_default().trim().to_owned()
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: u32| words.get(at).and_then(|word| word.parse().ok()).unwrap_or(or);
    let (services, endpoints) = (number(0, 1000), number(1, 2));
    println!("before: {}", memory("VmRSS:"));
    let all: Vec<_> = (0..services).map(service).collect();
    let slices: Vec<_> = (0..services).map(|n| slice(n, endpoints)).collect();
    println!("objects: {}", memory("VmRSS:"));
    let start = Instant::now();
    let plane = ServicePlane::start(ServicesConfig::default(), all, slices).unwrap();
    println!("start: {:?}, now {}, peak {}", start.elapsed(), memory("VmRSS:"), memory("VmHWM:"));
    println!("{:?}", plane.stats());
    let mut times = Vec::new();
    for round in 0..200 {
        let n = services + 1 + round % 3;
        let start = Instant::now();
        plane.change(vec![SetService(service(n)), SetSlice(slice(n, endpoints))]).unwrap();
        times.push(start.elapsed());
        plane.change(vec![RemoveService(service(n).name)]).unwrap();
    }
    times.sort();
    println!("a new Service: p50 {:?} p99 {:?}", times[100], times[198]);
    let mut times = Vec::new();
    for round in 0..200 {
        let mut changed = slice(0, endpoints);
        changed.endpoints.truncate(1 + round % endpoints as usize);
        let start = Instant::now();
        plane.change(vec![SetSlice(changed)]).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!("an endpoint: p50 {:?} p99 {:?}", times[100], times[198]);
    plane.change(vec![SetSlice(slice(0, endpoints))]).unwrap();
    plane.leave();
    let start = Instant::now();
    let all: Vec<_> = (0..services).map(service).collect();
    let slices: Vec<_> = (0..services).map(|n| slice(n, endpoints)).collect();
    let plane = ServicePlane::start(ServicesConfig::default(), all, slices).unwrap();
    println!("again: {:?}, {} transactions", start.elapsed(), plane.stats().transactions);
    if words.len() > 2 {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
    plane.leave();
}
