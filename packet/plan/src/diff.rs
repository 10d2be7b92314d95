//! The way from the table that is to the table that should be, in one transaction.
//!
//! As little as possible is written: nothing when nothing differs, elements where only elements differ, the rules of
//! a chain where a rule differs. Only when a declaration differs (a set's type, a chain's hook), which the kernel
//! cannot change in place, the table is made anew; also then in one transaction, so that no packet meets half of it,
//! and connections that were rewritten go on, since the kernel keeps those elsewhere.

use std::collections::HashMap;

use portolan_nft::{Chain, Data, Element, FilledChain, FilledSet, Ruleset, Set, Transaction};

/// A transaction, and what was found that made it necessary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What to run; empty when nothing differs.
    pub transaction: Transaction,
    /// What differs, in words for the log: `map host_v4: 1 element missing, 2 foreign`.
    pub found: Vec<String>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.transaction.is_empty()
    }
}

/// Compares the table that is, `None` when there is none, with the one that should be.
pub fn diff(have: Option<&Ruleset>, want: &Ruleset) -> Difference {
    let Some(have) = have else {
        return Difference {
            transaction: want.creation(),
            found: vec![format!("table {} is missing", want.table)],
        };
    };
    if let Some(why) = incompatible(have, want) {
        let mut transaction = Transaction::new(want.table.clone());
        transaction.delete_table();
        transaction.operations.extend(want.creation().operations);
        return Difference { transaction, found: vec![why] };
    }
    let mut steps = Steps { transaction: Transaction::new(want.table.clone()), found: Vec::new() };
    let foreign_chains: Vec<&FilledChain> =
        have.chains.iter().filter(|filled| want.find_chain(&filled.chain.name).is_none()).collect();
    let foreign_sets: Vec<&FilledSet> =
        have.sets.iter().filter(|filled| want.find_set(&filled.set.name).is_none()).collect();

    // What rules will refer to, then the rules, then what rules referred to. A foreign chain may be called by another
    // one or by a foreign map, so all are emptied before any is deleted.
    for filled in want.chains.iter().filter(|filled| have.find_chain(&filled.chain.name).is_none()) {
        steps.found.push(format!("chain {} is missing", filled.chain));
        steps.transaction.add(filled.chain.clone());
    }
    for filled in want.sets.iter().filter(|filled| have.find_set(&filled.set.name).is_none()) {
        steps.found.push(format!("{} {} is missing", filled.set.noun(), filled.set));
        steps.transaction.add(filled.set.clone());
        steps.transaction.add_elements(&filled.set, filled.elements.clone());
    }
    for filled in &foreign_chains {
        steps.found.push(format!("chain {} is foreign", filled.chain));
        steps.transaction.flush(filled.chain.clone());
    }
    for filled in &want.chains {
        steps.rules(have.find_chain(&filled.chain.name), filled);
    }
    for filled in &foreign_sets {
        steps.found.push(format!("{} {} is foreign", filled.set.noun(), filled.set));
        steps.transaction.delete(filled.set.clone());
    }
    for filled in &foreign_chains {
        steps.transaction.delete(filled.chain.clone());
    }
    for filled in &want.sets {
        if let Some(present) = have.find_set(&filled.set.name) {
            steps.elements(&filled.set, &present.elements, &filled.elements);
        }
    }
    Difference { transaction: steps.transaction, found: steps.found }
}

/// Whether two tables differ in elements at most.
pub fn same_shape(have: &Ruleset, want: &Ruleset) -> bool {
    have.chains.len() == want.chains.len()
        && have.sets.len() == want.sets.len()
        && incompatible(have, want).is_none()
        && want.sets.iter().all(|filled| have.find_set(&filled.set.name).is_some())
        && want.chains.iter().all(|filled| {
            have.find_chain(&filled.chain.name).is_some_and(|present| same_rules(present, filled))
        })
}

fn same_rules(have: &FilledChain, want: &FilledChain) -> bool {
    have.rules.len() == want.rules.len()
        && have.rules.iter().zip(&want.rules).all(|(one, other)| one.means(other))
}

/// What cannot be changed in place, in words.
fn incompatible(have: &Ruleset, want: &Ruleset) -> Option<String> {
    if have.table != want.table {
        return Some(format!("table {} was declared in another way", want.table));
    }
    let chain = |chain: &Chain| have.find_chain(&chain.name).is_some_and(|present| present.chain != *chain);
    if let Some(filled) = want.chains.iter().find(|filled| chain(&filled.chain)) {
        return Some(format!("chain {} was declared in another way", filled.chain));
    }
    let set = |set: &Set| have.find_set(&set.name).is_some_and(|present| present.set != *set);
    let filled = want.sets.iter().find(|filled| set(&filled.set))?;
    Some(format!("{} {} was declared in another way", filled.set.noun(), filled.set))
}

struct Steps {
    transaction: Transaction,
    found: Vec<String>,
}

impl Steps {
    /// The rules of a chain, all or none: their order means something.
    fn rules(&mut self, have: Option<&FilledChain>, want: &FilledChain) {
        if let Some(have) = have {
            if same_rules(have, want) {
                return;
            }
            self.found.push(format!("chain {}: the rules are others", want.chain));
            self.transaction.flush(want.chain.clone());
        }
        for rule in &want.rules {
            self.transaction.add(rule.clone());
        }
    }

    /// The elements of a set that both have. What goes, goes first: an interval cannot come while it overlaps one
    /// that is still there.
    fn elements(&mut self, set: &Set, have: &[Element], want: &[Element]) {
        let by_key = |elements: &'_ [Element]| -> HashMap<Data, usize> {
            elements.iter().enumerate().map(|(at, element)| (element.key.clone(), at)).collect()
        };
        let (present, wanted) = (by_key(have), by_key(want));
        let (mut gone, mut changed, mut missing) = (Vec::new(), Vec::new(), Vec::new());
        for element in have {
            match wanted.get(&element.key) {
                None => gone.push(element.clone()),
                Some(&at) if !want[at].means(element) => changed.push((element.clone(), want[at].clone())),
                Some(_) => {}
            }
        }
        missing.extend(want.iter().filter(|element| !present.contains_key(&element.key)).cloned());
        if gone.is_empty() && changed.is_empty() && missing.is_empty() {
            return;
        }
        self.found.push(summary(set, missing.len(), changed.len(), gone.len()));
        let (replaced, replacements): (Vec<_>, Vec<_>) = changed.into_iter().unzip();
        gone.extend(replaced);
        missing.extend(replacements);
        self.transaction.delete_elements(set, gone);
        self.transaction.add_elements(set, missing);
    }
}

fn summary(set: &Set, missing: usize, changed: usize, foreign: usize) -> String {
    let parts = [(missing, "missing"), (changed, "changed"), (foreign, "foreign")];
    let parts: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    format!("{} {}: elements {}", set.noun(), set, parts.join(", "))
}
