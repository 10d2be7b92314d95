//! The whole table: what a machine with nothing gets, and what any other state is compared with.

use std::collections::BTreeMap;

use portolan_nft::{Element, Family, FilledSet, Ruleset, Table};

use crate::{
    Plan, PlanConfig, SetId, SetKind, counters, hairpin, ingress, networks, outbound, protect, sources,
};

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
        let configured = configured(config);
        let mapped = self.mappings().flat_map(ingress::elements);
        let followed =
            self.hairpin.elements().chain(self.published.elements()).chain(self.reverse.elements());
        for (set, element) in configured.chain(mapped).chain(followed) {
            elements.entry(set).or_default().push(element);
        }
        let set = |set: SetId| FilledSet {
            set: set.declaration(config),
            elements: elements.remove(&set).unwrap_or_default(),
        };
        let mut ruleset = Ruleset {
            table: table(config),
            sets: SetId::all(config).map(set).collect(),
            chains: [ingress::chains(config), outbound::chains(config), hairpin::chains(config)].concat(),
        };
        ruleset.chains.extend(protect::chain(config));
        ruleset.chains.extend(sources::chain(config));
        ruleset.chains.extend(counters::chains(config));
        ruleset.sort();
        ruleset
    }
}

/// The elements that follow from the configuration alone.
fn configured(config: &PlanConfig) -> impl Iterator<Item = (SetId, Element)> {
    [
        (SetKind::Instances, &config.instances),
        (SetKind::Local, &config.local),
        (SetKind::Direct, &config.direct),
    ]
    .into_iter()
    .flat_map(|(kind, all)| networks::elements(kind, all))
    .chain(sources::elements(config))
}
