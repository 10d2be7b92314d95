//! A Service of the API as a [`Service`].
//!
//! The rules are those of kube-proxy 1.36 (`pkg/proxy/serviceport.go`, `pkg/proxy/util/utils.go`). What the API server
//! has validated is read without complaint; what it has not, annotations and files, is told as problems.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use portolan_model::{ObjectName, Protocol, Service, ServicePort, ServiceType, TrafficPolicy};

use super::{
    annotations, number,
    watched::{Port, Spec, WatchedService},
};

/// `service.spec.sessionAffinityConfig.clientIP.timeoutSeconds` without one: three hours.
const AFFINITY: i64 = 10_800;
/// The longest that the API takes.
const MOST_AFFINITY: i64 = 86_400;

/// The Service, and what is wrong with its annotations; `None` for one without frontends, which a proxy ignores: its
/// type is `ExternalName` (whatever its clusterIP says), or it is headless or has no address yet.
pub(super) fn service(object: &WatchedService) -> Option<(Service, Vec<String>)> {
    let spec = object.spec.as_ref()?;
    if is_external_name(spec) || is_headless(spec) {
        return None;
    }
    let (service, problems) = written(object);
    (!service.cluster_addresses.is_empty()).then_some((service, problems))
}

pub(super) fn is_external_name(spec: &Spec) -> bool {
    spec.kind.as_deref() == Some("ExternalName")
}

pub(super) fn is_headless(spec: &Spec) -> bool {
    // The API server keeps both fields alike; in a file one of them is enough.
    let single = spec.cluster_ip.as_deref();
    let first = spec.cluster_ips.as_deref().and_then(|all| all.first()).map(String::as_str);
    single.or(first) == Some("None")
}

/// The Service as far as it is written, with or without addresses.
pub(super) fn written(object: &WatchedService) -> (Service, Vec<String>) {
    let default = Spec::default();
    let spec = object.spec.as_ref().unwrap_or(&default);
    let (options, mut problems) = annotations::options(object.metadata.annotations.as_ref());
    let kind = match spec.kind.as_deref() {
        Some("NodePort") => ServiceType::NodePort,
        Some("LoadBalancer") => ServiceType::LoadBalancer,
        _ => ServiceType::ClusterIp,
    };
    let external_policy = policy(spec.external_traffic_policy.as_deref());
    let asked = kind == ServiceType::LoadBalancer && external_policy == TrafficPolicy::Local;
    let service = Service {
        name: ObjectName::new(
            object.metadata.namespace.as_deref().unwrap_or("default"),
            object.metadata.name.as_deref().unwrap_or_default(),
        ),
        generation: generation(object),
        kind,
        cluster_addresses: cluster_addresses(spec, &mut problems),
        external_addresses: addresses("externalIPs", spec.external_ips.as_deref(), &mut problems),
        load_balancer_addresses: load_balancer_addresses(object),
        ports: ports(spec, &mut problems),
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy,
        affinity: affinity(spec),
        source_ranges: source_ranges(spec, &mut problems),
        health_check_node_port: spec.health_check_node_port.and_then(number::port).filter(|_| asked),
        options,
    };
    (service, problems)
}

/// Services had no `metadata.generation` for most of their life; the version of the object grows as well.
fn generation(object: &WatchedService) -> i64 {
    let version = || object.metadata.resource_version.as_deref()?.parse().ok();
    object.metadata.generation.filter(|&number| number > 0).or_else(version).unwrap_or(0)
}

fn policy(text: Option<&str>) -> TrafficPolicy {
    if text == Some("Local") { TrafficPolicy::Local } else { TrafficPolicy::Cluster }
}

/// One of each family, the first.
fn cluster_addresses(spec: &Spec, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let single = spec.cluster_ip.as_ref().filter(|text| !text.is_empty());
    let many = spec.cluster_ips.as_deref().filter(|many| !many.is_empty());
    let written = many.unwrap_or_else(|| single.map(std::slice::from_ref).unwrap_or_default());
    let given: Vec<String> =
        written.iter().filter(|text| !matches!(text.as_str(), "" | "None")).cloned().collect();
    let all = addresses("clusterIPs", Some(&given), problems);
    let first = |v4: bool| all.iter().find(move |address| address.is_ipv4() == v4).copied();
    let primary = all.first().is_none_or(IpAddr::is_ipv4);
    [first(primary), first(!primary)].into_iter().flatten().collect()
}

fn addresses(field: &str, texts: Option<&[String]>, problems: &mut Vec<String>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for text in texts.unwrap_or_default() {
        match number::address(text) {
            Some(address) if !all.contains(&address) => all.push(address),
            Some(_) => {}
            None => problems.push(format!("{text:?} in {field} is ignored: it is no address")),
        }
    }
    all
}

/// Those that the nodes have to answer for themselves. With `Proxy` the load balancer sends to the nodes' own addresses,
/// and traffic to its address has to go through it (KEP-1860). Entries with a host name only have no address.
fn load_balancer_addresses(object: &WatchedService) -> Vec<IpAddr> {
    let ingress = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = ingress.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or_default();
    let vip = ingress.iter().filter(|one| one.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    let mut all: Vec<IpAddr> = Vec::new();
    for address in vip.filter_map(|one| number::address(one.ip.as_deref()?)) {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    all
}

fn ports(spec: &Spec, problems: &mut Vec<String>) -> Vec<ServicePort> {
    let mut ports = Vec::new();
    for one in spec.ports.as_deref().unwrap_or_default() {
        match port(one) {
            Ok(port) => ports.push(port),
            Err(problem) => problems.push(format!("a port is ignored: {problem}")),
        }
    }
    ports
}

pub(super) fn port(port: &Port) -> Result<ServicePort, String> {
    let name = port.name.clone().unwrap_or_default();
    let number = port.port.unwrap_or_default();
    let usable = number::port(number).ok_or_else(|| format!("{number} is no port: use 1 to 65535"))?;
    let protocol: Protocol = match port.protocol.as_deref() {
        None | Some("") => Protocol::Tcp,
        Some(protocol) => protocol.parse().map_err(|error| format!("{number}: {error}"))?,
    };
    // 0 is "none": so it is with allocateLoadBalancerNodePorts: false.
    let node_port = match port.node_port.filter(|&number| number != 0) {
        None => None,
        Some(node) => {
            Some(number::port(node).ok_or_else(|| format!("{number}: nodePort {node} is no port"))?)
        }
    };
    Ok(ServicePort { name, protocol, port: usable, node_port })
}

fn affinity(spec: &Spec) -> Option<Duration> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds).unwrap_or(AFFINITY);
    Some(Duration::from_secs(seconds.clamp(1, MOST_AFFINITY).unsigned_abs()))
}

fn source_ranges(spec: &Spec, problems: &mut Vec<String>) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in spec.load_balancer_source_ranges.as_deref().unwrap_or_default() {
        match number::network(text) {
            Some(range) if !ranges.contains(&range) => ranges.push(range),
            Some(_) => {}
            None => {
                problems.push(format!("{text:?} in loadBalancerSourceRanges is ignored: it is no network"))
            }
        }
    }
    ranges
}
