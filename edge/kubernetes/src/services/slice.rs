//! An EndpointSlice of the API as an [`EndpointSlice`].
//!
//! The rules are those of kube-proxy 1.36 (`pkg/proxy/endpointslicecache.go`).

use std::{net::IpAddr, time::SystemTime};

use k8s_openapi::jiff::Timestamp;
use portolan_model::{Endpoint, EndpointSlice, ObjectName, Protocol, SlicePort};

use super::{
    number,
    watched::{Reference, WatchedEndpoint, WatchedPort, WatchedSlice},
};

/// Whose endpoints they are.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// When the Pod or Service changed that made the slice change, as RFC 3339.
const TRIGGER_ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The slice; `None` for one that belongs to no Service or has names (FQDN) instead of addresses.
pub(super) fn slice(object: &WatchedSlice) -> Option<EndpointSlice> {
    let metadata = &object.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    let label = metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME_LABEL));
    let service = label.filter(|name| !name.is_empty())?;
    let v4 = match object.address_type.as_deref() {
        Some("IPv4") => true,
        Some("IPv6") => false,
        _ => return None,
    };
    let endpoints = object.endpoints.as_deref().unwrap_or_default();
    Some(EndpointSlice {
        name: ObjectName::new(namespace, metadata.name.as_deref().unwrap_or_default()),
        service: ObjectName::new(namespace, service),
        ports: object.ports.as_deref().unwrap_or_default().iter().filter_map(port).collect(),
        endpoints: endpoints.iter().filter_map(|one| endpoint(one, v4)).collect(),
        triggered: metadata.annotations.as_ref().and_then(|all| time(all.get(TRIGGER_ANNOTATION)?)),
    })
}

/// Without a name or without a number it matches nothing; an empty name is a name.
fn port(port: &WatchedPort) -> Option<SlicePort> {
    let protocol = match port.protocol.as_deref() {
        None | Some("") => Protocol::Tcp,
        Some(protocol) => protocol.parse().ok()?,
    };
    Some(SlicePort { name: port.name.clone()?, protocol, port: number::port(port.port?)? })
}

fn endpoint(endpoint: &WatchedEndpoint, v4: bool) -> Option<Endpoint> {
    let address: IpAddr = number::address(endpoint.addresses.as_deref()?.first()?)?;
    if address.is_ipv4() != v4 {
        return None;
    }
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let hints = endpoint.hints.clone().unwrap_or_default();
    Some(Endpoint {
        address,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone().filter(|name| !name.is_empty()),
        zones: names(hints.for_zones),
        nodes: names(hints.for_nodes),
        target: endpoint.target_ref.as_ref().and_then(|target| target.name.clone()),
    })
}

fn names(references: Option<Vec<Reference>>) -> Vec<String> {
    references.unwrap_or_default().into_iter().filter_map(|reference| reference.name).collect()
}

fn time(text: &str) -> Option<SystemTime> {
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}
