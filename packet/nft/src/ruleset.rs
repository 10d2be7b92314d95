//! A whole table: what a dump gives, what a plan asks for, what `nft list table` prints.

use crate::{Chain, Element, Rule, Set, Table, Transaction};

/// A chain with its rules in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledChain {
    /// Its declaration.
    pub chain: Chain,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// A set with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilledSet {
    /// Its declaration.
    pub set: Set,
    /// Its elements, in no order that means anything; see [`Ruleset::sort`].
    pub elements: Vec<Element>,
}

/// A table with all that is in it. `Display` prints it as `nft list table` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// The table itself.
    pub table: Table,
    /// Its sets, maps and verdict maps.
    pub sets: Vec<FilledSet>,
    /// Its chains.
    pub chains: Vec<FilledChain>,
}

impl Ruleset {
    /// A table with nothing in it.
    pub const fn new(table: Table) -> Self {
        Self { table, sets: Vec::new(), chains: Vec::new() }
    }

    /// With this set and its elements.
    #[must_use]
    pub fn set(mut self, set: Set, elements: impl Into<Vec<Element>>) -> Self {
        self.sets.push(FilledSet { set, elements: elements.into() });
        self
    }

    /// With this chain and its rules.
    #[must_use]
    pub fn chain(mut self, chain: Chain, rules: impl Into<Vec<Rule>>) -> Self {
        self.chains.push(FilledChain { chain, rules: rules.into() });
        self
    }

    /// The set with this name.
    pub fn find_set(&self, name: &str) -> Option<&FilledSet> {
        self.sets.iter().find(|filled| filled.set.name == name)
    }

    /// The chain with this name.
    pub fn find_chain(&self, name: &str) -> Option<&FilledChain> {
        self.chains.iter().find(|filled| filled.chain.name == name)
    }

    /// Sets and chains by name, elements by key; rules keep their order, which means something.
    pub fn sort(&mut self) {
        self.sets.sort_by(|one, two| one.set.name.cmp(&two.set.name));
        self.chains.sort_by(|one, two| one.chain.name.cmp(&two.chain.name));
        for filled in &mut self.sets {
            filled.elements.sort_by(|one, two| one.key.cmp(&two.key));
        }
    }

    /// What makes it from nothing: table, chains, sets, then rules and elements, which refer to them.
    pub fn creation(&self) -> Transaction {
        let mut transaction = Transaction::new(self.table.clone());
        transaction.add_table();
        for filled in &self.chains {
            transaction.add(filled.chain.clone());
        }
        for filled in &self.sets {
            transaction.add(filled.set.clone());
        }
        for filled in &self.chains {
            for rule in &filled.rules {
                transaction.add(rule.clone());
            }
        }
        for filled in &self.sets {
            transaction.add_elements(&filled.set, filled.elements.clone());
        }
        transaction
    }
}
