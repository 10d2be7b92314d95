//! What a runtime tells of a Pod.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use crate::message;

/// A Pod on this node: its sandbox, which is made anew when the Pod's network is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodSandbox {
    /// The runtime's name for the sandbox, the same that CNI plugins get as `CNI_CONTAINERID`.
    pub id: String,
    /// The Pod's name.
    pub name: String,
    /// The Pod's UID in Kubernetes. Static Pods have that of their file, not that of the API server.
    pub uid: String,
    /// The Pod's namespace in Kubernetes.
    pub namespace: String,
    /// The Pod's annotations as they were when kubelet made the sandbox, and the runtime's own. Later changes are
    /// never seen here.
    pub annotations: BTreeMap<String, String>,
    /// The Pod's labels, and the runtime's own.
    pub labels: BTreeMap<String, String>,
    /// The runtime class's handler; empty for the default.
    pub runtime_handler: String,
    /// The network namespace, when the Pod has one of its own and it still exists.
    pub network_namespace: Option<PathBuf>,
    /// Whether the Pod lives in the node's network namespace (`hostNetwork: true`).
    pub host_network: bool,
    /// The pause container's process on the node, while it runs.
    pub pid: Option<u32>,
    /// Addresses, the first one first. Empty for Pods on the node's network, and from runtimes before nri 0.8.
    pub ips: Vec<IpAddr>,
}

impl From<message::PodSandbox> for PodSandbox {
    fn from(pod: message::PodSandbox) -> Self {
        let namespaces = pod.linux.map(|linux| linux.namespaces).unwrap_or_default();
        let network = namespaces.iter().find(|namespace| namespace.kind == "network");
        // A Pod that is being removed has no network namespace any more either: it is told from one on the node's
        // network by its addresses, which runtimes remember. Without any namespace the runtime said nothing.
        let host_network = !namespaces.is_empty() && network.is_none() && pod.ips.is_empty();
        let network_namespace = network
            .map(|namespace| PathBuf::from(&namespace.path))
            .filter(|path| !path.as_os_str().is_empty());
        Self {
            id: pod.id,
            name: pod.name,
            uid: pod.uid,
            namespace: pod.namespace,
            annotations: pod.annotations,
            labels: pod.labels,
            runtime_handler: pod.runtime_handler,
            network_namespace,
            host_network,
            pid: (pod.pid != 0).then_some(pod.pid),
            ips: pod.ips.iter().filter_map(|address| address.parse().ok()).collect(),
        }
    }
}

/// For [`crate::fake`], which tells what a runtime would.
impl From<PodSandbox> for message::PodSandbox {
    fn from(pod: PodSandbox) -> Self {
        let namespace = |kind: &str, path: String| message::LinuxNamespace { kind: kind.to_owned(), path };
        let mut namespaces = vec![namespace("ipc", String::new())];
        if let Some(path) = pod.network_namespace {
            namespaces.push(namespace("network", path.to_string_lossy().into_owned()));
        }
        Self {
            id: pod.id,
            name: pod.name,
            uid: pod.uid,
            namespace: pod.namespace,
            labels: pod.labels,
            annotations: pod.annotations,
            runtime_handler: pod.runtime_handler,
            linux: Some(message::LinuxPodSandbox { namespaces }),
            pid: pod.pid.unwrap_or(0),
            ips: pod.ips.iter().map(ToString::to_string).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(namespaces: &[(&str, &str)], ips: &[&str]) -> PodSandbox {
        let namespaces = namespaces
            .iter()
            .map(|(kind, path)| message::LinuxNamespace {
                kind: (*kind).to_owned(),
                path: (*path).to_owned(),
            })
            .collect();
        PodSandbox::from(message::PodSandbox {
            linux: Some(message::LinuxPodSandbox { namespaces }),
            ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
            ..message::PodSandbox::default()
        })
    }

    #[test]
    fn a_pod_without_network_namespace_and_addresses_is_on_the_nodes_network() {
        assert!(told(&[("ipc", "")], &[]).host_network);
    }

    #[test]
    fn a_pod_that_is_being_removed_is_not_taken_for_one_on_the_nodes_network() {
        assert!(!told(&[("ipc", "")], &["10.0.0.7"]).host_network);
    }

    #[test]
    fn a_runtime_that_says_nothing_of_namespaces_says_nothing_of_the_nodes_network() {
        assert!(!told(&[], &[]).host_network);
    }

    #[test]
    fn a_pod_has_its_namespace_and_its_addresses_of_both_families() {
        let pod = told(&[("ipc", ""), ("network", "/run/netns/cni-1")], &["10.0.0.7", "fd00::7"]);
        assert_eq!(pod.network_namespace.as_deref(), Some("/run/netns/cni-1".as_ref()));
        assert_eq!(pod.ips, ["10.0.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert!(!pod.host_network);
    }
}
