//! Which host ports lead to an instance: how a rewritten packet is recognised as ours, with [`Placement::Any`].
//!
//! In `postrouting` a packet to an instance shows that somebody rewrote its destination, not who. Here are the
//! published ports of each instance, by which `ct original proto-dst` tells: the instance's address, the protocol and
//! the port that was asked for. Blocks are aligned runs, as on the way back ([`crate::reverse`]).
//!
//! The same keys count packets, see [`crate::counters`].

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::{Mapping, Protocol};
use portolan_nft::{CtDirection, CtKey, Data, Element, Expression, Selector, matches};

use crate::{
    Changes, Counting, Direction, Placement, PlanConfig, Run, SetId, SetKind, Version, ingress, reverse,
};

/// The conditions of which one holds for what we rewrote: a lookup each.
pub(crate) fn conditions(version: Version) -> impl Iterator<Item = Vec<Expression>> {
    let asked = Selector::CtTuple(CtKey::DestinationPort, CtDirection::Original);
    lookups([version.destination(), Selector::L4Proto, asked], version, |run| {
        run.map_or(SetKind::Published, SetKind::PublishedRun)
    })
}

/// Single ports, then runs. `nft` reads `proto-dst` in a key only after a match on one transport protocol.
pub(crate) fn lookups(
    key: [Selector; 3],
    version: Version,
    kind: impl Fn(Option<Run>) -> SetKind,
) -> impl Iterator<Item = Vec<Expression>> {
    let name = move |run| SetId::new(kind(run), version).name();
    Protocol::ALL.into_iter().flat_map(move |protocol| {
        let is_protocol = || [matches::protocol(protocol.number()), version.guard()].concat();
        let single = [is_protocol(), matches::in_set(&key, name(None))].concat();
        let runs = Run::ALL.map(|run| [is_protocol(), reverse::masked(key, run, name(Some(run)))].concat());
        std::iter::once(single).chain(runs)
    })
}

/// A port, or the first of a run, of an instance.
pub(crate) type Key = (IpAddr, Protocol, Option<Run>, u16);

/// How many mappings publish each port of each instance: the same number may be published on several addresses.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    kinds: Vec<fn(Option<Run>) -> SetKind>,
    counts: BTreeMap<Key, u32>,
}

impl Published {
    pub(crate) fn new(config: &PlanConfig) -> Self {
        let mut kinds: Vec<fn(Option<Run>) -> SetKind> = Vec::new();
        if config.placement == Placement::Any {
            kinds.push(|run| run.map_or(SetKind::Published, SetKind::PublishedRun));
        }
        if config.counting == Counting::Traffic {
            kinds.push(|run| SetKind::Tally(Direction::Received, run));
            kinds.push(|run| SetKind::Tally(Direction::Sent, run));
        }
        Self { kinds, counts: BTreeMap::new() }
    }

    pub(crate) fn add(&mut self, mapping: &Mapping, changes: &mut Changes) {
        if self.kinds.is_empty() {
            return;
        }
        for key in keys(mapping) {
            let count = self.counts.entry(key).or_default();
            *count += 1;
            if *count == 1 {
                elements(&self.kinds, key).for_each(|(set, element)| changes.add(set, element));
            }
        }
    }

    pub(crate) fn remove(&mut self, mapping: &Mapping, changes: &mut Changes) {
        if self.kinds.is_empty() {
            return;
        }
        for key in keys(mapping) {
            let Some(count) = self.counts.get_mut(&key) else { continue };
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key);
                elements(&self.kinds, key).for_each(|(set, element)| changes.delete(set, element));
            }
        }
    }

    pub(crate) fn elements(&self) -> impl Iterator<Item = (SetId, Element)> {
        self.counts.keys().flat_map(|&key| elements(&self.kinds, key))
    }
}

/// The keys of a mapping: each version of IP, each run and single port.
pub(crate) fn keys(mapping: &Mapping) -> impl Iterator<Item = Key> {
    let (runs, rest) = reverse::cut(mapping.host);
    let runs = runs.into_iter().map(|(run, first)| (Some(run), first));
    let ports: Vec<_> = runs.chain(rest.into_iter().map(|port| (None, port))).collect();
    let protocol = mapping.protocol;
    ingress::targets(mapping).flat_map(move |instance| {
        ports.clone().into_iter().map(move |(run, port)| (instance, protocol, run, port))
    })
}

/// The key in the sets' form.
pub(crate) fn data((instance, protocol, _, port): Key) -> Data {
    Data::new().ip(instance).protocol(protocol.number()).port(port)
}

fn elements(
    kinds: &[fn(Option<Run>) -> SetKind],
    key: Key,
) -> impl Iterator<Item = (SetId, Element)> + use<'_> {
    let (instance, _, run, _) = key;
    let set = move |kind: &fn(Option<Run>) -> SetKind| SetId::new(kind(run), Version::of(instance));
    kinds.iter().map(move |kind| (set(kind), Element::new(data(key))))
}
