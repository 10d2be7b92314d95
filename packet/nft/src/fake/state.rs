//! What a table holds.

use std::collections::BTreeMap;

use super::{Refusal, errno};
use crate::{Chain, Data, Element, Rule, Set, Table};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) table: Table,
    pub(super) chains: Vec<HeldChain>,
    pub(super) sets: Vec<HeldSet>,
    // Handles are never used again within a table.
    pub(super) next_handle: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldChain {
    pub(super) chain: Chain,
    pub(super) rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct HeldSet {
    pub(super) set: Set,
    // By key; of intervals the first.
    pub(super) elements: BTreeMap<Data, Element>,
}

impl State {
    pub(super) const fn new(table: Table) -> Self {
        Self { table, chains: Vec::new(), sets: Vec::new(), next_handle: 1 }
    }

    pub(super) fn chain(&self, name: &str) -> Option<&HeldChain> {
        self.chains.iter().find(|held| held.chain.name == name)
    }

    pub(super) fn chain_mut(&mut self, name: &str) -> Result<&mut HeldChain, Refusal> {
        self.chains.iter_mut().find(|held| held.chain.name == name).ok_or(errno::ENOENT.into())
    }

    pub(super) fn set(&self, name: &str) -> Option<&HeldSet> {
        self.sets.iter().find(|held| held.set.name == name)
    }

    pub(super) fn set_mut(&mut self, name: &str) -> Result<&mut HeldSet, Refusal> {
        self.sets.iter_mut().find(|held| held.set.name == name).ok_or(errno::ENOENT.into())
    }

    pub(super) fn handle(&mut self) -> u64 {
        let handle = self.next_handle;
        self.next_handle += 1;
        handle
    }
}
