//! A machine with tables: packets go in, outcomes come out.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Choose, Connection, EvaluateError, Every, Host, Origin, Outcome, Packet,
    sets::Contents,
    walk::{Tracking, Walk, before},
};
use crate::{BaseChain, ChainKind, Element, Expression, Family, Hook, Rule, Ruleset};

/// So many outcomes of one packet are gone through, and no more.
const OUTCOMES: usize = 100_000;

/// A chain that the kernel calls.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) table: usize,
    pub(super) family: Family,
    pub(super) name: String,
    pub(super) chain: BaseChain,
}

impl Base {
    /// Whether it sees packets of IPv4, or of IPv6.
    pub(super) const fn sees(&self, ipv4: bool) -> bool {
        match self.family {
            Family::Inet => true,
            Family::Ip => ipv4,
            Family::Ip6 => !ipv4,
            _ => false,
        }
    }
}

/// A table whose chains are found by name.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    pub(super) name: String,
    pub(super) bases: Vec<Base>,
    pub(super) chains: BTreeMap<String, Vec<Rule>>,
}

impl Prepared {
    /// The chain's name as the table owns it.
    pub(super) fn name_of(&self, chain: &str) -> &str {
        self.chains.get_key_value(chain).map(|(name, _)| name.as_str()).unwrap_or_default()
    }
}

/// Tables on a host. What rules add to sets stays, as in the kernel.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    host: Host,
    tables: Vec<Arc<Prepared>>,
    // Of IPv4 and of IPv6: whether a rule needs connections tracked.
    tracks: [bool; 2],
    // Shared until a rule adds to one.
    sets: Vec<Arc<BTreeMap<String, Contents>>>,
}

impl Machine {
    /// Without any table.
    pub fn new(host: Host) -> Self {
        Self { host, ..Self::default() }
    }

    /// With one more table. Dormant ones see nothing.
    #[must_use]
    pub fn with(mut self, ruleset: &Ruleset) -> Self {
        let table = self.tables.len();
        let chains = ruleset.chains.iter().map(|filled| (filled.chain.name.clone(), filled.rules.clone()));
        let bases = ruleset.chains.iter().filter(|_| !ruleset.table.dormant).filter_map(|filled| {
            let (name, family) = (filled.chain.name.clone(), ruleset.table.family);
            Some(Base { table, family, name, chain: filled.chain.base.clone()? })
        });
        let prepared =
            Prepared { name: ruleset.table.to_string(), bases: bases.collect(), chains: chains.collect() };
        for rule in prepared.chains.values().flatten() {
            for family in rule.expressions.iter().filter_map(|one| tracked_by(one, ruleset.table.family)) {
                self.tracks[0] |= family != Family::Ip6;
                self.tracks[1] |= family != Family::Ip;
            }
        }
        self.tables.push(Arc::new(prepared));
        let sets = ruleset.sets.iter().map(|filled| (filled.set.name.clone(), Contents::new(filled)));
        self.sets.push(Arc::new(sets.collect()));
        self
    }

    /// The machine that it runs on.
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// What is in a set of any of its tables now; empty if there is none of that name.
    pub fn elements(&self, set: &str) -> Vec<Element> {
        self.sets.iter().find_map(|sets| sets.get(set)).map(Contents::elements).unwrap_or_default()
    }

    /// Sends the first packet of a connection. What rules add to sets stays.
    pub fn send(
        &mut self,
        packet: Packet,
        origin: &Origin,
        chooser: &mut dyn Choose,
    ) -> Result<Outcome, EvaluateError> {
        let tracking = if self.tracks[usize::from(!packet.is_ipv4())] {
            before(&packet, None)
        } else {
            Tracking::Untracked
        };
        self.walk(packet, tracking, origin, chooser)
    }

    /// Sends a packet of a connection that is tracked already, in its direction: filter chains see it, nat chains do
    /// not. Of the packet, source and destination are those that the connection says.
    pub fn send_within(
        &mut self,
        mut packet: Packet,
        connection: &Connection,
        origin: &Origin,
    ) -> Result<Outcome, EvaluateError> {
        let tuple = connection.tuple(connection.direction);
        (packet.source, packet.destination) = (tuple.source, tuple.destination);
        let tracking = before(&packet, Some(connection.clone()));
        self.walk(packet, tracking, origin, &mut Every::new())
    }

    /// Every outcome that the first packet of a connection can have. Nothing that rules add to sets stays.
    pub fn outcomes(&self, packet: &Packet, origin: &Origin) -> Result<Vec<Outcome>, EvaluateError> {
        let mut every = Every::new();
        let mut outcomes = Vec::new();
        loop {
            outcomes.push(self.clone().send(packet.clone(), origin, &mut every)?);
            if !every.advance() {
                return Ok(outcomes);
            }
            if outcomes.len() == OUTCOMES {
                return Err(EvaluateError::TooMany(OUTCOMES));
            }
        }
    }

    fn walk(
        &mut self,
        mut packet: Packet,
        connection: Tracking,
        origin: &Origin,
        chooser: &mut dyn Choose,
    ) -> Result<Outcome, EvaluateError> {
        if packet.source.is_ipv4() != packet.destination.is_ipv4() {
            return Err(EvaluateError::Families(packet.source.ip(), packet.destination.ip()));
        }
        if let Origin::Interface(name) = origin {
            packet.input = Some(name.clone());
        }
        let mut walk = Walk {
            host: &self.host,
            tables: &self.tables,
            sets: std::mem::take(&mut self.sets),
            packet,
            connection,
            hook: Hook::Prerouting,
            kind: ChainKind::Filter,
            leaves_unknown: false,
            way_source: None,
            steps: Vec::new(),
        };
        let fate = match origin {
            Origin::Interface(_) => walk.arrives(chooser),
            Origin::Here => walk.is_sent(chooser),
        };
        let Walk { sets, packet, connection, steps, .. } = walk;
        self.sets = sets;
        let connection = connection.tracked().cloned();
        Ok(Outcome { fate: fate?, packet, connection, steps })
    }
}

/// In which family this expression has connections tracked: only then does anybody track them, and without that no nat
/// chain is asked (`nf_ct_netns_get` in `nft_ct.c`, `nft_nat.c`, `nft_masq.c` and `nft_redir.c`; `nf_nat_inet_fn`).
const fn tracked_by(expression: &Expression, table: Family) -> Option<Family> {
    match expression {
        Expression::Nat(nat) => Some(nat.family),
        Expression::Ct(_)
        | Expression::CtSet { .. }
        | Expression::Masquerade(_)
        | Expression::Redirect(_) => Some(table),
        _ => None,
    }
}
