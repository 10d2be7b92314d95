//! Who else may use the ports of a pool: the kernel for its own choices, Kubernetes for node ports, Pods with static
//! host ports of another program.
//!
//! Nothing here is an error. Holds and `ip_local_reserved_ports` ([`crate::reserve`]) keep the kernel out where they may
//! be had, and announced ports are passed over; but nobody can keep kube-proxy from a node port, and an administrator
//! wants to know.

use std::fmt;

use portolan_model::{Name, PortRange, PortRanges};

use crate::pool::Pools;

/// The node ports of Kubernetes unless its API server was told otherwise (`--service-node-port-range`).
pub const NODE_PORTS: &str = "30000-32767";

/// Somebody else who uses ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// The kernel, for connections whose port nobody chose: [`crate::ephemeral`].
    Ephemeral(PortRange),
    /// Services of type NodePort and LoadBalancer.
    NodePorts(PortRange),
    /// A static host port, and whose it is.
    Static(PortRange, String),
}

/// A pool that shares ports with somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The pool.
    pub pool: Name,
    /// Its ports.
    pub ranges: PortRanges,
    /// Who else.
    pub other: Other,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, ranges, other } = self;
        write!(f, "the pool {pool} ({ranges}) overlaps ")?;
        match other {
            Other::Ephemeral(range) => write!(
                f,
                "the kernel's ephemeral ports ({range}): choose another range, or reserve it (sysctl \
                 net.ipv4.ip_local_reserved_ports={ranges})"
            ),
            Other::NodePorts(range) => write!(
                f,
                "the node ports of Kubernetes ({range}): choose another range for one of them; meanwhile a Service may \
                 be given a number that an instance has"
            ),
            Other::Static(range, who) => write!(
                f,
                "the static host port {range} of {who}: it is passed over; a static port belongs outside of the pools"
            ),
        }
    }
}

/// The pools that share ports with any of `others`.
pub fn find(pools: &Pools, others: &[Other]) -> Vec<Overlap> {
    let mut found = Vec::new();
    for pool in pools.iter() {
        for other in others {
            let (Other::Ephemeral(range) | Other::NodePorts(range) | Other::Static(range, _)) = other;
            if pool.ranges.overlaps(*range) {
                let (pool, ranges) = (pool.name.clone(), pool.ranges.clone());
                found.push(Overlap { pool, ranges, other: other.clone() });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_is_apart_from_what_linux_and_kubernetes_use_by_default() {
        let others = [
            Other::Ephemeral("32768-60999".parse().unwrap()),
            Other::NodePorts(NODE_PORTS.parse().unwrap()),
            Other::Static("8080".parse().unwrap(), "default/web".to_owned()),
        ];
        assert_eq!(find(&Pools::default(), &others), []);
    }

    #[test]
    fn each_overlap_says_with_whom_and_what_to_do() {
        let others = [
            Other::Ephemeral("29999-60999".parse().unwrap()),
            Other::NodePorts("25000-25100".parse().unwrap()),
            Other::Static("20001".parse().unwrap(), "the Pod default/web".to_owned()),
        ];
        let texts: Vec<String> = find(&Pools::default(), &others).iter().map(Overlap::to_string).collect();
        assert!(
            texts[0].ends_with("reserve it (sysctl net.ipv4.ip_local_reserved_ports=20000-29999)"),
            "{texts:?}"
        );
        assert!(texts[1].contains("the node ports of Kubernetes (25000-25100)"), "{texts:?}");
        assert!(texts[2].contains("the static host port 20001 of the Pod default/web"), "{texts:?}");
    }
}
