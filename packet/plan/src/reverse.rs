//! What an instance sends from a mapped port leaves with the published port.
//!
//! Peers of games, calls and file exchanges answer to, and tell others, the endpoint that they saw. Without this a
//! packet which an instance sends first would show some other port of this machine, where nobody listens.
//!
//! In this order, so that the most particular mapping decides:
//!
//! | published | map | rule |
//! |---|---|---|
//! | port on one address | `reverse_at` | `snat` to that address and port |
//! | block on one address | `reverse_block_at` | `snat` to that address, same port |
//! | port on all addresses | `reverse` | `masquerade` to that port |
//! | block on all addresses | `reverse_block` | `masquerade` to the same port |
//!
//! "The same port" is said to the kernel as a range of one port (`masquerade to :th sport`). Left out, the kernel
//! would keep the port too, unless an older connection from the same port had another one (`find_appropriate_src` in
//! `nf_nat_core.c`); with the range it is this port or, if the same two endpoints talk already, a dropped packet.
//!
//! One port of an instance may be published several times. It can leave with one number only: the lowest. Which
//! elements these are is decided by [`Reverse`], from what is mapped, not from the order in which it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use portolan_model::{Mapping, PortRange, Protocol};
use portolan_nft::{
    Data, Element, Expression, Lookup, LookupResult, Masquerade, Nat, NatFlags, NatKind, Register, Rule,
    Selector, load, matches, statement,
};

use crate::{Changes, SetId, SetKind, Version, hairpin, ingress, outbound};

const fn key(version: Version) -> [Selector; 3] {
    [version.source(), Selector::L4Proto, Selector::SourcePort]
}

/// The rules of `outbound_v4` or `outbound_v6`.
pub(crate) fn to_outside(version: Version) -> Vec<Rule> {
    let rule = || Rule::new(outbound::chain_name(version));
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = on_one_address(rule, version);
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(statement::masquerade_map(&key(version), map(SetKind::Reverse)))
    }));
    rules.extend(Protocol::ALL.map(|protocol| {
        let port = Some(Register::R1);
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(matches::in_set(&key(version), map(SetKind::ReverseBlock)))
            .then(Selector::SourcePort.load(Register::R1))
            .then(Expression::Masquerade(Masquerade { port, port_last: None, flags: NatFlags::NONE }))
    }));
    rules
}

/// The rules of `between_v4` or `between_v6`: as [`to_outside`], with the address that the sender used for this machine
/// instead of the outgoing interface's.
pub(crate) fn between(version: Version) -> Vec<Rule> {
    let rule = || Rule::new(hairpin::chain_name(version));
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = on_one_address(rule, version);
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(version.original_destination().load(Register::R1))
            .then(look_up(&key(version), map(SetKind::Reverse), Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(matches::in_set(&key(version), map(SetKind::ReverseBlock)))
            .then(version.original_destination().load(Register::R1))
            .then(Selector::SourcePort.load(Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules
}

/// Mappings of one address, the same to the outside and between instances.
fn on_one_address(rule: impl Fn() -> Rule, version: Version) -> Vec<Rule> {
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = vec![rule().then(version.guard()).then(statement::snat_map(
        version.family(),
        &key(version),
        map(SetKind::ReverseAt),
    ))];
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(look_up(&key(version), map(SetKind::ReverseBlockAt), Register::R1))
            .then(Selector::SourcePort.load(Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules
}

/// The value of the key's element into `to`; the rule ends where there is none.
fn look_up(key: &[Selector], map: String, to: Register) -> Vec<Expression> {
    let mut expressions = load(key, to);
    expressions.push(Expression::Lookup(Lookup { set: map, key: to, result: LookupResult::Data(to) }));
    expressions
}

/// `snat` to the address in the first register.
pub(crate) const fn source_nat(
    version: Version,
    port: Option<Register>,
    port_last: Option<Register>,
) -> Expression {
    Expression::Nat(Nat {
        kind: NatKind::Source,
        family: version.family(),
        address: Some(Register::R1),
        address_last: None,
        port,
        port_last,
        flags: NatFlags::NONE,
    })
}

/// A port of an instance.
type Source = (IpAddr, Protocol, u16);

/// Which published port each port of an instance leaves with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reverse {
    /// The host ports of a source, of which the lowest counts.
    any: BTreeMap<Source, BTreeSet<u16>>,
    /// The host addresses and ports of a source, of which the lowest counts.
    at: BTreeMap<Source, BTreeSet<(IpAddr, u16)>>,
    /// The blocks of an instance and protocol on all addresses. Those never overlap.
    block: BTreeSet<(IpAddr, Protocol, PortRange)>,
    /// The blocks of an instance and protocol on one address each: the same numbers may be on several.
    block_at: BTreeMap<(IpAddr, Protocol), BTreeSet<(PortRange, IpAddr)>>,
}

impl Reverse {
    pub(crate) fn add(&mut self, mapping: &Mapping, changes: &mut Changes) {
        self.change(mapping, true, changes);
    }

    pub(crate) fn remove(&mut self, mapping: &Mapping, changes: &mut Changes) {
        self.change(mapping, false, changes);
    }

    fn change(&mut self, mapping: &Mapping, add: bool, changes: &mut Changes) {
        let (protocol, host) = (mapping.protocol, mapping.host);
        for instance in ingress::targets(mapping) {
            let source = (instance, protocol, mapping.container);
            match (mapping.address, host.is_single()) {
                (None, true) => {
                    alter(&mut self.any, source, host.first(), add, changes, |ports| {
                        ports.first().map(|&port| any_element(source, port)).into_iter().collect()
                    });
                }
                (Some(address), true) => {
                    alter(&mut self.at, source, (address, host.first()), add, changes, |published| {
                        published.first().map(|&at| at_element(source, at)).into_iter().collect()
                    });
                }
                (None, false) => {
                    let block = (instance, protocol, host);
                    let (set, element) = block_element(block);
                    if add && self.block.insert(block) {
                        changes.add(set, element);
                    } else if !add && self.block.remove(&block) {
                        changes.delete(set, element);
                    }
                }
                (Some(address), false) => {
                    let group = (instance, protocol);
                    alter(&mut self.block_at, group, (host, address), add, changes, |blocks| {
                        winners(blocks).map(|block| block_at_element(group, block)).collect()
                    });
                }
            }
        }
    }

    /// All elements that hold now.
    pub(crate) fn elements(&self) -> Vec<(SetId, Element)> {
        let any = self.any.iter().filter_map(|(&source, ports)| Some(any_element(source, *ports.first()?)));
        let at = self.at.iter().filter_map(|(&source, all)| Some(at_element(source, *all.first()?)));
        let block = self.block.iter().copied().map(block_element);
        let block_at = self
            .block_at
            .iter()
            .flat_map(|(&group, blocks)| winners(blocks).map(move |block| block_at_element(group, block)));
        any.chain(at).chain(block).chain(block_at).collect()
    }

    /// The published address (`None`: the outgoing interface's) and port of what leaves from there.
    pub(crate) fn published(
        &self,
        instance: IpAddr,
        protocol: Protocol,
        port: u16,
    ) -> Option<(Option<IpAddr>, u16)> {
        let source = (instance, protocol, port);
        if let Some(&(address, published)) = self.at.get(&source).and_then(BTreeSet::first) {
            return Some((Some(address), published));
        }
        let blocks = self.block_at.get(&(instance, protocol));
        if let Some((_, address)) =
            blocks.and_then(|all| winners(all).find(|(range, _)| range.contains(port)))
        {
            return Some((Some(address), port));
        }
        if let Some(&published) = self.any.get(&source).and_then(BTreeSet::first) {
            return Some((None, published));
        }
        let highest = (instance, protocol, PortRange::new(port, u16::MAX).ok()?);
        let (owner, of, range) = *self.block.range(..=highest).next_back()?;
        (owner == instance && of == protocol && range.contains(port)).then_some((None, port))
    }
}

/// Changes one candidate of a group, and the elements that follow from the group.
fn alter<K: Ord + Copy, V: Ord>(
    groups: &mut BTreeMap<K, BTreeSet<V>>,
    group: K,
    candidate: V,
    add: bool,
    changes: &mut Changes,
    elements: impl Fn(&BTreeSet<V>) -> Vec<(SetId, Element)>,
) {
    let candidates = groups.entry(group).or_default();
    let before = elements(candidates);
    if add {
        candidates.insert(candidate);
    } else {
        candidates.remove(&candidate);
    }
    let after = elements(candidates);
    if candidates.is_empty() {
        groups.remove(&group);
    }
    for (set, element) in before.iter().filter(|element| !after.contains(element)) {
        changes.delete(*set, element.clone());
    }
    for (set, element) in after.iter().filter(|element| !before.contains(element)) {
        changes.add(*set, element.clone());
    }
}

/// Of blocks that overlap, the one that begins first; of equal ones, that of the lowest address.
fn winners(blocks: &BTreeSet<(PortRange, IpAddr)>) -> impl Iterator<Item = (PortRange, IpAddr)> {
    let mut taken = 0;
    blocks.iter().copied().filter(move |(range, _)| {
        let free = range.first() > taken;
        if free {
            taken = range.last();
        }
        free
    })
}

fn source_key((instance, protocol, port): Source) -> Data {
    Data::new().ip(instance).protocol(protocol.number()).port(port)
}

fn any_element(source: Source, port: u16) -> (SetId, Element) {
    let set = SetId::new(SetKind::Reverse, Version::of(source.0));
    (set, Element::new(source_key(source)).value(Data::new().port(port)))
}

fn at_element(source: Source, (address, port): (IpAddr, u16)) -> (SetId, Element) {
    let set = SetId::new(SetKind::ReverseAt, Version::of(source.0));
    (set, Element::new(source_key(source)).value(Data::new().ip(address).port(port)))
}

fn range_of(instance: IpAddr, protocol: Protocol, range: PortRange) -> Element {
    let key = |port| source_key((instance, protocol, port));
    Element::interval(key(range.first()), key(range.last()))
}

fn block_element((instance, protocol, range): (IpAddr, Protocol, PortRange)) -> (SetId, Element) {
    (SetId::new(SetKind::ReverseBlock, Version::of(instance)), range_of(instance, protocol, range))
}

fn block_at_element(
    (instance, protocol): (IpAddr, Protocol),
    (range, address): (PortRange, IpAddr),
) -> (SetId, Element) {
    let set = SetId::new(SetKind::ReverseBlockAt, Version::of(instance));
    (set, range_of(instance, protocol, range).value(address.into()))
}
