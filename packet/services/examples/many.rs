//! How long it takes to compile many Services, and how much memory that needs:
//! `cargo run --release -p portolan-services --example many -- 20000 2`.
#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::time::Instant;

use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceOptions, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
use portolan_services::{Services, ServicesConfig};

fn service(number: u32) -> Service {
    let [_, a, b, c] = number.to_be_bytes();
    Service {
        name: ObjectName::new(format!("namespace-{}", number % 100), format!("service-{number}")),
        generation: 1,
        kind: ServiceType::ClusterIp,
        cluster_addresses: vec![[10, 96 + a, b, c].into()],
        external_addresses: Vec::new(),
        load_balancer_addresses: Vec::new(),
        ports: vec![ServicePort {
            name: "http".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

fn slice(number: u32, endpoints: u32, first: u32) -> EndpointSlice {
    let name = service(number).name;
    let endpoint = |at: u32| {
        let [_, a, b, c] = (number * endpoints + at).to_be_bytes();
        Endpoint {
            address: [10, a, b, c].into(),
            ready: true,
            serving: true,
            terminating: false,
            node: Some(format!("node-{}", at % 100)),
            zones: Vec::new(),
            nodes: Vec::new(),
            target: Some(format!("service-{number}-{at:x}")),
        }
    };
    EndpointSlice {
        name: ObjectName::new(name.namespace.clone(), format!("{}-abcde", name.name)),
        service: name,
        ports: vec![SlicePort { name: "http".to_owned(), protocol: Protocol::Tcp, port: 8080 }],
        endpoints: (first..first + endpoints).map(endpoint).collect(),
        triggered: None,
    }
}

/// Memory of this process, now and at most, in MB.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |what: &str| {
        let line = status.lines().find(|line| line.starts_with(what));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    format!("{} MB now, {} MB at most", of("VmRSS"), of("VmHWM"))
}

fn main() {
    let mut arguments = std::env::args().skip(1).map_while(|text| text.parse::<u32>().ok());
    let (count, endpoints) = (arguments.next().unwrap_or(20_000), arguments.next().unwrap_or(2));
    let begin = Instant::now();
    let Ok(mut services) = Services::load(
        ServicesConfig::default(),
        (0..count).map(service),
        (0..count).map(|number| slice(number, endpoints, 0)),
    ) else {
        return;
    };
    println!("{count} Services of {endpoints} endpoints compiled in {:?}, {}", begin.elapsed(), memory());
    let begin = Instant::now();
    let names: Vec<String> = services.shape().sets.into_iter().map(|filled| filled.set.name).collect();
    let elements: usize = names.iter().map(|name| services.elements(name).count()).sum();
    println!("{elements} elements one by one in {:?}, {}", begin.elapsed(), memory());
    let begin = Instant::now();
    let size: usize = services.ruleset().sets.iter().map(|filled| filled.elements.len()).sum();
    println!("{size} elements as one ruleset in {:?}, {}", begin.elapsed(), memory());
    let begin = Instant::now();
    let changes = services.set_slice(slice(7, endpoints, 1));
    println!("one endpoint replaced: {} operations planned in {:?}", changes.len(), begin.elapsed());
    let begin = Instant::now();
    let changes = services.set_service(service(count + 1));
    println!("one Service more: {} operations planned in {:?}", changes.len(), begin.elapsed());
}
