//! nftables in memory: keeps state, refuses what the kernel refuses, and passes the same tests (`tests/suite`).
//!
//! It is stricter about intervals, where kernels up to 6.18 do not notice everything: over several fields they take one
//! that goes around one which is there, and delete by the first key alone; over one field they take one that goes
//! around another with the same end, and delete the beginning of one and the end of another. Here the first of each is
//! EEXIST and the second ENOENT.
//!
//! It does not look at packets. For tests of what writes rules: they need no root, no namespace, and compare dumps.
//! [`state`] holds tables, [`change`] does the verbs, [`element`] those of elements, [`mod@reference`] what refers to what.

mod change;
mod element;
mod reference;
mod state;

use crate::{Element, Error, FilledChain, FilledSet, Nft, Operation, Ruleset, Set, Table, Transaction};
use state::State;

/// Linux error numbers that nf_tables answers with.
mod errno {
    pub(super) const ENOENT: i32 = 2;
    pub(super) const EBUSY: i32 = 16;
    pub(super) const EEXIST: i32 = 17;
    pub(super) const EINVAL: i32 = 22;
    pub(super) const ENFILE: i32 = 23;
    pub(super) const EMLINK: i32 = 31;
    pub(super) const EOPNOTSUPP: i32 = 95;
}

/// A refusal: the error number, and which of the step's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    errno: i32,
    element: Option<usize>,
}

impl From<i32> for Refusal {
    fn from(errno: i32) -> Self {
        Self { errno, element: None }
    }
}

/// Tables in memory.
#[derive(Clone, Debug, Default)]
pub struct Fake {
    tables: Vec<State>,
    generation: u32,
    refuse: Option<i32>,
    last: Option<Transaction>,
}

impl Fake {
    /// No table yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next transaction fail as a whole with this error number of Linux.
    pub fn refuse_next(&mut self, errno: i32) {
        self.refuse = Some(errno);
    }

    /// The last transaction that was run, whether it was refused or not.
    pub fn last_transaction(&self) -> Option<&Transaction> {
        self.last.as_ref()
    }

    /// As `nft flush ruleset` by somebody else: everything is gone.
    pub fn flush_ruleset(&mut self) {
        self.tables.clear();
        self.generation += 1;
    }

    fn step(table: &Table, state: &mut Option<State>, operation: &Operation) -> Result<(), Refusal> {
        change::operation(table, state, operation)
    }
}

impl Nft for Fake {
    fn run(&mut self, transaction: &Transaction) -> Result<(), Error> {
        self.last = Some(transaction.clone());
        let table = &transaction.table;
        let refused = |index: Option<usize>, refusal: Refusal| Error::Refused {
            index,
            operation: match index.and_then(|index| transaction.operations.get(index)) {
                Some(operation) => operation.describe(table, refusal.element),
                None => transaction.describe(),
            },
            errno: refusal.errno,
            message: None,
            offset: None,
        };
        if let Some(errno) = self.refuse.take() {
            return Err(refused(None, errno.into()));
        }
        let place = self.tables.iter().position(|state| state.table.is(table));
        let mut state = place.map(|place| self.tables[place].clone());
        for (index, operation) in transaction.operations.iter().enumerate() {
            change::writable(operation).map_err(|why| Error::Invalid {
                index,
                operation: operation.describe(table, None),
                why,
            })?;
        }
        for (index, operation) in transaction.operations.iter().enumerate() {
            Self::step(table, &mut state, operation).map_err(|refusal| refused(Some(index), refusal))?;
        }
        if let Some(state) = &state {
            reference::ways(state).map_err(|refusal| refused(None, refusal))?;
        }
        if place.map(|place| &self.tables[place]) == state.as_ref() {
            return Ok(());
        }
        if let Some(place) = place {
            self.tables.remove(place);
        }
        self.tables.extend(state);
        self.generation += 1;
        Ok(())
    }

    fn dump(&mut self, table: &Table) -> Result<Option<Ruleset>, Error> {
        let Some(state) = self.tables.iter().find(|state| state.table.is(table)) else { return Ok(None) };
        let sets = state.sets.iter().map(|held| FilledSet {
            set: held.set.clone(),
            elements: held.elements.values().cloned().collect(),
        });
        let chains = state
            .chains
            .iter()
            .map(|held| FilledChain { chain: held.chain.clone(), rules: held.rules.clone() });
        Ok(Some(Ruleset { table: state.table.clone(), sets: sets.collect(), chains: chains.collect() }))
    }

    fn dump_shape(&mut self, table: &Table) -> Result<Option<Ruleset>, Error> {
        let mut ruleset = self.dump(table)?;
        ruleset.iter_mut().flat_map(|ruleset| &mut ruleset.sets).for_each(|filled| filled.elements.clear());
        Ok(ruleset)
    }

    fn elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>, Error> {
        let state = self.tables.iter().find(|state| state.table.is(table));
        let held = state.and_then(|state| state.set(&set.name)).ok_or_else(|| Error::Refused {
            index: None,
            operation: "read nftables".to_owned(),
            errno: errno::ENOENT,
            message: None,
            offset: None,
        })?;
        Ok(held.elements.values().cloned().collect())
    }

    fn tables(&mut self) -> Result<Vec<Table>, Error> {
        let mut tables: Vec<_> = self.tables.iter().map(|state| state.table.clone()).collect();
        tables.sort_by(|one, two| (one.family, &one.name).cmp(&(two.family, &two.name)));
        Ok(tables)
    }

    fn generation(&mut self) -> Result<u32, Error> {
        Ok(self.generation)
    }
}
