//! The way of one packet through the hooks: which chains see it, in which order, and what the kernel does between.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{
    Choose, Connection, EvaluateError, Fate, Host, Packet, Place, Step, Tuple, What,
    machine::{Base, Prepared},
    registers::Registers,
    rule::{End, Run},
    sets::Contents,
};
use crate::{ChainKind, Hook, NatKind, Policy, Verdict, matches::ct_state, priority};

/// `NFT_JUMP_STACK_SIZE`.
const DEPTH: usize = 16;
/// So many rules of one chain and those it leads to. The kernel refuses circles; a ruleset that was never loaded may
/// have one.
const RULES: usize = 1_000_000;

/// What connection tracking holds of the packet right now.
#[derive(Clone, Debug)]
pub(super) enum Tracking {
    /// It has not seen it yet.
    Before(Connection),
    /// It has.
    Tracked(Connection),
    /// It will not.
    Untracked,
}

impl Tracking {
    pub(super) fn state(&self) -> u32 {
        match self {
            Self::Before(_) => ct_state::INVALID,
            Self::Tracked(connection) => connection.state,
            Self::Untracked => ct_state::UNTRACKED,
        }
    }

    pub(super) const fn tracked(&self) -> Option<&Connection> {
        match self {
            Self::Tracked(connection) => Some(connection),
            _ => None,
        }
    }

    pub(super) const fn tracked_mut(&mut self) -> Option<&mut Connection> {
        match self {
            Self::Tracked(connection) => Some(connection),
            _ => None,
        }
    }

    /// `notrack`: nothing for what is tracked already (`nft_notrack_eval`).
    pub(super) fn untrack(&mut self) {
        if matches!(self, Self::Before(_)) {
            *self = Self::Untracked;
        }
    }

    fn begin(&mut self) {
        if let Self::Before(connection) = self {
            *self = Self::Tracked(connection.clone());
        }
    }
}

/// A packet on its way.
pub(super) struct Walk<'w> {
    pub(super) host: &'w Host,
    pub(super) tables: &'w [Arc<Prepared>],
    pub(super) sets: Vec<Arc<BTreeMap<String, Contents>>>,
    pub(super) packet: Packet,
    pub(super) connection: Tracking,
    pub(super) hook: Hook,
    pub(super) kind: ChainKind,
    /// The packet leaves, and nothing is known of routes.
    pub(super) leaves_unknown: bool,
    /// The outgoing interface's address.
    pub(super) way_source: Option<IpAddr>,
    pub(super) steps: Vec<Step>,
}

/// Who is called at a hook.
enum Called<'t> {
    ConnectionTracking,
    Translation(Vec<&'t Base>),
    Chain(&'t Base),
}

impl Walk<'_> {
    pub(super) fn step(&mut self, place: Option<&Place>, what: What) {
        self.steps.push(Step { hook: self.hook, place: place.cloned(), what });
    }

    /// One side of the packet as it is now.
    pub(super) const fn side(&self, kind: NatKind) -> SocketAddr {
        match kind {
            NatKind::Source => self.packet.source,
            NatKind::Destination => self.packet.destination,
        }
    }

    /// From an interface: to this machine, or through it.
    pub(super) fn arrives(&mut self, chooser: &mut dyn Choose) -> Result<Fate, EvaluateError> {
        if let Some(end) = self.hook(Hook::Prerouting, chooser)? {
            return Ok(end);
        }
        if self.host.is_local(self.packet.destination.ip()) {
            return self.comes_in(chooser);
        }
        if !self.route() {
            return Ok(Fate::Unroutable);
        }
        if let Some(end) = self.hook(Hook::Forward, chooser)? {
            return Ok(end);
        }
        self.goes_out(chooser)
    }

    /// From a socket of this machine: out, or to itself.
    pub(super) fn is_sent(&mut self, chooser: &mut dyn Choose) -> Result<Fate, EvaluateError> {
        self.hook = Hook::Output;
        if !self.route() {
            return Ok(Fate::Unroutable);
        }
        let before = (self.packet.destination, self.packet.mark);
        if let Some(end) = self.hook(Hook::Output, chooser)? {
            return Ok(end);
        }
        // `nf_nat_ipv4_local_fn`: what goes elsewhere now takes another way.
        if before != (self.packet.destination, self.packet.mark) && !self.route() {
            return Ok(Fate::Unroutable);
        }
        if !self.host.is_local(self.packet.destination.ip()) {
            return self.goes_out(chooser);
        }
        match self.goes_out(chooser)? {
            Fate::Sent { .. } => {}
            end => return Ok(end),
        }
        // Over the loopback, with its connection: translation is decided already.
        self.packet.input = self.packet.output.take();
        self.leaves_unknown = false;
        if let Some(end) = self.hook(Hook::Prerouting, chooser)? {
            return Ok(end);
        }
        self.comes_in(chooser)
    }

    fn comes_in(&mut self, chooser: &mut dyn Choose) -> Result<Fate, EvaluateError> {
        self.step(None, What::Routed { local: true, interface: None });
        if let Some(end) = self.hook(Hook::Input, chooser)? {
            return Ok(end);
        }
        self.connection.tracked_mut().into_iter().for_each(Connection::confirm);
        Ok(Fate::Delivered)
    }

    fn goes_out(&mut self, chooser: &mut dyn Choose) -> Result<Fate, EvaluateError> {
        if let Some(end) = self.hook(Hook::Postrouting, chooser)? {
            return Ok(end);
        }
        self.connection.tracked_mut().into_iter().for_each(Connection::confirm);
        Ok(Fate::Sent { interface: self.packet.output.clone() })
    }

    /// Decides the interface it goes out by; `false` if no way leads there.
    fn route(&mut self) -> bool {
        let to = self.packet.destination.ip();
        if self.host.is_local(to) {
            self.packet.output = Some("lo".to_owned());
            self.way_source = Some(self.host.over_loopback(to));
        } else if let Some(route) = self.host.way(to) {
            self.packet.output = Some(route.interface.clone());
            self.way_source = Some(route.source);
        } else if self.host.has_routes() {
            self.step(None, What::Unroutable);
            return false;
        } else {
            self.leaves_unknown = true;
        }
        let interface = self.packet.output.clone();
        self.step(None, What::Routed { local: false, interface });
        true
    }

    /// Everybody who is called at a hook, in order. Connection tracking comes first at the two hooks where packets
    /// appear. All nat chains are called by one function of the kernel, at its own priority whatever theirs are:
    /// `nf_nat_inet_fn` in `net/netfilter/nf_nat_core.c` and `nf_nat_proto.c`, v6.18.
    fn hook(&mut self, hook: Hook, chooser: &mut dyn Choose) -> Result<Option<Fate>, EvaluateError> {
        self.hook = hook;
        let ipv4 = self.packet.is_ipv4();
        let mut nat = Vec::new();
        let mut called: Vec<(i32, Called<'_>)> = Vec::new();
        for base in self.tables.iter().flat_map(|table| &table.bases) {
            if base.chain.hook == hook && base.sees(ipv4) {
                match base.chain.kind {
                    ChainKind::Nat => nat.push(base),
                    _ => called.push((base.chain.priority, Called::Chain(base))),
                }
            }
        }
        nat.sort_by_key(|base| base.chain.priority);
        let begins = matches!(hook, Hook::Prerouting | Hook::Output);
        if begins {
            called.push((priority::RAW + 100, Called::ConnectionTracking));
        }
        if hook != Hook::Forward {
            let at = if begins { priority::DSTNAT } else { priority::SRCNAT };
            called.push((at, Called::Translation(nat)));
        }
        called.sort_by_key(|(priority, _)| *priority);
        for (_, called) in called {
            let end = match called {
                Called::ConnectionTracking => {
                    self.connection.begin();
                    None
                }
                Called::Translation(chains) => self.translate(&chains, chooser)?,
                Called::Chain(base) => self.base(base, chooser)?,
            };
            if end.is_some() {
                return Ok(end);
            }
        }
        Ok(None)
    }

    /// The first nat chain that decides is the last that is asked, and what none decides stays as it is.
    fn translate(
        &mut self,
        chains: &[&Base],
        chooser: &mut dyn Choose,
    ) -> Result<Option<Fate>, EvaluateError> {
        let kind = match self.hook {
            Hook::Prerouting | Hook::Output => NatKind::Destination,
            _ => NatKind::Source,
        };
        let decided =
            |walk: &Self| walk.connection.tracked().is_none_or(|connection| connection.is_decided(kind));
        for base in chains {
            if decided(self) {
                break;
            }
            if let Some(end) = self.base(base, chooser)? {
                return Ok(Some(end));
            }
        }
        let Some(connection) = self.connection.tracked_mut() else { return Ok(None) };
        if !connection.is_decided(kind) {
            let side = connection.side(kind);
            connection.decide(kind, side);
        }
        let Tuple { source, destination, .. } = connection.translated();
        let from = self.side(kind);
        let to = match kind {
            NatKind::Source => std::mem::replace(&mut self.packet.source, source),
            NatKind::Destination => std::mem::replace(&mut self.packet.destination, destination),
        };
        debug_assert_eq!(from, to);
        let to = self.side(kind);
        if from != to {
            self.step(None, What::Rewritten { kind, from, to });
        }
        Ok(None)
    }

    /// One base chain and all it jumps to. `None`: the packet goes on.
    fn base(&mut self, base: &Base, chooser: &mut dyn Choose) -> Result<Option<Fate>, EvaluateError> {
        self.kind = base.chain.kind;
        let prepared = &self.tables[base.table];
        let mut back: Vec<(&str, usize)> = Vec::new();
        let (mut chain, mut at) = (base.name.as_str(), 0);
        let mut ran = 0;
        loop {
            let rules = prepared.chains.get(chain).map(Vec::as_slice).unwrap_or_default();
            let Some(rule) = rules.get(at) else {
                // The end of a chain: back to where it was called from.
                match back.pop() {
                    Some(caller) => (chain, at) = caller,
                    None => return Ok(self.policy(base)),
                }
                continue;
            };
            let place = Place { table: prepared.name.clone(), chain: chain.to_owned(), rule: Some(at) };
            let mut run = Run { walk: self, registers: Registers::new(), table: base.table, place: &place };
            let end = run.rule(&rule.expressions, chooser)?;
            (at, ran) = (at + 1, ran + 1);
            if ran > RULES {
                return Err(EvaluateError::Endless { place });
            }
            let verdict = match end {
                End::Next => continue,
                End::Matched => {
                    self.step(Some(&place), What::Matched);
                    continue;
                }
                End::Rejected(how) => {
                    self.step(Some(&place), What::Rejected(how));
                    return Ok(Some(Fate::Rejected { how, place }));
                }
                End::Verdict(verdict) => verdict,
            };
            self.step(Some(&place), What::Verdict(verdict.clone()));
            match verdict {
                Verdict::Accept => return Ok(None),
                Verdict::Drop => return Ok(Some(Fate::Dropped { place })),
                Verdict::Continue => {}
                Verdict::Return => match back.pop() {
                    Some(caller) => (chain, at) = caller,
                    None => return Ok(self.policy(base)),
                },
                Verdict::Jump(to) | Verdict::Goto(to) if !prepared.chains.contains_key(&to) => {
                    return Err(EvaluateError::Missing { place, what: "chain", name: to });
                }
                Verdict::Jump(to) => {
                    if back.len() == DEPTH {
                        return Err(EvaluateError::TooDeep { place });
                    }
                    back.push((chain, at));
                    (chain, at) = (prepared.name_of(&to), 0);
                }
                Verdict::Goto(to) => (chain, at) = (prepared.name_of(&to), 0),
            }
        }
    }

    fn policy(&mut self, base: &Base) -> Option<Fate> {
        let place =
            Place { table: self.tables[base.table].name.clone(), chain: base.name.clone(), rule: None };
        self.step(Some(&place), What::Policy(base.chain.policy));
        (base.chain.policy == Policy::Drop).then_some(Fate::Dropped { place })
    }
}

/// A connection whose packet has not been seen by connection tracking yet.
pub(super) fn before(packet: &Packet, known: Option<Connection>) -> Tracking {
    Tracking::Before(known.unwrap_or_else(|| Connection::new(packet.tuple())))
}
