//! What one change of the mappings is for the kernel: a few elements more and a few less.

use std::collections::BTreeMap;

use portolan_nft::{Data, Element, Transaction};

use crate::{PlanConfig, SetId, ruleset};

/// One element more or less.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it comes or goes.
    pub add: bool,
    /// The set.
    pub set: SetId,
    /// The element.
    pub element: Element,
}

/// Element changes in the order in which they were planned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    changes: Vec<Change>,
}

impl Changes {
    /// No change.
    pub const fn none() -> Self {
        Self { changes: Vec::new() }
    }

    pub(crate) fn add(&mut self, set: SetId, element: Element) {
        self.changes.push(Change { add: true, set, element });
    }

    pub(crate) fn delete(&mut self, set: SetId, element: Element) {
        self.changes.push(Change { add: false, set, element });
    }

    /// Whether nothing changes.
    pub const fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Each of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// These, and then those.
    pub fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
    }

    /// One transaction with the net effect: an element that comes and goes again is not in it, nor one that goes and
    /// comes back as it was. Everything that goes, goes first, since an interval cannot come while it overlaps one
    /// that is still there.
    pub fn transaction(self, config: &PlanConfig) -> Transaction {
        let mut net: BTreeMap<(SetId, Data), Net> = BTreeMap::new();
        for Change { add, set, element } in self.changes {
            let net = net.entry((set, element.key.clone())).or_insert_with(|| Net {
                // The first change tells what was there: what is deleted was, what is added was not.
                before: (!add).then(|| element.clone()),
                after: None,
            });
            net.after = add.then_some(element);
        }
        let (mut gone, mut come) =
            (BTreeMap::<SetId, Vec<Element>>::new(), BTreeMap::<SetId, Vec<Element>>::new());
        for ((set, _), Net { before, after }) in net {
            if before == after {
                continue;
            }
            gone.entry(set).or_default().extend(before);
            come.entry(set).or_default().extend(after);
        }
        let mut transaction = Transaction::new(ruleset::table(config));
        for (set, elements) in gone {
            transaction.delete_elements(&set.declaration(config), elements);
        }
        for (set, elements) in come {
            // `create`, not `add`: an element that should not be there yet is a foreign change, not to be overlooked.
            transaction.create_elements(&set.declaration(config), elements);
        }
        transaction
    }
}

/// An element before and after all changes of its key.
struct Net {
    before: Option<Element>,
    after: Option<Element>,
}
