//! Between instances through a published port: chains `between_v4` and `between_v6`.
//!
//! The packet was addressed to this machine, rewritten by [`crate::ingress`], and now leaves to an instance:
//!
//! - sent from a mapped port, it shows the published port and the address by which the sender reached this machine
//!   (`ct original ip daddr`). Peers then know each other by the same endpoint inside and outside: "External source
//!   IP address and port", RFC 4787 section 6, REQ-9;
//! - sent by an instance to itself from any other port, it shows that address too. A packet from its own address
//!   would be dropped by the receiver as a martian, and its answer would never come back through this machine;
//! - otherwise the source address is kept.
//!
//! nftables cannot compare two fields of a packet. That source and destination are the same is therefore asked of a
//! set which holds each instance's address beside itself.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::Protocol;
use portolan_nft::{Chain, Data, Element, FilledChain, Register, Rule, matches};

use crate::{Changes, PlanConfig, SetId, SetKind, Version, reverse};

/// The chain for what goes from instance to instance in this version of IP.
pub fn chain_name(version: Version) -> String {
    format!("between_{}", version.suffix())
}

pub(crate) fn chains(config: &PlanConfig) -> Vec<FilledChain> {
    let chain = |version| {
        let mut rules = reverse::between(version);
        rules.extend(to_itself(config, version));
        FilledChain { chain: Chain::regular(chain_name(version)), rules }
    };
    Version::ALL.map(chain).to_vec()
}

fn to_itself(config: &PlanConfig, version: Version) -> impl Iterator<Item = Rule> {
    let pair = [version.source(), version.destination()];
    let set = SetId::new(SetKind::Hairpin, version).name();
    let ports = config.outbound_ports;
    Protocol::ALL.into_iter().map(move |protocol| {
        let first =
            portolan_nft::Expression::Immediate { to: Register::R2, data: Data::new().port(ports.first()) };
        let last =
            portolan_nft::Expression::Immediate { to: Register::R3, data: Data::new().port(ports.last()) };
        Rule::new(chain_name(version))
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(matches::in_set(&pair, set.as_str()))
            .then(version.original_destination().load(Register::R1))
            .then([first, last])
            .then(reverse::source_nat(version, Some(Register::R2), Some(Register::R3)))
    })
}

/// How many mappings lead to each instance address: the first adds the element, the last removes it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hairpin {
    mapped: BTreeMap<IpAddr, u32>,
}

impl Hairpin {
    pub(crate) fn add(&mut self, instance: IpAddr, changes: &mut Changes) {
        let count = self.mapped.entry(instance).or_default();
        *count += 1;
        if *count == 1 {
            let (set, element) = element(instance);
            changes.add(set, element);
        }
    }

    pub(crate) fn remove(&mut self, instance: IpAddr, changes: &mut Changes) {
        let Some(count) = self.mapped.get_mut(&instance) else { return };
        *count -= 1;
        if *count == 0 {
            self.mapped.remove(&instance);
            let (set, element) = element(instance);
            changes.delete(set, element);
        }
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = (SetId, Element)> {
        self.mapped.keys().map(|&instance| element(instance))
    }
}

fn element(instance: IpAddr) -> (SetId, Element) {
    let set = SetId::new(SetKind::Hairpin, Version::of(instance));
    (set, Element::new(Data::new().ip(instance).ip(instance)))
}
