//! What came by, for each mapping: how many connections, and with [`Counting::Traffic`] how many packets and bytes.
//!
//! Connections are counted by the elements that forward them, in chains of kind `nat`, which see the first packet of a
//! connection only: an established one pays nothing. A connection that nobody answers is counted as often as it is
//! tried.
//!
//! Packets are counted after rewriting in chains `traffic` (from elsewhere) and `traffic_output` (from this machine),
//! by the instance and the published port that connection tracking remembers:
//!
//! | the connection | to the instance | from the instance |
//! |---|---|---|
//! | came to the published port | original direction | reply direction |
//! | the instance began it from a mapped port | reply direction | original direction, but the first packet |
//!
//! Both are part of elements ([`portolan_nft::Set::counter`], kernel 5.7), so they live as long as these: a change of
//! other mappings does not touch them.

use std::collections::HashMap;

use portolan_model::{Mapping, MappingKey};
use portolan_nft::{
    BaseChain, Chain, ChainKind, Counter, CtDirection, CtKey, Data, Element, FilledChain, Hook, Policy, Rule,
    Selector, matches, matches::ct_status, priority,
};

use crate::{Counting, Direction, PlanConfig, SetId, SetKind, Version, ingress, published};

/// What came by one mapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections; for UDP, clients that had been silent for a while.
    pub connections: u64,
    /// Packets to the instance; 0 unless [`Counting::Traffic`].
    pub received_packets: u64,
    /// Bytes of these, network headers included.
    pub received_bytes: u64,
    /// Packets from the instance; 0 unless [`Counting::Traffic`].
    pub sent_packets: u64,
    /// Bytes of these, network headers included.
    pub sent_bytes: u64,
}

impl Counts {
    /// These and those.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            connections: self.connections + other.connections,
            received_packets: self.received_packets + other.received_packets,
            received_bytes: self.received_bytes + other.received_bytes,
            sent_packets: self.sent_packets + other.sent_packets,
            sent_bytes: self.sent_bytes + other.sent_bytes,
        }
    }

    /// Whether these cannot have come after those: something was counted anew from 0.
    pub const fn began_anew(self, before: Self) -> bool {
        self.connections < before.connections
            || self.received_packets < before.received_packets
            || self.sent_packets < before.sent_packets
    }
}

const CHAIN: &str = "traffic";
const OUTPUT: &str = "traffic_output";
const COUNT: &str = "traffic_count";

pub(crate) fn chains(config: &PlanConfig) -> Vec<FilledChain> {
    if config.counting != Counting::Traffic {
        return Vec::new();
    }
    let entrance = |name: &str, hook| {
        // Behind everything that rewrites destinations.
        let base = BaseChain {
            kind: ChainKind::Filter,
            hook,
            priority: priority::DSTNAT + 10,
            policy: Policy::Accept,
        };
        let rewritten = matches::ct_status_any(ct_status::SNAT | ct_status::DNAT);
        FilledChain {
            chain: Chain { name: name.to_owned(), base: Some(base), comment: None },
            rules: vec![Rule::new(name).then(rewritten).goto(COUNT)],
        }
    };
    let mut chains = vec![entrance(CHAIN, Hook::Prerouting), entrance(OUTPUT, Hook::Output)];
    let mut branches = Vec::new();
    for (how, status, remembered) in
        [("came", ct_status::DNAT, CtDirection::Original), ("began", ct_status::SNAT, CtDirection::Reply)]
    {
        for version in Version::ALL {
            for direction in Direction::ALL {
                let name = format!("{CHAIN}_{how}_{}_{}", direction.as_str(), version.suffix());
                // Towards the instance goes what goes the way that names the published port as its destination.
                let (way, instance) = match direction {
                    Direction::Received => (remembered, version.destination()),
                    Direction::Sent => (other(remembered), version.source()),
                };
                let branch = Rule::new(COUNT)
                    .then(matches::ct_status_any(status))
                    .then(matches::ct_direction(way))
                    .then(version.guard());
                branches.push(branch.jump(&name));
                let port = Selector::CtTuple(CtKey::DestinationPort, remembered);
                let kind = |run| SetKind::Tally(direction, run);
                let found = published::lookups([instance, Selector::L4Proto, port], version, kind);
                let rules = found.map(|found| Rule::new(&name).then(found)).collect();
                chains.push(FilledChain { chain: Chain::regular(name), rules });
            }
        }
    }
    chains.push(FilledChain { chain: Chain::regular(COUNT), rules: branches });
    chains
}

const fn other(direction: CtDirection) -> CtDirection {
    match direction {
        CtDirection::Original => CtDirection::Reply,
        CtDirection::Reply => CtDirection::Original,
    }
}

/// Adds up what the kernel's elements have counted, for each of these mappings in their order. `read` gives the elements
/// of a set.
pub fn counts<E>(
    config: &PlanConfig,
    mappings: &[Mapping],
    mut read: impl FnMut(SetId) -> Result<Vec<Element>, E>,
) -> Result<Vec<(MappingKey, Counts)>, E> {
    if config.counting == Counting::Off {
        return Ok(Vec::new());
    }
    let mut all: HashMap<SetId, HashMap<Data, Counter>> = HashMap::new();
    for set in SetId::all(config).filter(|set| set.is_counted(config)) {
        let counted = read(set)?.into_iter().filter_map(|element| Some((element.key, element.counter?)));
        all.insert(set, counted.collect());
    }
    let find =
        |set: SetId, key: &Data| all.get(&set).and_then(|set| set.get(key)).copied().unwrap_or_default();
    let of = |mapping: &Mapping| {
        let mut counts = Counts::default();
        for (set, element) in ingress::elements(mapping) {
            counts.connections += find(set, &element.key).packets;
        }
        if config.counting == Counting::Traffic {
            for key in published::keys(mapping) {
                let tally = |direction| {
                    let (instance, _, run, _) = key;
                    find(
                        SetId::new(SetKind::Tally(direction, run), Version::of(instance)),
                        &published::data(key),
                    )
                };
                let (received, sent) = (tally(Direction::Received), tally(Direction::Sent));
                counts.received_packets += received.packets;
                counts.received_bytes += received.bytes;
                counts.sent_packets += sent.packets;
                counts.sent_bytes += sent.bytes;
            }
        }
        (mapping.key(), counts)
    };
    Ok(mappings.iter().map(of).collect())
}
