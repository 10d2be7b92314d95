//! Which published port each port of an instance leaves with.
//!
//! Several mappings may lead to one port of an instance. What leaves from there can show one number only, so one of
//! them wins, and when it goes the next one does. The winner follows from what is mapped, not from the order in which
//! it came.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use portolan_model::{Mapping, PortRange, Protocol};
use portolan_nft::{Data, Element};

use crate::{Changes, Run, SetId, SetKind, Version, ingress};

/// A port of an instance.
type Source = (IpAddr, Protocol, u16);

/// The candidates of every port, and the elements that follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reverse {
    /// The host ports of a source, of which the lowest counts; those of blocks after those of single ports.
    any: BTreeMap<Source, BTreeSet<(bool, u16)>>,
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
        // Nobody outside could answer to the loopback.
        if mapping.address.is_some_and(|address| address.is_loopback()) {
            return;
        }
        let (protocol, host) = (mapping.protocol, mapping.host);
        for instance in ingress::targets(mapping) {
            let source = (instance, protocol, mapping.container);
            match (mapping.address, host.is_single()) {
                (None, true) => self.alter_any(source, (false, host.first()), add, changes),
                (Some(address), true) => {
                    alter(&mut self.at, source, (address, host.first()), add, changes, |published| {
                        published.first().map(|&at| at_element(source, at)).into_iter().collect()
                    });
                }
                (None, false) => {
                    let block = (instance, protocol, host);
                    if add {
                        self.block.insert(block)
                    } else {
                        self.block.remove(&block)
                    };
                    let (runs, rest) = cut(host);
                    for (set, element) in runs.into_iter().map(|run| run_element(instance, protocol, run)) {
                        if add { changes.add(set, element) } else { changes.delete(set, element) }
                    }
                    for port in rest {
                        self.alter_any((instance, protocol, port), (true, port), add, changes);
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

    fn alter_any(&mut self, source: Source, published: (bool, u16), add: bool, changes: &mut Changes) {
        alter(&mut self.any, source, published, add, changes, |ports| {
            ports.first().map(|&(_, port)| any_element(source, port)).into_iter().collect()
        });
    }

    /// All elements that hold now.
    pub(crate) fn elements(&self) -> Vec<(SetId, Element)> {
        let any = self.any.iter().filter_map(|(&source, ports)| Some(any_element(source, ports.first()?.1)));
        let at = self.at.iter().filter_map(|(&source, all)| Some(at_element(source, *all.first()?)));
        let block = self.block.iter().flat_map(|&(instance, protocol, range)| {
            cut(range).0.into_iter().map(move |run| run_element(instance, protocol, run))
        });
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
        if let Some(&(_, published)) = self.any.get(&source).and_then(BTreeSet::first) {
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

fn run_element(instance: IpAddr, protocol: Protocol, (run, first): (Run, u16)) -> (SetId, Element) {
    let set = SetId::new(SetKind::ReverseRun(run), Version::of(instance));
    (set, Element::new(source_key((instance, protocol, first))))
}

/// Cuts a block into aligned runs, and the ports that are in none.
pub(crate) fn cut(block: PortRange) -> (Vec<(Run, u16)>, Vec<u16>) {
    let (mut runs, mut rest) = (Vec::new(), Vec::new());
    let mut left = Some(block);
    while let Some(range) = left {
        let first = range.first();
        let run = Run::ALL.into_iter().find(|run| first & !run.mask() == 0 && range.count() >= run.length());
        match run {
            Some(run) => runs.push((run, first)),
            None => rest.push(first),
        }
        let next = first.checked_add(run.map_or(1, Run::length));
        left = next.and_then(|next| PortRange::new(next, range.last()).ok());
    }
    (runs, rest)
}

fn block_at_element(
    (instance, protocol): (IpAddr, Protocol),
    (range, address): (PortRange, IpAddr),
) -> (SetId, Element) {
    let set = SetId::new(SetKind::ReverseBlockAt, Version::of(instance));
    (set, range_of(instance, protocol, range).value(address.into()))
}
