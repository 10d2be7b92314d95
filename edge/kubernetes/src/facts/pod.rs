//! A Pod.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use portolan_model::Protocol;
use serde::{Deserialize, Serialize};

/// Which Pod. A Pod that is deleted and created again has the same namespace and name and another UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`; empty is whichever Pod has the name now.
    pub uid: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Pod, as far as ports are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`; empty at admission when the API server is to choose it.
    pub name: String,
    /// `metadata.uid`; empty at admission.
    pub uid: String,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The controller among `metadata.ownerReferences`.
    pub owner: Option<OwnerFacts>,
    /// `spec.nodeName`.
    pub node: Option<String>,
    /// `spec.hostNetwork`.
    pub host_network: bool,
    /// `status.phase`.
    pub phase: Phase,
    /// Whether it has a `metadata.deletionTimestamp`: it is on its way out, and still runs.
    pub terminating: bool,
    /// The condition `Ready`.
    pub ready: bool,
    /// `status.podIPs`.
    pub addresses: Vec<IpAddr>,
    /// Sidecars (init containers that restart always), then the containers, each in the order of the spec.
    pub containers: Vec<ContainerFacts>,
    /// `metadata.creationTimestamp` in seconds since 1970.
    pub created: Option<i64>,
}

/// The controller of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    /// Such as `StatefulSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// How far a Pod is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not all containers run.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// All containers ended well and will not start again.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node does not say.
    Unknown,
}

impl Phase {
    /// Whether no container of the Pod will ever run again.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }

    fn new(text: Option<&str>) -> Self {
        match text {
            Some("Running") => Self::Running,
            Some("Succeeded") => Self::Succeeded,
            Some("Failed") => Self::Failed,
            Some("Unknown") => Self::Unknown,
            _ => Self::Pending,
        }
    }
}

/// A container that runs beside the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFacts {
    /// Its name.
    pub name: String,
    /// Whether it is an init container with `restartPolicy: Always`.
    pub sidecar: bool,
    /// `ports`, in the order of the spec.
    pub ports: Vec<ContainerPort>,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it has started.
    pub started: bool,
    /// How often it was started again.
    pub restarts: u32,
    /// The runtime's ID, without its `containerd://`.
    pub id: Option<String>,
}

/// A port in a container's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// `containerPort`.
    pub container_port: u16,
    /// `hostPort`; the API server sets it for Pods with hostNetwork.
    pub host_port: Option<u16>,
    /// `protocol`, TCP unless said otherwise.
    pub protocol: Protocol,
    /// `hostIP`, unless it is an unspecified address.
    pub host_address: Option<IpAddr>,
}

/// A host port that a Pod of the node has for itself, by `hostPort` or because it is on the host's network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticHostPort {
    /// The Pod.
    pub pod: PodKey,
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The only address, when it is not all of them.
    pub address: Option<IpAddr>,
    /// Whether the Pod listens there itself, without a mapping.
    pub host_network: bool,
}

impl PodFacts {
    /// Which Pod it is.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone(), uid: self.uid.clone() }
    }

    /// All ports with their containers.
    pub fn ports(&self) -> impl Iterator<Item = (&ContainerFacts, &ContainerPort)> {
        self.containers.iter().flat_map(|container| container.ports.iter().map(move |port| (container, port)))
    }

    /// The host ports that the spec names; none for a Pod that has finished.
    pub fn static_host_ports(&self) -> impl Iterator<Item = StaticHostPort> {
        let live = !self.phase.is_finished();
        self.ports().filter(move |_| live).filter_map(|(_, port)| {
            let number = port.host_port.or(self.host_network.then_some(port.container_port))?;
            Some(StaticHostPort {
                pod: self.key(),
                port: number,
                protocol: port.protocol,
                address: port.host_address,
                host_network: self.host_network,
            })
        })
    }
}

impl From<Pod> for PodFacts {
    fn from(pod: Pod) -> Self {
        let (metadata, spec, status) =
            (pod.metadata, pod.spec.unwrap_or_default(), pod.status.unwrap_or_default());
        let owner = metadata.owner_references.unwrap_or_default().into_iter();
        let owner = owner.filter(|owner| owner.controller == Some(true)).map(|owner| OwnerFacts {
            kind: owner.kind,
            name: owner.name,
            uid: owner.uid,
        });
        let sidecars = spec.init_containers.unwrap_or_default().into_iter();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let init_statuses = status.init_container_statuses.unwrap_or_default();
        let statuses = status.container_statuses.unwrap_or_default();
        let containers = sidecars
            .map(|container| container_facts(container, true, &init_statuses))
            .chain(spec.containers.into_iter().map(|container| container_facts(container, false, &statuses)))
            .collect();
        let addresses = status.pod_ips.unwrap_or_default().into_iter();
        let mut addresses: Vec<IpAddr> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.pod_ip.and_then(|address| address.parse::<IpAddr>().ok()));
        }
        let conditions = status.conditions.unwrap_or_default();
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            owner: owner.into_iter().next(),
            node: spec.node_name.filter(|name| !name.is_empty()),
            host_network: spec.host_network.unwrap_or_default(),
            phase: Phase::new(status.phase.as_deref()),
            terminating: metadata.deletion_timestamp.is_some(),
            ready: conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"),
            addresses,
            containers,
            created: metadata.creation_timestamp.map(|time| time.0.as_second()),
        }
    }
}

fn container_facts(container: Container, sidecar: bool, statuses: &[ContainerStatus]) -> ContainerFacts {
    let status = statuses.iter().find(|status| status.name == container.name);
    let id = status.and_then(|status| status.container_id.as_deref()).filter(|id| !id.is_empty());
    ContainerFacts {
        sidecar,
        ports: container.ports.unwrap_or_default().into_iter().filter_map(container_port).collect(),
        ready: status.is_some_and(|status| status.ready),
        started: status.and_then(|status| status.started).unwrap_or_default(),
        restarts: status.and_then(|status| status.restart_count.try_into().ok()).unwrap_or_default(),
        id: id.map(|id| id.split_once("://").map_or(id, |(_, id)| id).to_owned()),
        name: container.name,
    }
}

/// `None` for numbers and protocols that the API server would not have let in.
fn container_port(port: k8s_openapi::api::core::v1::ContainerPort) -> Option<ContainerPort> {
    let number = |number: i32| u16::try_from(number).ok().filter(|&number| number > 0);
    let host_address = port.host_ip.and_then(|text| text.parse().ok());
    Some(ContainerPort {
        name: port.name.filter(|name| !name.is_empty()),
        container_port: number(port.container_port)?,
        host_port: port.host_port.and_then(number),
        protocol: port.protocol.as_deref().unwrap_or("TCP").parse().ok()?,
        host_address: host_address.filter(|address: &IpAddr| !address.is_unspecified()),
    })
}

#[cfg(test)]
mod tests;
