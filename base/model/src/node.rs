//! What `portolan run` asks of `portolan up` on the same machine, over the unix socket of the data folder.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

use crate::{Incarnation, InstanceId, Name, PortRanges, PortRequest, PublishedPort};

/// Where an instance's process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// A network namespace of its own; packets reach it through mappings. Needs root.
    Own,
    /// The host's network: the process binds the host port itself.
    Host,
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Own => "own",
            Self::Host => "host",
        })
    }
}

/// What a lease lives as long as.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Owner {
    /// A process, told apart from a later one with the same number: the supervisor of `portolan run`.
    Process {
        /// Its number.
        pid: u32,
        /// When it began: field 22 of `/proc/PID/stat`, in clock ticks since boot.
        start_time: u64,
    },
    /// A network namespace that a runtime has made: a CNI attachment.
    Namespace {
        /// Its file, a mount of the namespace.
        path: PathBuf,
        /// The file's device, which tells the mounted namespace from a plain file that is left of it.
        device: u64,
        /// The file's inode, which no other namespace has at the same time.
        inode: u64,
    },
    /// A Pod's sandbox on the host's network: alive until its runtime says that it is gone.
    Sandbox {
        /// The runtime's name for it.
        id: String,
    },
}

impl Owner {
    /// Whether a runtime rather than a process of ours decides how long it lives. Of such an owner the next life may
    /// begin before the last one has ended: kubelet makes a Pod's new sandbox while the old one is being removed.
    pub const fn is_runtimes(&self) -> bool {
        !matches!(self, Self::Process { .. })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, .. } => write!(f, "process {pid}"),
            Self::Namespace { path, .. } => write!(f, "namespace {}", path.display()),
            Self::Sandbox { id } => write!(f, "sandbox {id}"),
        }
    }
}

/// `POST /v1/node/leases`: ports for an instance, and with [`Network::Own`] a namespace.
///
/// Asked again by the same owner it answers with the same lease, so that a supervisor can ask whenever it is in doubt:
/// after `up` was restarted, or before it starts its command again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRequest {
    /// The instance's name.
    pub instance: Name,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Its supervisor: when it is gone, so is the lease.
    pub owner: Owner,
    /// Where the process will live.
    pub network: Network,
    /// What it wants.
    pub ports: Vec<PortRequest>,
}

/// The answer to a [`LeaseRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReply {
    /// The ports, in the order in which they were asked for.
    pub ports: Vec<PublishedPort>,
    /// Where clients reach the node, best first.
    pub addresses: Vec<IpAddr>,
    /// The node's name.
    pub node: String,
    /// The instance's network.
    pub network: Network,
    /// The namespace to enter, as a path; only with [`Network::Own`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The `resolv.conf` to mount inside; only with [`Network::Own`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<String>,
    /// The holder's socket, for a process that takes its sockets ready bound.
    pub holder: String,
    /// The instance's own addresses; only with [`Network::Own`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v4: Option<Ipv4Addr>,
    /// See `v4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub v6: Option<Ipv6Addr>,
}

/// `GET /v1/node/ports`: what the pools have left and who holds what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePorts {
    /// The node's name.
    pub node: String,
    /// Each pool.
    pub pools: Vec<PoolUsage>,
    /// Each lease, by instance name.
    pub leases: Vec<LeaseUsage>,
}

/// How full a pool is. Numbers are of port numbers, whichever protocol uses them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolUsage {
    /// The pool.
    pub name: Name,
    /// Its ports.
    pub range: PortRanges,
    /// Given away.
    pub used: u32,
    /// Not yet to be given to another owner.
    pub quarantined: u32,
    /// To be had.
    pub free: u32,
    /// The longest run of free ports.
    pub largest_block: u32,
}

/// A lease as a person wants to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseUsage {
    /// The instance.
    pub instance: InstanceId,
    /// What it lives as long as.
    pub owner: Owner,
    /// Its network.
    pub network: Network,
    /// Its ports.
    pub ports: Vec<PublishedPort>,
    /// Its own addresses; only with [`Network::Own`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// `GET /v1/node`: what this node can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub node: String,
    /// The version of the program.
    pub version: String,
    /// The process that runs it.
    pub pid: u32,
    /// Where clients reach it, best first.
    pub addresses: Vec<IpAddr>,
    /// Whether instances can have a network of their own here.
    pub dataplane: bool,
    /// The address of the page and the API.
    pub listen: String,
    /// The address of the DNS server.
    pub dns: String,
    /// The zone that it answers for.
    pub zone: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_as_it_was_written_before_there_were_several_kinds() {
        let process: Owner = serde_json::from_str(r#"{"pid":7,"start_time":9}"#).unwrap();
        assert_eq!(process, Owner::Process { pid: 7, start_time: 9 });
        assert_eq!(serde_json::to_string(&process).unwrap(), r#"{"pid":7,"start_time":9}"#);
        let namespace = Owner::Namespace { path: "/run/netns/cni-1".into(), device: 4, inode: 4026532000 };
        for owner in [process, namespace, Owner::Sandbox { id: "0f".into() }] {
            let text = serde_json::to_string(&owner).unwrap();
            assert_eq!(serde_json::from_str::<Owner>(&text).unwrap(), owner, "{text}");
        }
    }
}
