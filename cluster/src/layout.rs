//! Names, addresses and files of a cluster: everything that follows from its name and a node's number.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use anyhow::{Result, bail};

/// The most nodes of one cluster; their addresses lie between those of the control plane and of the client.
pub(crate) const MOST_NODES: usize = 64;

/// The address of the control plane.
pub const CONTROL_V4: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 2);
/// The address of the control plane.
pub const CONTROL_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x240, 0, 0, 0, 0, 2);
/// The address of the client, which is outside of every node.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 100);
/// The address of the client, which is outside of every node.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x240, 0, 0, 0, 0, 0x100);
/// Where Pods get their addresses from; each node has a /24 of the first and a /64 of the second.
pub const POD_NETWORKS: [&str; 2] = ["10.244.0.0/16", "fd00:10:244::/56"];
/// Where Services get their addresses from.
pub const SERVICE_NETWORKS: [&str; 2] = ["10.96.0.0/16", "fd00:10:96::/112"];
/// The address of the cluster's DNS.
pub const DNS_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Where the clusters are, unless `PORTOLAN_CLUSTER_FOLDER` says otherwise: on disk, because images are unpacked there.
const FOLDER: &str = "/var/lib/portolan-cluster";

/// Where the parts of the cluster of one name are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The cluster's name.
    pub(crate) name: String,
    /// All of its files.
    pub(crate) folder: PathBuf,
}

impl Layout {
    /// The parts of the cluster `name`, which need not exist.
    pub(crate) fn new(name: &str) -> Result<Self> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 30 || !name.chars().all(plain) || name.starts_with('-') {
            bail!("{name:?} is no name for a cluster: up to 30 of a-z, 0-9 and -");
        }
        Ok(Self { name: name.to_owned(), folder: base().join(name) })
    }

    /// A network namespace of the cluster: `control`, `client`, `lan` or a node's name.
    pub(crate) fn network_namespace(&self, part: &str) -> String {
        format!("cluster-{}-{part}", self.name)
    }

    /// The file of a network namespace.
    pub(crate) fn network_namespace_file(&self, part: &str) -> PathBuf {
        PathBuf::from("/run/netns").join(self.network_namespace(part))
    }

    /// The cgroup of everything in the cluster, without a slash in front.
    pub(crate) fn cgroup(&self) -> String {
        format!("portolan-cluster-{}", self.name)
    }

    /// The log of a program.
    pub(crate) fn log(&self, part: &str) -> PathBuf {
        self.folder.join("log").join(format!("{part}.log"))
    }

    /// What [`crate::Options`] was when the cluster was started.
    pub(crate) fn options(&self) -> PathBuf {
        self.folder.join("cluster.json")
    }

    /// For programs on this machine: the API by a port of the loopback.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// For programs in the cluster's namespaces.
    pub(crate) fn inside_kubeconfig(&self) -> PathBuf {
        self.folder.join("inside.kubeconfig")
    }

    /// Certificates, keys and tokens.
    pub(crate) fn secrets(&self) -> PathBuf {
        self.folder.join("secrets")
    }

    /// The folder of a node.
    pub(crate) fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(node_name(node))
    }
}

/// The folder of all clusters.
pub(crate) fn base() -> PathBuf {
    std::env::var_os("PORTOLAN_CLUSTER_FOLDER").map_or_else(|| PathBuf::from(FOLDER), PathBuf::from)
}

/// The name of the node of this number, which begins at 1.
pub fn node_name(node: usize) -> String {
    format!("node{node}")
}

/// The addresses of the node of this number.
pub fn node_addresses(node: usize) -> (Ipv4Addr, Ipv6Addr) {
    let number = u8::try_from(10 + node.min(MOST_NODES)).expect("at most 74");
    let v6 = Ipv6Addr::new(0xfd00, 0x10, 0x240, 0, 0, 0, 0, 0x10 + u16::from(number) - 10);
    (Ipv4Addr::new(10, 240, 0, number), v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names_of_files_and_namespaces() {
        assert!(Layout::new("dev-2").is_ok());
        for bad in ["", "../x", "a/b", "A", "-a", "a b"] {
            assert!(Layout::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_all_different() {
        let mut all: Vec<_> = (1..=MOST_NODES).map(|node| node_addresses(node).0).collect();
        all.extend([CONTROL_V4, CLIENT_V4]);
        let mut six: Vec<_> = (1..=MOST_NODES).map(|node| node_addresses(node).1).collect();
        six.extend([CONTROL_V6, CLIENT_V6]);
        let (four_count, six_count) = (all.len(), six.len());
        all.sort();
        all.dedup();
        six.sort();
        six.dedup();
        assert_eq!((all.len(), six.len()), (four_count, six_count));
    }
}
