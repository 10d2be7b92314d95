//! What the rules depend on besides Services and endpoints.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;
use portolan_model::ServiceNode;
use portolan_plan::{Counting, Version};

use crate::ServicesError;

/// How packets of Pods of this node are told from all others: `detectLocalMode` of kube-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalDetector {
    /// They are not: nothing to a cluster address is masqueraded, and Pods count as outside.
    #[default]
    None,
    /// By their source address (`ClusterCIDR`, `NodeCIDR`). A version of IP without a network here is as [`Self::None`].
    Networks(Vec<IpNet>),
    /// By the bridge they come from (`BridgeInterface`).
    Interface(String),
    /// By what the names of their interfaces begin with (`InterfaceNamePrefix`).
    InterfacePrefix(String),
}

/// Which addresses of this node serve node ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// All but loopback.
    #[default]
    All,
    /// These. Whoever resolves `primary` and networks to addresses watches the addresses too.
    Only(BTreeSet<IpAddr>),
}

/// Names, networks and habits that the rules are made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicesConfig {
    /// The name of our table, of family `inet`. Everything in it is ours; no other table is touched.
    pub table: String,
    /// The node that the packets are on.
    pub node: ServiceNode,
    /// Which packets are of Pods of this node.
    pub detector: LocalDetector,
    /// Masquerade everything that goes to a cluster address.
    pub masquerade_all: bool,
    /// The bits of the packet mark that say "masquerade", between the choice of an endpoint and postrouting. Not zero.
    pub masquerade_mark: u32,
    /// Where node ports are served.
    pub node_ports: NodePortAddresses,
    /// Networks from which cluster addresses are given: packets to one that is not given are dropped (`ServiceCIDR`).
    pub service_networks: Vec<IpNet>,
    /// What is counted for frontends and endpoints.
    pub counting: Counting,
    /// How many clients affinity remembers, in each version of IP.
    pub affinity_size: u32,
}

impl Default for ServicesConfig {
    /// Table `portolan-services`, no detector, mark 0x4000 (bit 14, as kube-proxy), node ports on all addresses, nothing
    /// counted, a million clients.
    fn default() -> Self {
        Self {
            table: "portolan-services".to_owned(),
            node: ServiceNode::default(),
            detector: LocalDetector::None,
            masquerade_all: false,
            masquerade_mark: 0x4000,
            node_ports: NodePortAddresses::All,
            service_networks: Vec::new(),
            counting: Counting::Off,
            affinity_size: 1_000_000,
        }
    }
}

impl ServicesConfig {
    /// Finds what would make the kernel refuse the rules.
    ///
    /// # Errors
    /// [`ServicesError`] says what, and what to do.
    pub fn validate(&self) -> Result<(), ServicesError> {
        if !(1..=255).contains(&self.table.len()) {
            return Err(ServicesError::Table(self.table.clone()));
        }
        if self.masquerade_mark == 0 {
            return Err(ServicesError::Mark);
        }
        if self.affinity_size == 0 {
            return Err(ServicesError::AffinitySize);
        }
        match &self.detector {
            LocalDetector::Interface(name) if !(1..=15).contains(&name.len()) => {
                Err(ServicesError::Interface { name: name.clone(), at_most: 15 })
            }
            LocalDetector::InterfacePrefix(name) if !(1..=14).contains(&name.len()) => {
                Err(ServicesError::Interface { name: name.clone(), at_most: 14 })
            }
            _ => Ok(()),
        }
    }

    /// The networks of Pods of this node in one version of IP; `None` without such a detector.
    pub(crate) fn local_networks(&self, version: Version) -> Option<Vec<IpNet>> {
        let LocalDetector::Networks(networks) = &self.detector else { return None };
        let of_version: Vec<_> =
            networks.iter().filter(|network| Version::of(network.addr()) == version).copied().collect();
        (!of_version.is_empty()).then_some(of_version)
    }

    pub(crate) fn is_counting(&self) -> bool {
        self.counting != Counting::Off
    }
}
