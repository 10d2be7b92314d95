//! What one change of Services or endpoints is for the kernel: a few elements more and a few less, now and then a chain.

use std::collections::BTreeMap;

use portolan_model::ObjectName;
use portolan_nft::{Data, Element, FilledChain, FilledSet, Table, Transaction};

use crate::{Gone, ServicesConfig, SetId, Touched, Way};

/// A chain, or a set of source ranges with its chain, that comes with its first user and goes with the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Piece {
    /// A way of choosing.
    Way(Way),
    /// Source ranges.
    Allowed(portolan_plan::Version, u64),
    /// Where packets are asked who sent them.
    Sources,
    /// Resets of connections.
    Drain,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// An element.
    Element { add: bool, set: SetId, element: Element },
    /// A piece, with what it is made of.
    Piece { add: bool, piece: Piece, chains: Vec<FilledChain>, sets: Vec<FilledSet> },
}

/// Changes in the order in which they were planned.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    changes: Vec<Change>,
    touched: Touched,
    gone: Vec<Gone>,
    came: Vec<Gone>,
    services: Vec<ObjectName>,
}

impl Changes {
    /// No change.
    pub fn none() -> Self {
        Self::default()
    }

    pub(crate) fn element(&mut self, add: bool, set: SetId, element: Element) {
        self.changes.push(Change::Element { add, set, element });
    }

    pub(crate) fn piece(&mut self, add: bool, piece: Piece, chains: Vec<FilledChain>, sets: Vec<FilledSet>) {
        self.changes.push(Change::Piece { add, piece, chains, sets });
    }

    /// Of one step: what one Service lets go, another may take, and that one may have been looked at first. Each element
    /// goes at most once and comes at most once in a step.
    pub(crate) fn deletions_first(&mut self) {
        self.changes.sort_by_key(|change| match change {
            Change::Element { add, .. } | Change::Piece { add, .. } => *add,
        });
    }

    pub(crate) fn touched_mut(&mut self) -> &mut Touched {
        &mut self.touched
    }

    pub(crate) fn left(&mut self, gone: Gone) {
        self.gone.push(gone);
    }

    pub(crate) fn returned(&mut self, came: Gone) {
        self.came.push(came);
    }

    pub(crate) fn of_service(&mut self, name: &ObjectName) {
        self.services.push(name.clone());
    }

    /// Whether nothing changes in the kernel.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How many elements and chains come or go.
    pub const fn len(&self) -> usize {
        self.changes.len()
    }

    /// Each element that comes or goes, in order: whether it comes, its set, and itself.
    pub fn elements(&self) -> impl Iterator<Item = (bool, SetId, &Element)> {
        self.changes.iter().filter_map(|change| match change {
            Change::Element { add, set, element } => Some((*add, *set, element)),
            Change::Piece { .. } => None,
        })
    }

    /// Which UDP flows may be stale now.
    pub const fn touched(&self) -> &Touched {
        &self.touched
    }

    /// Endpoints that left a Service which drains.
    pub fn gone(&self) -> &[Gone] {
        &self.gone
    }

    /// Endpoints that are back, or new, at such a Service.
    pub fn came(&self) -> &[Gone] {
        &self.came
    }

    /// Services that were compiled anew, whether that changed anything in the kernel or not.
    pub fn services(&self) -> &[ObjectName] {
        &self.services
    }

    /// These, and then those.
    pub fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
        self.touched.merge(&later.touched);
        self.gone.append(&mut later.gone);
        self.came.append(&mut later.came);
        self.services.append(&mut later.services);
    }

    /// One transaction with the net effect: what comes and goes again is not in it. Chains and sets come before the
    /// elements that lead to them and go after them; elements go before others come.
    pub fn transaction(self, config: &ServicesConfig) -> Transaction {
        let [first, second] = self.transactions(config);
        let mut all = first;
        all.operations.extend(second.operations);
        all
    }

    /// The same in two: the second deletes chains and sets which nothing leads to after the first. Kernels before 6.2
    /// refuse (EBUSY) to delete a chain in the same transaction as the element that led to it.
    pub fn transactions(self, config: &ServicesConfig) -> [Transaction; 2] {
        let mut elements: BTreeMap<(SetId, Data), Net<Element>> = BTreeMap::new();
        let mut pieces: BTreeMap<Piece, Net<Parts>> = BTreeMap::new();
        for change in self.changes {
            match change {
                Change::Element { add, set, element } => {
                    let key = (set, element.key.clone());
                    Net::note(elements.entry(key).or_insert_with(Net::nothing), add, element);
                }
                Change::Piece { add, piece, chains, sets } => {
                    Net::note(pieces.entry(piece).or_insert_with(Net::nothing), add, (chains, sets));
                }
            }
        }
        let table = table(config);
        let (mut first, mut second) = (Transaction::new(table.clone()), Transaction::new(table));
        let (mut rules, mut filled) = (Vec::new(), Vec::new());
        let (mut old_chains, mut old_sets) = (Vec::new(), Vec::new());
        for net in pieces.into_values() {
            match (net.before.flatten(), net.after) {
                (None, Some((chains, sets))) => {
                    for one in chains {
                        first.add(one.chain);
                        rules.extend(one.rules);
                    }
                    filled.extend(sets);
                }
                (Some((chains, sets)), None) => {
                    old_chains.extend(chains);
                    old_sets.extend(sets);
                }
                _ => {}
            }
        }
        for FilledSet { set, elements } in filled {
            first.add(set.clone());
            first.add_elements(&set, elements);
        }
        for rule in rules {
            first.add(rule);
        }
        let (mut gone, mut come) =
            (BTreeMap::<SetId, Vec<Element>>::new(), BTreeMap::<SetId, Vec<Element>>::new());
        for ((set, _), net) in elements {
            let before = net.before.flatten();
            if before == net.after {
                continue;
            }
            gone.entry(set).or_default().extend(before);
            come.entry(set).or_default().extend(net.after);
        }
        for (set, elements) in gone {
            first.delete_elements(&set.declaration(config), elements);
        }
        for (set, elements) in come {
            // `create`, not `add`: an element that should not be there yet is a foreign change, not to be overlooked.
            first.create_elements(&set.declaration(config), elements);
        }
        for one in &old_chains {
            second.flush(one.chain.clone());
        }
        for one in old_chains {
            second.delete(one.chain);
        }
        for one in old_sets {
            second.delete(one.set);
        }
        [first, second]
    }
}

/// What a piece is made of.
type Parts = (Vec<FilledChain>, Vec<FilledSet>);

/// Something before and after all changes of it.
struct Net<T> {
    /// `None` until the first change tells: what is deleted was there, what is added was not.
    before: Option<Option<T>>,
    after: Option<T>,
}

impl<T: Clone> Net<T> {
    const fn nothing() -> Self {
        Self { before: None, after: None }
    }

    fn note(&mut self, add: bool, what: T) {
        if self.before.is_none() {
            self.before = Some((!add).then(|| what.clone()));
        }
        self.after = add.then_some(what);
    }
}

/// Our table.
pub(crate) fn table(config: &ServicesConfig) -> Table {
    Table::new(portolan_nft::Family::Inet, &config.table)
        .comment("Portolan keeps this table; what others change in it is undone")
}
