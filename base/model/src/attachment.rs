//! What the CNI plugin asks of the node's agent: one attachment of one container to one network.
//!
//! They talk over a unix socket, one line of JSON each way per connection: an [`AgentRequest`] and its [`AgentReply`].
//! Both come from one binary, yet an old plugin may meet a new agent during an upgrade: fields are only added, and new
//! ones have a default. A new plugin meets an old agent only where somebody put it there by hand: it may be told that
//! they are of different versions.

mod runs;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{NodePorts, PortName, PortRequest, Protocol, PublishedPort};

/// Shorter runs of mappings stay single ports, each with a name of its own.
const LONG: u16 = 16;

/// Where the agent listens unless told otherwise.
pub const AGENT_SOCKET: &str = "/run/portolan/agent.sock";

/// What CNI identifies an attachment by: "the tuple of (CNI_CONTAINERID, CNI_IFNAME)" within a network
/// (CNI specification 1.1, section 2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// `CNI_CONTAINERID`; with Kubernetes the sandbox's ID.
    pub container: String,
    /// `CNI_IFNAME`, such as `eth0`.
    pub interface: String,
    /// The network configuration's `name`. It may have been renamed since ADD, so nothing is found by it alone.
    pub network: String,
}

/// The Pod that a sandbox belongs to, as the runtime says in `CNI_ARGS`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`, of runtimes that tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// An entry of the runtime's `portMappings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StaticPort {
    /// The host port; 0 asks for a random one.
    pub host_port: u16,
    /// The port that the container listens on; never 0.
    pub container_port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// The only host address that answers; `0.0.0.0` and `::` are every local one of their family, `None` of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_address: Option<IpAddr>,
}

impl StaticPort {
    /// The mappings as what an instance asks for, each under a name of its own that no request of `beside` has:
    /// `tcp-8080` by container port, and by host port too where that is not enough. The same list gives the same names.
    /// Long runs of neighbouring ports that keep their numbers are one request each: as a block they are one rule.
    pub fn requests(ports: &[Self], beside: &[PortRequest]) -> Vec<PortRequest> {
        let mut names: BTreeSet<PortName> = beside.iter().map(|request| request.name.clone()).collect();
        let mut requests = Vec::with_capacity(ports.len());
        for (port, count) in Self::runs(ports) {
            let short = format!("{}-{}", port.protocol, port.container_port);
            let long = format!("{short}-{}", port.host_port);
            let name = [short, long.clone()]
                .into_iter()
                .chain((2..=u32::MAX).map(|n| format!("{long}-{n}")))
                .filter_map(|name| PortName::new(name).ok())
                .find(|name| !names.contains(name));
            let Some(name) = name else { continue };
            names.insert(name.clone());
            requests.push(PortRequest {
                protocols: port.protocol.into(),
                host: (port.host_port != 0).then_some(port.host_port),
                container: Some(port.container_port),
                count,
                address: port.host_address,
                ..PortRequest::named(name)
            });
        }
        requests
    }

    /// Each mapping, with 1; or the first of a long run, with how many there are.
    fn runs(ports: &[Self]) -> Vec<(Self, u16)> {
        let mut all: Vec<(Self, u16)> = Vec::with_capacity(ports.len());
        // The last run of each protocol and address: runtimes list them side by side.
        let mut open: BTreeMap<(Protocol, Option<IpAddr>), usize> = BTreeMap::new();
        for port in ports {
            let key = (port.protocol, port.host_address);
            let straight = port.host_port == port.container_port;
            if let Some((first, count)) = open.get(&key).and_then(|&index| all.get_mut(index))
                && straight
                && first.host_port.checked_add(*count) == Some(port.host_port)
            {
                *count += 1;
                continue;
            }
            match straight {
                true => drop(open.insert(key, all.len())),
                false => drop(open.remove(&key)),
            }
            all.push((*port, 1));
        }
        let number = |port: Self, more: u16| Self {
            host_port: port.host_port + more,
            container_port: port.container_port + more,
            ..port
        };
        let short = |(port, count): (Self, u16)| match count {
            LONG.. => vec![(port, count)],
            _ => (0..count).map(|more| (number(port, more), 1)).collect(),
        };
        all.into_iter().flat_map(short).collect()
    }

    /// Whether a request asks for this, alone or among others.
    pub fn is_in(&self, request: &PortRequest) -> bool {
        let inside = request.host.zip(request.container).is_some_and(|(host, container)| {
            let more = self.host_port.checked_sub(host).filter(|more| *more < request.count);
            more.is_some_and(|more| container.checked_add(more) == Some(self.container_port))
        });
        inside && request.protocols.contains(self.protocol) && request.address == self.host_address
    }
}

/// An attachment that is to have its ports: CNI's ADD, and CHECK of the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddRequest {
    /// Which.
    pub attachment: Attachment,
    /// `CNI_NETNS`, the path of the network namespace: how long the lease lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<String>,
    /// With Kubernetes, the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodRef>,
    /// The addresses of the sandbox's interface with their prefixes, as the plugins before us in the chain gave them: the
    /// first of each family is what ports are mapped to.
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    /// What the runtime wants mapped.
    #[serde(default, with = "runs")]
    pub ports: Vec<StaticPort>,
    /// The Pod's annotations, of runtimes that give them (containerd does for a plugin with the capability
    /// `io.kubernetes.cri.pod-annotations`). `None`: ask the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// One line from the plugin to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentRequest {
    /// Give it its ports. The same again has the same answer.
    Add(AddRequest),
    /// Take them back. Unknown attachments are done already.
    Del {
        /// Which.
        attachment: Attachment,
        /// With Kubernetes, the Pod.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pod: Option<PodRef>,
    },
    /// Whether everything of it is as ADD left it.
    Check(AddRequest),
    /// Take back what belongs to attachments of this network that are not in `valid`.
    Gc {
        /// The network.
        network: String,
        /// The attachments that exist.
        valid: Vec<Attachment>,
    },
    /// Whether an ADD would be served.
    Status,
    /// What the pools have left and who has what.
    Ports,
}

/// One line from the agent to the plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentReply {
    /// Done. Of an ADD or CHECK: the ports, in the order of the request, those of annotations after those of the runtime.
    Done {
        /// The ports.
        #[serde(default)]
        ports: Vec<PublishedPort>,
    },
    /// The answer to [`AgentRequest::Ports`].
    Ports(NodePorts),
    /// Refused or failed.
    Error {
        /// The code of the CNI specification that the runtime is told: below 100 the specification's own, such as 11 for
        /// "try again later"; from 100 on ours.
        code: u32,
        /// What was wrong and what to do.
        message: String,
        /// More of it, for the runtime's log.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        details: String,
    },
}

#[cfg(test)]
mod tests;
