//! What should be: a twin for each Service that asks, and EndpointSlices for each of its Pods that has ports.
//!
//! An EndpointSlice has one family of addresses, and in it each name of a port once. A port that is published by TCP and
//! UDP is therefore in two slices, which DNS puts together again. A block of ports is its first number, since a port of
//! an EndpointSlice is one number; the whole range is in the annotation `portolan.dev/blocks` of the slice.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use portolan_model::{Protocol, PublishedPort};
use sha2::{Digest as _, Sha256};

use super::{Instance, source::SourceService};

/// The annotation by which a Service asks for a twin, with the value `true`.
pub const PUBLISH_ANNOTATION: &str = "portolan.dev/publish";
/// What a twin's name ends with.
pub const TWIN_SUFFIX: &str = "-ports";
/// The annotation of an EndpointSlice that tells the ranges of blocks: `{"media":"20032-20131"}`.
pub const BLOCKS_ANNOTATION: &str = "portolan.dev/blocks";
/// The value by which our objects are known.
pub const MANAGED_BY: &str = "portolan.dev";
/// The label of it on EndpointSlices.
pub(super) const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
/// The label of it on twins.
pub(super) const TWIN_LABEL: &str = "portolan.dev/twin-of";
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// By this label kube-proxy and others know that there is nothing to balance.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// A DNS label: RFC 1035 section 2.3.4.
pub(super) const LABEL: usize = 63;

/// An EndpointSlice without what we do not compare.
pub(super) fn bare(mut slice: EndpointSlice) -> EndpointSlice {
    slice.metadata.managed_fields = None;
    slice
}

/// The Pods of a Service that have ports, in the order of their names.
pub(super) fn instances_of<'a>(
    service: &SourceService,
    pods: impl IntoIterator<Item = &'a Instance>,
) -> Vec<&'a Instance> {
    let mut instances: Vec<_> = pods
        .into_iter()
        .filter(|instance| instance.pod.namespace == service.namespace && !instance.pod.phase.is_finished())
        .filter(|instance| service.selects(&instance.pod.labels))
        // An annotation that was copied from another Pod is not about this one.
        .filter(|instance| instance.pod.node.as_deref() == Some(instance.status.node.as_str()))
        .collect();
    instances.sort_by(|one, other| one.pod.name.cmp(&other.pod.name));
    instances
}

/// The twin of a Service.
pub(super) fn twin(service: &SourceService, instances: &[&Instance]) -> Service {
    Service {
        metadata: ObjectMeta {
            name: Some(service.twin_name()),
            namespace: Some(service.namespace.clone()),
            labels: Some(labels(&[
                (TWIN_LABEL, &service.name),
                ("app.kubernetes.io/managed-by", MANAGED_BY),
            ])),
            owner_references: Some(vec![owner("Service", &service.name, &service.uid)]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            ports: Some(twin_ports(instances)).filter(|ports| !ports.is_empty()),
            publish_not_ready_addresses: Some(service.publish_not_ready),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The ports of a twin are for people to read: nobody balances to them, and each instance has other numbers. They are
/// the container ports, as far as these are the same everywhere.
fn twin_ports(instances: &[&Instance]) -> Vec<ServicePort> {
    let mut wanted = BTreeMap::<(String, Protocol), u16>::new();
    for port in instances.iter().flat_map(|instance| &instance.status.ports) {
        for protocol in port.protocols.iter() {
            let number = wanted.entry((port.name.to_string(), protocol)).or_insert(port.container);
            *number = (*number).min(port.container);
        }
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    let mut ports = Vec::new();
    for ((name, protocol), number) in wanted {
        // A Service has each name once, and each number of a protocol once.
        let long = format!("{name}-{protocol}");
        let Some(name) = [name, long].into_iter().find(|name| name.len() <= LABEL && !names.contains(name))
        else {
            continue;
        };
        let Some(number) =
            (number..=u16::MAX).chain(1..number).find(|number| numbers.insert((protocol, *number)))
        else {
            continue;
        };
        names.insert(name.clone());
        ports.push(ServicePort {
            name: Some(name),
            port: number.into(),
            protocol: Some(kubernetes(protocol).to_owned()),
            target_port: Some(IntOrString::Int(number.into())),
            ..ServicePort::default()
        });
    }
    ports
}

/// The EndpointSlices of one instance. `twin_uid` owns them.
pub(super) fn slices(service: &SourceService, twin_uid: &str, instance: &Instance) -> Vec<EndpointSlice> {
    let mut groups = BTreeMap::<(IpAddr, Protocol), BTreeMap<String, &PublishedPort>>::new();
    for port in &instance.status.ports {
        for address in addresses(port, &instance.status.addresses) {
            for protocol in port.protocols.iter() {
                groups.entry((address, protocol)).or_default().insert(port.name.to_string(), port);
            }
        }
    }
    let slice =
        |((address, protocol), ports)| slice(service, twin_uid, instance, (address, protocol), &ports);
    groups.into_iter().map(slice).collect()
}

fn slice(
    service: &SourceService,
    twin_uid: &str,
    instance: &Instance,
    (address, protocol): (IpAddr, Protocol),
    ports: &BTreeMap<String, &PublishedPort>,
) -> EndpointSlice {
    let (pod, twin) = (&instance.pod, service.twin_name());
    let blocks: BTreeMap<&str, String> = ports
        .iter()
        .filter(|(_, port)| !port.host.is_single())
        .map(|(name, port)| (name.as_str(), port.host.to_string()))
        .collect();
    // Strings in a map: serialization has nothing that can fail.
    let blocks = (!blocks.is_empty()).then(|| serde_json::to_string(&blocks).unwrap_or_default());
    let ready = pod.ready || service.publish_not_ready;
    EndpointSlice {
        address_type: if address.is_ipv4() { "IPv4" } else { "IPv6" }.to_owned(),
        endpoints: vec![Endpoint {
            addresses: vec![address.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(ready && (!pod.terminating || service.publish_not_ready)),
                serving: Some(ready),
                terminating: Some(pod.terminating),
            }),
            hostname: is_label(&pod.name).then(|| pod.name.clone()),
            node_name: pod.node.clone(),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                namespace: Some(pod.namespace.clone()),
                name: Some(pod.name.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        }],
        ports: Some(ports.iter().map(|(name, port)| endpoint_port(name, protocol, port)).collect()),
        metadata: ObjectMeta {
            name: Some(slice_name(&twin, &pod.uid, address, protocol)),
            namespace: Some(pod.namespace.clone()),
            labels: Some(labels(&[
                (SERVICE_NAME_LABEL, &twin),
                (MANAGED_BY_LABEL, MANAGED_BY),
                (HEADLESS_LABEL, ""),
            ])),
            annotations: blocks.map(|blocks| BTreeMap::from([(BLOCKS_ANNOTATION.to_owned(), blocks)])),
            owner_references: Some(vec![owner("Service", &twin, twin_uid)]),
            ..ObjectMeta::default()
        },
    }
}

fn endpoint_port(name: &str, protocol: Protocol, port: &PublishedPort) -> EndpointPort {
    EndpointPort {
        name: Some(name.to_owned()),
        port: Some(port.host.first().into()),
        protocol: Some(kubernetes(protocol).to_owned()),
        ..EndpointPort::default()
    }
}

/// Where a port can be reached: the node's addresses, or the only one that it was asked for on.
fn addresses(port: &PublishedPort, node: &[IpAddr]) -> Vec<IpAddr> {
    let addresses = match port.address {
        None => node.to_vec(),
        Some(all) if all.is_unspecified() => {
            node.iter().filter(|address| address.is_ipv4() == all.is_ipv4()).copied().collect()
        }
        Some(address) => vec![address],
    };
    addresses.into_iter().filter(is_endpoint).collect()
}

/// What the API server takes as an endpoint's address (`ValidateNonSpecialIP`): one bad address would keep the good
/// ones from being written.
fn is_endpoint(address: &IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.to_ipv4_mapped().is_some(),
    };
    !special && !address.is_unspecified() && !address.is_loopback() && !address.is_multicast()
}

/// Short, unique, and the same each time: the twin's name may be 63 characters and the Pod's 253.
fn slice_name(twin: &str, pod_uid: &str, address: IpAddr, protocol: Protocol) -> String {
    let digest = Sha256::digest(format!("{pod_uid} {address} {protocol}"));
    let hash: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{twin}-{hash}")
}

fn is_label(name: &str) -> bool {
    name.len() <= LABEL && !name.contains('.')
}

fn kubernetes(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    }
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn owner(kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

#[cfg(test)]
mod tests;
