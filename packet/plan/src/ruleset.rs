//! The whole table: what a machine with nothing gets, and what any other state is compared with.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use portolan_nft::{Element, Family, FilledSet, Ruleset, Table};

use crate::{Plan, PlanConfig, SetId, SetKind, Version, hairpin, ingress, outbound, protect};

/// Our table.
pub(crate) fn table(config: &PlanConfig) -> Table {
    Table::new(Family::Inet, &config.table)
        .comment("Portolan keeps this table; what others change in it is undone")
}

impl Plan {
    /// The whole table that the mappings ask for: sets and chains by name, elements by key.
    pub fn ruleset(&self) -> Ruleset {
        let config = self.config();
        let mut elements: BTreeMap<SetId, Vec<Element>> = BTreeMap::new();
        let networks = config.instances.iter().copied().map(network);
        let mapped = self.mappings().flat_map(ingress::elements);
        for (set, element) in
            networks.chain(mapped).chain(self.hairpin.elements()).chain(self.reverse.elements())
        {
            elements.entry(set).or_default().push(element);
        }
        let set = |set: SetId| FilledSet {
            set: set.declaration(),
            elements: elements.remove(&set).unwrap_or_default(),
        };
        let mut ruleset = Ruleset {
            table: table(config),
            sets: SetId::all().map(set).collect(),
            chains: [ingress::chains(), outbound::chains(config), hairpin::chains(config)].concat(),
        };
        ruleset.chains.extend(protect::chain(config));
        ruleset.sort();
        ruleset
    }
}

fn network(network: IpNet) -> (SetId, Element) {
    let (first, last): (IpAddr, IpAddr) = (network.network(), network.broadcast());
    (SetId::new(SetKind::Instances, Version::of(first)), Element::interval(first.into(), last.into()))
}
