//! The whole table: what a machine with nothing gets, and what any other state is compared with.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_nft::{Element, FilledSet, Ruleset};
use portolan_plan::Version;

use crate::{
    NodePortAddresses, Services, SetId, SetKind, chains,
    changes::Piece,
    shared::Shared,
    sources,
    unit::{Sink, Unit},
};

impl Services {
    /// The table without elements, but those of source ranges, which belong to their sets. Sets are in the order in
    /// which they are to be filled, see [`SetId::all`].
    pub fn shape(&self) -> Ruleset {
        let mut ruleset = Ruleset::new(self.table());
        ruleset.chains = chains::fixed(&self.config);
        let mut ranges = Vec::new();
        for shared in self.shared.keys() {
            let Shared::Piece(piece) = shared else { continue };
            let (chains, sets) = self.piece(piece);
            ruleset.chains.extend(chains);
            ranges.extend(sets);
        }
        let mut ranges = Some(ranges);
        for set in SetId::all(&self.config) {
            if set.kind == SetKind::AllowedItself {
                ruleset.sets.extend(ranges.take().into_iter().flatten());
            }
            ruleset.sets.push(FilledSet { set: set.declaration(&self.config), elements: Vec::new() });
        }
        ruleset
    }

    /// The whole table that the Services ask for.
    pub fn ruleset(&self) -> Ruleset {
        let mut ruleset = self.shape();
        for filled in &mut ruleset.sets {
            if let Some(id) = self.set_id(&filled.set.name) {
                filled.elements = self.elements_of(id).collect();
            }
        }
        ruleset
    }

    /// The set with this name.
    pub fn set_id(&self, name: &str) -> Option<SetId> {
        let ranges = self.shared.keys().filter_map(|shared| match shared {
            Shared::Piece(Piece::Allowed(version, number)) => {
                Some(SetId::new(SetKind::Allowed(*number), *version))
            }
            _ => None,
        });
        SetId::all(&self.config).chain(ranges).find(|id| id.name() == name)
    }

    /// The elements of a set by its name; none of a set that is not there.
    pub fn elements(&self, set: &str) -> impl Iterator<Item = Element> + '_ {
        self.set_id(set).into_iter().flat_map(|id| self.elements_of(id))
    }

    /// The elements of a set, one after the other; none of sets that packets fill.
    pub fn elements_of(&self, set: SetId) -> impl Iterator<Item = Element> + '_ {
        let some = self.shared.contains_key(&Shared::Set(set));
        let units = some.then(|| self.entries.values()).into_iter().flatten().flat_map(|entry| &entry.units);
        let units = units.filter(move |unit| unit.id.version == set.version);
        let of_units = units.flat_map(move |unit| self.of_unit(unit, set));
        let shared = Shared::with_elements(set.kind).map(|range| self.shared.range(range));
        let shared = shared.into_iter().flatten().map(|(shared, _)| shared);
        let shared = shared.filter(move |shared| shared.may_have(set));
        let of_shared = shared.flat_map(Shared::elements).filter(move |(id, _)| *id == set);
        of_units.chain(of_shared.map(|(_, element)| element)).chain(self.configured(set))
    }

    fn of_unit(&self, unit: &Unit, set: SetId) -> Vec<Element> {
        let mut elements = Vec::new();
        match set.kind {
            SetKind::Backends(list)
            | SetKind::AddressBackends(list)
            | SetKind::NotedBackends(list)
            | SetKind::NotedAddressBackends(list) => {
                if unit.backends(list) == set {
                    let slots = unit.list(list).slots();
                    elements.extend(
                        slots.iter().enumerate().map(|(number, target)| unit.backend(number, target)),
                    );
                }
            }
            kind if !unit.may_have(kind) => {}
            _ => unit.others(&self.config, &mut Sink::only(set, &mut |_, element| elements.push(element))),
        }
        elements
    }

    /// Elements that follow from the configuration alone, and source ranges.
    fn configured(&self, set: SetId) -> Vec<Element> {
        let of_version = |address: &&IpAddr| Version::of(**address) == set.version;
        match (set.kind, &self.config.node_ports) {
            (SetKind::NodeAddresses, NodePortAddresses::Only(addresses)) => {
                addresses.iter().filter(of_version).map(|address| Element::new((*address).into())).collect()
            }
            (SetKind::ServiceNetworks, _) => {
                let networks: Vec<IpNet> = self.config.service_networks.iter().map(IpNet::trunc).collect();
                let mut networks = IpNet::aggregate(&networks);
                networks.sort_unstable();
                let of_version = networks.into_iter().filter(|one| Version::of(one.addr()) == set.version);
                of_version.map(sources::interval).collect()
            }
            (SetKind::Allowed(number), _) => {
                let (_, sets) = self.piece(&Piece::Allowed(set.version, number));
                sets.into_iter().flat_map(|filled| filled.elements).collect()
            }
            _ => Vec::new(),
        }
    }
}
