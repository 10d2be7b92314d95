//! A change of a Service or of its endpoints, compiled: who claims what, which units follow, and which elements.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use portolan_model::{ObjectName, Protocol, Service};
use portolan_nft::{Data, Element};
use portolan_plan::Version;

use super::{Claims, Entry, Services};
use crate::{
    Candidate, Changes, Front, Gone, Identity, List, Selection, SetId, Target, chains,
    changes::Piece,
    claims::{Claim, Claimed, Rank, Registry},
    drain,
    roster::Roster,
    select::Asked,
    shared::Shared,
    slices::Here,
    sources::Ranges,
    unit::{self, Known, Noted, Part, Sink, Unit, UnitId},
};

impl Services {
    /// What a Service is now.
    pub(super) fn units(
        &self,
        name: &Arc<ObjectName>,
        entry: &Entry,
        ranges: &mut HashMap<(Version, u64), Ranges>,
    ) -> Vec<Unit> {
        let Some(service) = &entry.service else { return Vec::new() };
        let mut of_service = Vec::new();
        let known = known_units(&self.registry, service, entry).into_iter();
        let units = known.map(|id| self.unit(name, service, entry, id, &mut of_service)).collect();
        for (version, one) in of_service {
            ranges.entry((version, one.number())).or_insert(one);
        }
        units
    }

    /// The Service itself changed: claims, and then all whose claims win or lose by that.
    pub(super) fn service_changed(&mut self, name: &ObjectName) -> Changes {
        let name = self.shared_name(name);
        let mut affected = self.claim_identities(&name);
        affected.insert(name);
        let mut todo = affected.clone();
        while let Some(next) = todo.pop_first() {
            for other in self.claim_fronts(&next) {
                if affected.insert(other.clone()) {
                    todo.insert(other);
                }
            }
        }
        let mut changes = Changes::none();
        for name in affected {
            self.compile_by_name(&name, &mut changes);
        }
        changes.deletions_first();
        changes
    }

    /// Its endpoints changed: nobody else is concerned.
    pub(super) fn endpoints_changed(&mut self, name: &Arc<ObjectName>) -> Changes {
        let mut changes = Changes::none();
        self.compile_by_name(name, &mut changes);
        changes.deletions_first();
        changes
    }

    /// Claims what the units of a Service are known by. Gives the Services that this changes something for.
    fn claim_identities(&mut self, name: &Arc<ObjectName>) -> BTreeSet<Arc<ObjectName>> {
        let Some(entry) = self.entries.get(name) else { return BTreeSet::new() };
        let wanted = identities(name, entry);
        self.exchange_claims(name, &wanted, |entry| &mut entry.identities)
    }

    /// Claims all other frontends of those units that are known.
    fn claim_fronts(&mut self, name: &Arc<ObjectName>) -> BTreeSet<Arc<ObjectName>> {
        let Some(entry) = self.entries.get(name) else { return BTreeSet::new() };
        let wanted = other_fronts(&self.registry, entry);
        self.exchange_claims(name, &wanted, |entry| &mut entry.fronts)
    }

    fn exchange_claims(
        &mut self,
        name: &Arc<ObjectName>,
        wanted: &[(Claimed, Claim)],
        field: fn(&mut Entry) -> &mut Claims,
    ) -> BTreeSet<Arc<ObjectName>> {
        let Some(entry) = self.entries.get_mut(name) else { return BTreeSet::new() };
        let before = std::mem::replace(field(entry), wanted.into());
        let mut affected = BTreeSet::new();
        let mut each = |name: &Arc<ObjectName>| {
            affected.insert(name.clone());
        };
        for (what, claim) in before.iter().filter(|one| !wanted.contains(one)) {
            self.registry.remove(*what, claim, &mut each);
        }
        for (what, claim) in wanted.iter().filter(|one| !before.contains(one)) {
            self.registry.add(*what, claim.clone(), &mut each);
        }
        affected
    }

    fn compile_by_name(&mut self, name: &Arc<ObjectName>, changes: &mut Changes) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let mut entry = std::mem::take(entry);
        self.compile(name, &mut entry, changes);
        if let Some(place) = self.entries.get_mut(name) {
            *place = entry;
        }
    }

    /// Compiles a Service anew. The changes are those from what it was. The entry is not among the others meanwhile.
    fn compile(&mut self, name: &Arc<ObjectName>, entry: &mut Entry, changes: &mut Changes) {
        let mut ranges = std::mem::take(&mut self.ranges);
        let units = self.units(name, entry, &mut ranges);
        self.ranges = ranges;
        let before = std::mem::take(&mut entry.units);
        changes.of_service(name);
        let drain = entry.service.as_ref().and_then(|service| service.options.drain);
        let find = |units: &[Unit], id| units.iter().position(|unit| unit.id == id);
        let gone = before.iter().filter(|old| find(&units, old.id).is_none()).map(|old| (Some(old), None));
        let now = units.iter().map(|new| (find(&before, new.id).map(|at| &before[at]), Some(new)));
        let changed: Vec<_> = gone.chain(now).filter(|(old, new)| old != new).collect();
        // What one unit lets go, another may take.
        changed.iter().filter_map(|(_, new)| *new).for_each(|new| self.acquire(new, changes));
        changed.iter().filter_map(|(old, _)| *old).for_each(|old| self.release(old, changes));
        for (old, new) in changed {
            self.exchange_elements(old, new, changes);
            touch(old, new, changes);
            drained(name, old, new, drain, changes);
        }
        entry.units = units.into();
    }

    /// One unit of a Service that is known.
    fn unit(
        &self,
        name: &Arc<ObjectName>,
        service: &Service,
        entry: &Entry,
        (id, known): (UnitId, Known),
        ranges: &mut Vec<(Version, Ranges)>,
    ) -> Unit {
        let before = entry.units.iter().find(|unit| unit.id == id);
        let selection = self.selection(service, entry, id);
        let list = |list: List| {
            Roster::new(service.options.balance, selection.list(list), before.map(|unit| unit.list(list)))
        };
        let (cluster, local) = (list(List::Cluster), list(List::Local));
        let listed = |one: &Candidate| List::ALL.iter().any(|list| selection.standing(*list, one).is_in());
        let mut here: Vec<IpAddr> = selection
            .candidates()
            .iter()
            .filter(|one| one.local && listed(one))
            .map(|one| one.target.address)
            .collect();
        here.dedup();
        let held = |(front, rank)| {
            let claim = Claim { rank, service: name.clone(), unit: id };
            if !self.registry.has(Claimed::Front(front), &claim) {
                return None;
            }
            let (held, list) = unit::held(service, (front, rank), &self.config);
            ranges.extend(list.map(|list| (id.version, list)));
            Some(held)
        };
        let protocol = match known {
            Known::By(identity) => Some(identity.protocol),
            Known::Wide(_) => None,
        };
        let has_flows = protocol.is_none_or(|one| one == Protocol::Udp);
        let lingering = selection.candidates().iter().filter(|one| has_flows && one.serving && !listed(one));
        let drains = service.options.drain.is_some() && protocol.is_none_or(|one| one == Protocol::Tcp);
        Unit {
            id,
            known,
            protocol,
            fronts: unit::fronts(service, id).into_iter().filter_map(held).collect(),
            cluster,
            local,
            here: here.into(),
            present: drains.then(|| selection.candidates().iter().map(|one| one.target).collect()),
            lingering: lingering.map(|one| one.target).collect(),
            has_endpoints: selection.has_endpoints(),
            internal: service.internal_policy,
            external: if service.is_externally_local() {
                portolan_model::TrafficPolicy::Local
            } else {
                portolan_model::TrafficPolicy::Cluster
            },
            sticky: unit::sticky(service),
            noted: service.affinity.is_some() || self.config.is_counting(),
            reject_without_local: service.options.reject_without_local,
        }
    }

    /// The endpoints of a unit.
    pub(crate) fn selection(&self, service: &Service, entry: &Entry, id: UnitId) -> Selection {
        let here = Here::new(&self.config, &self.names);
        let mut candidates = Vec::new();
        for slice in entry.slices.values() {
            match id.part {
                Part::Port(place) => {
                    let Some(port) = service.ports.get(usize::from(place)) else { continue };
                    let of_port = slice.of_port(&port.name, port.protocol, id.version);
                    candidates.extend(of_port.map(|(kept, number)| here.candidate(service, kept, number)));
                }
                Part::Wide => {
                    let all = slice.of_version(id.version);
                    candidates.extend(all.map(|kept| here.candidate(service, kept, 0)));
                }
            }
        }
        Selection::new(candidates, Asked::by(service))
    }

    /// One more user of all that this unit uses.
    fn acquire(&mut self, unit: &Unit, changes: &mut Changes) {
        for shared in unit.uses(&self.config) {
            let count = self.shared.entry(shared).or_default();
            *count += 1;
            if *count == 1 {
                self.shared_change(true, &shared, changes);
            }
        }
    }

    /// One user less.
    fn release(&mut self, unit: &Unit, changes: &mut Changes) {
        for shared in unit.uses(&self.config) {
            let Some(count) = self.shared.get_mut(&shared) else { continue };
            *count -= 1;
            if *count > 0 {
                continue;
            }
            self.shared.remove(&shared);
            self.shared_change(false, &shared, changes);
            if let Shared::Piece(Piece::Allowed(version, number)) = shared {
                self.ranges.remove(&(version, number));
            }
        }
    }

    fn shared_change(&self, add: bool, shared: &Shared, changes: &mut Changes) {
        if let Shared::Piece(piece) = shared {
            let (chains, sets) = self.piece(piece);
            changes.piece(add, *piece, chains, sets);
        }
        for (set, element) in shared.elements() {
            changes.element(add, set, element);
        }
    }

    /// The chains and sets of a piece.
    pub(crate) fn piece(
        &self,
        piece: &Piece,
    ) -> (Vec<portolan_nft::FilledChain>, Vec<portolan_nft::FilledSet>) {
        match piece {
            Piece::Way(way) => (vec![way.chain(&self.config)], Vec::new()),
            Piece::Allowed(version, number) => {
                let Some(ranges) = self.ranges.get(&(*version, *number)) else { return Default::default() };
                let (chain, set) = ranges.piece(*version, *number, &self.config);
                (vec![chain], vec![set])
            }
            Piece::Sources => (chains::sources(&self.config), Vec::new()),
            Piece::Drain => (drain::chains(), Vec::new()),
        }
    }

    fn exchange_elements(&self, old: Option<&Unit>, new: Option<&Unit>, changes: &mut Changes) {
        // Where an endpoint is noted, it is in another set: affinity that comes or goes moves all of them.
        let same = old.zip(new).is_some_and(|(old, new)| {
            old.known == new.known && old.noted == new.noted && old.sticky == new.sticky
        });
        for list in List::ALL {
            self.exchange_backends((old, new), same, list, changes);
            self.exchange_notes((old, new), same, list, changes);
        }
        let collect = |unit: Option<&Unit>| {
            let mut all: BTreeMap<(SetId, Data), Element> = BTreeMap::new();
            if let Some(unit) = unit {
                unit.of_fronts(
                    &self.config,
                    &mut Sink::all(&mut |set, element| {
                        all.insert((set, element.key.clone()), element);
                    }),
                );
            }
            all
        };
        let (before, mut after) = (collect(old), collect(new));
        for ((set, key), element) in before {
            match after.remove(&(set, key)) {
                Some(same) if same == element => {}
                Some(other) => {
                    changes.element(false, set, element);
                    changes.element(true, set, other);
                }
                None => changes.element(false, set, element),
            }
        }
        for ((set, _), element) in after {
            changes.element(true, set, element);
        }
    }

    /// By number.
    fn exchange_backends(&self, (old, new): Pair<'_>, same: bool, list: List, changes: &mut Changes) {
        if same && old.map(|unit| unit.list(list)) == new.map(|unit| unit.list(list)) {
            return;
        }
        let (before, after) = (slots(old, list), slots(new, list));
        for number in 0..before.len().max(after.len()) {
            let (gone, come) = (before.get(number), after.get(number));
            if same && gone == come {
                continue;
            }
            for (add, unit, target) in [(false, old, gone), (true, new, come)] {
                if let (Some(unit), Some(target)) = (unit, target) {
                    changes.element(add, unit.backends(list), unit.backend(number, target));
                }
            }
        }
    }

    /// By address and port. `same`: what is in both stays.
    fn exchange_notes(&self, (old, new): Pair<'_>, same: bool, list: List, changes: &mut Changes) {
        let notes = |unit: Option<&Unit>| {
            unit.map(|unit| unit.notes(&self.config, list, &Sink::all(&mut |_, _| {}))).unwrap_or_default()
        };
        let (before, after) = (notes(old), notes(new));
        let in_both = |of: &[Noted], set, target: &Target| {
            let other = of.iter().find(|noted| noted.set == set);
            same && other.is_some_and(|noted| noted.targets.binary_search(target).is_ok())
        };
        for (add, unit, these, others) in [(false, old, &before, &after), (true, new, &after, &before)] {
            let Some(unit) = unit else { continue };
            for noted in these {
                for target in noted.targets.iter().filter(|target| !in_both(others, noted.set, target)) {
                    changes.element(add, noted.set, unit.note(noted.set, target));
                }
            }
        }
    }
}

fn slots(unit: Option<&Unit>, list: List) -> Cow<'_, [Target]> {
    unit.map(|unit| unit.list(list).slots()).unwrap_or_default()
}

/// What a unit was, and what it is.
type Pair<'a> = (Option<&'a Unit>, Option<&'a Unit>);

/// What the units of a Service want to be known by.
pub(super) fn identities(name: &Arc<ObjectName>, entry: &Entry) -> Claims {
    let Some(service) = &entry.service else { return Box::default() };
    let claim = |id, claimed| (claimed, Claim { rank: Rank::Cluster, service: name.clone(), unit: id });
    unit_ids(service).into_iter().map(|(id, known)| claim(id, claimed(known))).collect()
}

/// All other frontends that those units want which are known.
pub(super) fn other_fronts(registry: &Registry, entry: &Entry) -> Claims {
    let Some(service) = &entry.service else { return Box::default() };
    let mut wanted = Vec::new();
    for (known, claim) in entry.identities.iter().filter(|(what, claim)| registry.has(*what, claim)) {
        let fronts = unit::fronts(service, claim.unit).into_iter();
        let others = fronts.filter(|(front, _)| Claimed::Front(*front) != *known);
        wanted.extend(others.map(|(front, rank)| (Claimed::Front(front), Claim { rank, ..claim.clone() })));
    }
    wanted.into()
}

/// The units of a Service that are known by what they want to be known by.
fn known_units(registry: &Registry, service: &Service, entry: &Entry) -> Vec<(UnitId, Known)> {
    let is_known = |(id, known): &(UnitId, Known)| {
        let what = claimed(*known);
        entry
            .identities
            .iter()
            .any(|(one, claim)| *one == what && claim.unit == *id && registry.has(what, claim))
    };
    unit_ids(service).into_iter().filter(is_known).collect()
}

const fn claimed(known: Known) -> Claimed {
    match known {
        Known::By(Identity { address, protocol, port }) => {
            Claimed::Front(Front::Port { address, protocol, port })
        }
        Known::Wide(address) => Claimed::Wide(address),
    }
}

/// The units that a Service has, if nobody else is known by the same.
pub(crate) fn unit_ids(service: &Service) -> Vec<(UnitId, Known)> {
    let mut units = Vec::new();
    for version in Version::ALL {
        let of_version = |address: &&IpAddr| Version::of(**address) == version;
        let Some(&address) = service.cluster_addresses.iter().find(of_version) else { continue };
        for (place, port) in (0..).zip(&service.ports) {
            let identity = Identity { address, protocol: port.protocol, port: port.port };
            units.push((UnitId { version, part: Part::Port(place) }, Known::By(identity)));
        }
        if service.options.whole_address || !service.options.spans.is_empty() {
            units.push((UnitId { version, part: Part::Wide }, Known::Wide(address)));
        }
    }
    units
}

/// UDP flows of this unit may lead elsewhere now.
fn touch(old: Option<&Unit>, new: Option<&Unit>, changes: &mut Changes) {
    for unit in [old, new].into_iter().flatten() {
        if unit.protocol.is_none_or(|protocol| protocol == Protocol::Udp) {
            for held in &unit.fronts {
                changes.touched_mut().front(held.front);
            }
        }
    }
}

/// Which endpoints of a Service that drains left, and which are back.
fn drained(
    name: &Arc<ObjectName>,
    old: Option<&Unit>,
    new: Option<&Unit>,
    drain: Option<std::time::Duration>,
    changes: &mut Changes,
) {
    let present = |unit: Option<&Unit>| -> BTreeSet<Target> {
        unit.and_then(|unit| unit.present.as_deref()).unwrap_or_default().iter().copied().collect()
    };
    let (before, after) = (present(old), present(new));
    let gone = |unit: &Unit, target: Target, after| Gone {
        service: (**name).clone(),
        fronts: unit.fronts.iter().map(|held| held.front).collect(),
        target,
        after,
    };
    // A Service that is gone itself, or drains no more, leaves its connections alone.
    if let (Some(old), Some(after_this)) = (old, drain) {
        for target in before.difference(&after) {
            changes.left(gone(old, *target, after_this));
        }
    }
    if let (Some(new), Some(after_this)) = (new, drain) {
        for target in after.difference(&before) {
            changes.returned(gone(new, *target, after_this));
        }
    }
}
