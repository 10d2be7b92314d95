//! UDP flows that the kernel tracks by rules which no longer hold.
//!
//! The nat chains see only the first packet of a flow, and a UDP flow has no end: a client that goes on sending from the
//! same port reaches the endpoint that it was led to first, or nobody, for as long as it keeps trying. Those that lead
//! to no endpoint which serves are to be deleted. Also where a Service has none left, or is gone: kube-proxy leaves
//! these alone, and one was seen to last 13 hours (kubernetes/kubernetes#139628). TCP and SCTP end by themselves.

use std::{collections::HashSet, net::IpAddr};

use portolan_model::Protocol;
use portolan_nft::{Object, Transaction};
use portolan_plan::{Flow, Version};

use crate::{
    Front, NodePortAddresses, Services, SetId, SetKind, Space,
    claims::{Claim, Claimed},
    unit::Part,
};

/// The frontends which changes have touched: flows to others need not be judged.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    fronts: HashSet<Front>,
    wide: HashSet<IpAddr>,
    everything: bool,
}

impl Touched {
    /// Every flow is to be judged: after a start, or after others changed the rules.
    pub fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// This frontend came, went or changed.
    pub fn front(&mut self, front: Front) {
        match front {
            Front::Span { address, .. } | Front::Address(address) => {
                self.wide.insert(address);
            }
            Front::Port { protocol: Protocol::Udp, .. } | Front::Node { protocol: Protocol::Udp, .. } => {
                self.fronts.insert(front);
            }
            Front::Port { .. } | Front::Node { .. } => {}
        }
    }

    /// Elements of the table came or went that a difference found: what happened to frontends while nobody looked.
    pub fn elements(&mut self, transaction: &Transaction) {
        for operation in &transaction.operations {
            let Object::Elements(elements) = &operation.object else { continue };
            for version in Version::ALL {
                for space in Space::ALL {
                    if SetId::new(SetKind::Entrances(space), version).name() == elements.set.name {
                        for element in &elements.elements {
                            Front::read(space, version, element)
                                .into_iter()
                                .for_each(|front| self.front(front));
                        }
                    }
                }
            }
        }
    }

    /// These and those.
    pub fn merge(&mut self, other: &Self) {
        self.everything |= other.everything;
        self.fronts.extend(&other.fronts);
        self.wide.extend(&other.wide);
    }

    /// Whether no flow need be judged.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.fronts.is_empty() && self.wide.is_empty()
    }

    /// Whether a flow is to be judged.
    pub fn contains(&self, flow: &Flow) -> bool {
        flow.protocol == Protocol::Udp && (self.everything || self.names(flow))
    }

    fn names(&self, flow: &Flow) -> bool {
        let (address, port) = (flow.asked.ip(), flow.asked.port());
        let protocol = flow.protocol;
        self.fronts.contains(&Front::Port { address, protocol, port })
            || self.fronts.contains(&Front::Node { version: Version::of(address), protocol, port })
            || self.wide.contains(&address)
    }
}

impl Services {
    /// Whether the kernel sends this flow to where nobody serves. `touched`: the frontends that changed since flows were
    /// looked at last. `is_local`: whether an address is one of this machine's own.
    pub fn is_stale(&self, flow: &Flow, touched: &Touched, is_local: impl Fn(IpAddr) -> bool) -> bool {
        if flow.protocol != Protocol::Udp {
            return false;
        }
        let address = flow.asked.ip();
        let Some(claim) = self.asked(flow, &is_local) else {
            // Nobody's, and rewritten: it was somebody's.
            let ours =
                touched.names(flow) || self.config.service_networks.iter().any(|one| one.contains(&address));
            return ours && flow.asked != flow.server;
        };
        let Some(entry) = self.entries.get(&claim.service) else { return false };
        let Some(service) = &entry.service else { return false };
        let selection = self.selection(service, entry, claim.unit);
        let wide = claim.unit.part == Part::Wide;
        let mut serving = selection.candidates().iter().filter(|one| one.serving);
        !serving.any(|one| {
            one.target.address == flow.server.ip()
                && flow.server.port() == if wide { flow.asked.port() } else { one.target.port }
        })
    }

    /// Whose frontend it is that a flow asked for.
    fn asked(&self, flow: &Flow, is_local: &impl Fn(IpAddr) -> bool) -> Option<&Claim> {
        let (address, port, protocol) = (flow.asked.ip(), flow.asked.port(), flow.protocol);
        let winner = |front| self.registry.winner(Claimed::Front(front));
        let serves_ports = || match &self.config.node_ports {
            NodePortAddresses::All => !address.is_loopback() && is_local(address),
            NodePortAddresses::Only(addresses) => addresses.contains(&address),
        };
        winner(Front::Port { address, protocol, port })
            .or_else(|| self.registry.span(address, protocol, port))
            .or_else(|| winner(Front::Address(address)))
            .or_else(|| {
                let node = || winner(Front::Node { version: Version::of(address), protocol, port });
                serves_ports().then(node).flatten()
            })
    }
}
