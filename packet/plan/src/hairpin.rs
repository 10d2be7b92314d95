//! Between instances through a published port: chains `between_v4` and `between_v6`.
//!
//! The packet was addressed to this machine, rewritten by [`crate::ingress`], and now leaves to an instance. With
//! [`Placement::Any`] others rewrite packets to instances too, so chains `rewritten_v4` and `rewritten_v6` come before:
//! the packet is ours if the port that was asked for is a published one of that very instance ([`crate::published`]),
//! and the address none that others serve (a Service's). Then:
//!
//! - sent from a mapped port, it shows the published port and the address by which the sender reached this machine
//!   (`ct original ip daddr`). Peers then know each other by the same endpoint inside and outside: "External source
//!   IP address and port", RFC 4787 section 6, REQ-9;
//! - sent by an instance to itself from any other port, it shows that address too. A packet from its own address
//!   would be dropped by the receiver as a martian, and its answer would never come back through this machine;
//! - with [`Placement::Any`], sent by one instance of this machine to another, both in [`PlanConfig::local`], the
//!   same, since they may be on one bridge: without `br_netfilter` the answer would go straight to the sender, who
//!   waits for one from another address;
//! - otherwise the source address is kept.
//!
//! nftables cannot compare two fields of a packet. That source and destination are the same is therefore asked of a
//! set which holds each instance's address beside itself.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::Protocol;
use portolan_nft::{Chain, Data, Element, Expression, FilledChain, Register, Rule, matches};

use crate::{Changes, Placement, PlanConfig, SetId, SetKind, Version, published, reverse};

/// The chain for what goes from instance to instance in this version of IP.
pub fn chain_name(version: Version) -> String {
    format!("between_{}", version.suffix())
}

/// The chain for what somebody rewrote to a mapped instance, in this version of IP.
pub fn rewritten_name(version: Version) -> String {
    format!("rewritten_{}", version.suffix())
}

pub(crate) fn chains(config: &PlanConfig) -> Vec<FilledChain> {
    let between = |version: Version| {
        let set = |kind| SetId::new(kind, version).name();
        let mut rules = reverse::between(version);
        let pair = matches::in_set(&[version.source(), version.destination()], set(SetKind::Hairpin));
        rules.extend(as_this_machine(config, version, &pair));
        if config.placement == Placement::Any {
            let both = [version.source(), version.destination()]
                .map(|address| matches::in_set(&[address], set(SetKind::Local)))
                .concat();
            rules.extend(as_this_machine(config, version, &both));
        }
        FilledChain { chain: Chain::regular(chain_name(version)), rules }
    };
    let mut chains = Version::ALL.map(between).to_vec();
    if config.placement == Placement::Any {
        chains.extend(Version::ALL.map(|version| FilledChain {
            chain: Chain::regular(rewritten_name(version)),
            rules: rewritten(version),
        }));
    }
    chains
}

fn rewritten(version: Version) -> Vec<Rule> {
    let rule = || Rule::new(rewritten_name(version));
    let set = |kind| SetId::new(kind, version).name();
    let asked = [version.original_destination()];
    // A bridge's own address is of the Pods' network too.
    let elsewhere = matches::not_in_set(&asked, set(SetKind::Local));
    let of_others = matches::in_set(&asked, set(SetKind::Direct));
    let mut rules = vec![rule().then(version.guard()).then(elsewhere).then(of_others).returns()];
    rules.extend(published::conditions(version).map(|ours| rule().then(ours).goto(chain_name(version))));
    rules
}

/// What fits `condition` gets the address by which the sender reached this machine, and an ordinary port.
fn as_this_machine(
    config: &PlanConfig,
    version: Version,
    condition: &[Expression],
) -> impl Iterator<Item = Rule> {
    let ports = config.outbound_ports;
    Protocol::ALL.into_iter().map(move |protocol| {
        let first = Expression::Immediate { to: Register::R2, data: Data::new().port(ports.first()) };
        let last = Expression::Immediate { to: Register::R3, data: Data::new().port(ports.last()) };
        Rule::new(chain_name(version))
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(condition.to_vec())
            .then(version.original_destination().load(Register::R1))
            .then([first, last])
            .then(reverse::source_nat(version, Some(Register::R2), Some(Register::R3)))
    })
}

/// How many mappings lead to each instance address: the first adds the elements, the last removes them.
#[derive(Clone, Debug)]
pub(crate) struct Hairpin {
    placement: Placement,
    mapped: BTreeMap<IpAddr, u32>,
}

impl Hairpin {
    pub(crate) const fn new(placement: Placement) -> Self {
        Self { placement, mapped: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, instance: IpAddr, changes: &mut Changes) {
        let count = self.mapped.entry(instance).or_default();
        *count += 1;
        if *count == 1 {
            elements(self.placement, instance).for_each(|(set, element)| changes.add(set, element));
        }
    }

    pub(crate) fn remove(&mut self, instance: IpAddr, changes: &mut Changes) {
        let Some(count) = self.mapped.get_mut(&instance) else { return };
        *count -= 1;
        if *count == 0 {
            self.mapped.remove(&instance);
            elements(self.placement, instance).for_each(|(set, element)| changes.delete(set, element));
        }
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = (SetId, Element)> {
        self.mapped.keys().flat_map(|&instance| elements(self.placement, instance))
    }
}

fn elements(placement: Placement, instance: IpAddr) -> impl Iterator<Item = (SetId, Element)> {
    let set = |kind| SetId::new(kind, Version::of(instance));
    let pair = (set(SetKind::Hairpin), Element::new(Data::new().ip(instance).ip(instance)));
    let alone = (set(SetKind::Mapped), Element::new(instance.into()));
    [Some(pair), (placement == Placement::Any).then_some(alone)].into_iter().flatten()
}
