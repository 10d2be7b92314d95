//! The Services that are measured, as model types and as the API server keeps them.
//!
//! Service `n` has the cluster address `10.96.16.0 + n`, one TCP port, and endpoints of its own in 10.244.0.0/14, where
//! a namespace answers on every address ([`super::place`]).

use std::net::{IpAddr, Ipv4Addr};

use portolan_model::{
    Endpoint, EndpointSlice, ObjectName, Protocol, Service, ServiceOptions, ServicePort, ServiceType,
    SlicePort, TrafficPolicy,
};
use serde_json::{Value, json};

/// What a Service's port is.
pub(crate) const PORT: u16 = 80;
/// What its endpoints listen on.
pub(crate) const TARGET: u16 = 8080;
/// So many endpoints a slice has at most; the controller's usual number.
const SLICE: u32 = 100;
/// All endpoints are in here.
pub(crate) const PODS: &str = "10.244.0.0/14";

/// Services of the same size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// How many.
    pub(crate) services: u32,
    /// Endpoints of each.
    pub(crate) endpoints: u32,
}

/// The address of Service `n`.
pub(crate) fn cluster_address(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 16, 0).to_bits() + n)
}

/// The address of an endpoint.
pub(crate) fn endpoint_address(size: Size, n: u32, index: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 1, 0).to_bits() + n * size.endpoints + index)
}

pub(crate) fn name(n: u32) -> ObjectName {
    ObjectName::new("default", format!("s-{n}"))
}

/// Service `n`.
pub(crate) fn service(n: u32) -> Service {
    let port = ServicePort { name: String::new(), protocol: Protocol::Tcp, port: PORT, node_port: None };
    Service {
        name: name(n),
        generation: 0,
        kind: ServiceType::ClusterIp,
        cluster_addresses: vec![IpAddr::V4(cluster_address(n))],
        external_addresses: Vec::new(),
        load_balancer_addresses: Vec::new(),
        ports: vec![port],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: None,
        source_ranges: Vec::new(),
        health_check_node_port: None,
        options: ServiceOptions::default(),
    }
}

/// An endpoint at this address.
pub(crate) fn endpoint(address: Ipv4Addr) -> Endpoint {
    Endpoint {
        address: IpAddr::V4(address),
        ready: true,
        serving: true,
        terminating: false,
        node: Some("elsewhere".to_owned()),
        zones: Vec::new(),
        nodes: Vec::new(),
        target: None,
    }
}

/// The slices of Service `n`.
pub(crate) fn slices(size: Size, n: u32) -> impl Iterator<Item = EndpointSlice> {
    (0..size.endpoints.div_ceil(SLICE)).map(move |slice| {
        let addresses = slice * SLICE..((slice + 1) * SLICE).min(size.endpoints);
        EndpointSlice {
            name: ObjectName::new("default", format!("s-{n}-{slice}")),
            service: name(n),
            ports: vec![SlicePort { name: String::new(), protocol: Protocol::Tcp, port: TARGET }],
            endpoints: addresses.map(|index| endpoint(endpoint_address(size, n, index))).collect(),
            triggered: None,
        }
    })
}

/// All of them.
pub(crate) fn all(size: Size) -> (Vec<Service>, Vec<EndpointSlice>) {
    let services = (0..size.services).map(service).collect();
    (services, (0..size.services).flat_map(|n| slices(size, n)).collect())
}

/// A Service as the API server keeps it: key and object.
pub(crate) fn stored_service(n: u32) -> (String, Value) {
    let address = cluster_address(n).to_string();
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": metadata(&name(n).name, n),
        "spec": {
            "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster", "sessionAffinity": "None", "type": "ClusterIP",
            "ports": [{ "port": PORT, "protocol": "TCP", "targetPort": TARGET }],
        },
        "status": { "loadBalancer": {} },
    });
    (format!("/registry/services/specs/default/{}", name(n).name), object)
}

/// The record that its address is taken, without which the API server would make one.
pub(crate) fn stored_address(n: u32) -> (String, Value) {
    let address = cluster_address(n).to_string();
    let mut metadata = metadata(&address, n);
    metadata["namespace"] = Value::Null;
    metadata["labels"] = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4",
        "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress", "metadata": metadata,
        "spec": { "parentRef": { "group": "", "resource": "services", "namespace": "default", "name": name(n).name } },
    });
    (format!("/registry/ipaddresses/{address}"), object)
}

/// A slice as the API server keeps it.
pub(crate) fn stored_slice(slice: &EndpointSlice, n: u32) -> (String, Value) {
    let endpoints: Vec<Value> = slice
        .endpoints
        .iter()
        .map(|endpoint| {
            json!({
                "addresses": [endpoint.address.to_string()], "nodeName": endpoint.node,
                "conditions": { "ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating },
            })
        })
        .collect();
    let mut metadata = metadata(&slice.name.name, n);
    metadata["labels"] = json!({
        "kubernetes.io/service-name": slice.service.name,
        "endpointslice.kubernetes.io/managed-by": "bench",
    });
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
        "addressType": "IPv4", "ports": [{ "name": "", "port": TARGET, "protocol": "TCP" }], "endpoints": endpoints,
    });
    (format!("/registry/endpointslices/default/{}", slice.name.name), object)
}

fn metadata(name: &str, n: u32) -> Value {
    json!({
        "name": name, "namespace": "default", "uid": format!("00000000-0000-4000-8000-{n:012}"),
        "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1,
    })
}
