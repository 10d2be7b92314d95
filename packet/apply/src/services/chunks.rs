//! Writing many elements in transactions of a size that keeps nobody waiting.
//!
//! What is refused because the table is not what it was thought to be ends the writing: the caller compares anew. What is
//! refused for another reason is cut in halves until the guilty element is alone; it is left out and reported, and all
//! others are written.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use portolan_nft::{Data, Element, Error, Nft, Object, Set, Table, Transaction, Verb};

use super::stride::Stride;
use crate::commit::is_drift;

/// Refusals that are told by name; of the others only the number.
const NAMED: usize = 10;

/// What was written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Written {
    /// Transactions.
    pub(crate) transactions: u64,
    /// Elements that came or went.
    pub(crate) elements: u64,
    /// The longest transaction.
    pub(crate) longest: Duration,
    /// What the kernel refused, in words; the first few.
    pub(crate) refused: Vec<String>,
    /// How many elements it refused.
    pub(crate) refusals: u64,
}

/// A writer that gathers elements and writes them when there are enough.
pub(crate) struct Chunks<'a, N> {
    nft: &'a mut N,
    table: Table,
    stride: &'a mut Stride,
    gone: Vec<(Set, Vec<Element>)>,
    come: Vec<(Set, Vec<Element>)>,
    gathered: usize,
    written: Written,
    /// Called before each transaction.
    before_each: &'a mut dyn FnMut(u64),
}

impl<'a, N: Nft> Chunks<'a, N> {
    pub(crate) fn new(
        nft: &'a mut N,
        table: Table,
        stride: &'a mut Stride,
        before_each: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self {
            nft,
            table,
            stride,
            gone: Vec::new(),
            come: Vec::new(),
            gathered: 0,
            written: Written::default(),
            before_each,
        }
    }

    /// An element comes, goes, or takes the place of another with the same key.
    pub(crate) fn element(
        &mut self,
        set: &Set,
        gone: Option<Element>,
        come: Option<Element>,
    ) -> Result<(), Error> {
        self.gathered += usize::from(gone.is_some()) + usize::from(come.is_some());
        add(&mut self.gone, set, gone);
        add(&mut self.come, set, come);
        if self.gathered >= self.stride.elements() { self.flush() } else { Ok(()) }
    }

    /// Elements that only together make sense: intervals, which may not overlap in between.
    pub(crate) fn together(
        &mut self,
        set: &Set,
        gone: Vec<Element>,
        come: Vec<Element>,
    ) -> Result<(), Error> {
        self.gathered += gone.len() + come.len();
        gone.into_iter().for_each(|element| add(&mut self.gone, set, Some(element)));
        come.into_iter().for_each(|element| add(&mut self.come, set, Some(element)));
        if self.gathered >= self.stride.elements() { self.flush() } else { Ok(()) }
    }

    /// Writes what has been gathered.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        let mut transaction = Transaction::new(self.table.clone());
        for (set, elements) in self.gone.drain(..) {
            transaction.push(Verb::Delete, portolan_nft::Elements { set, elements });
        }
        for (set, elements) in self.come.drain(..) {
            transaction.push(Verb::Create, portolan_nft::Elements { set, elements });
        }
        self.gathered = 0;
        self.write(transaction)
    }

    /// A step that is not about elements, at once and whole.
    pub(crate) fn whole(&mut self, transaction: Transaction) -> Result<(), Error> {
        self.flush()?;
        self.run(&transaction)
    }

    /// Writes the rest and tells what was written in all.
    pub(crate) fn finish(mut self) -> Result<Written, Error> {
        self.flush()?;
        Ok(self.written)
    }

    fn write(&mut self, transaction: Transaction) -> Result<(), Error> {
        let Err(error) = self.run(&transaction) else { return Ok(()) };
        if is_drift(&error) || error.errno().is_none() || error.is_permission_denied() {
            return Err(error);
        }
        let mut items = items(transaction);
        if items.len() <= 1 {
            self.written.refusals += 1;
            if self.written.refused.len() < NAMED {
                self.written.refused.push(error.to_string());
            }
            return Ok(());
        }
        tracing::debug!(%error, elements = items.len(), "refused; trying it in halves");
        let rest = items.split_off(items.len() / 2);
        for half in [items, rest] {
            for Item { set, gone, come } in half {
                add(&mut self.gone, &set, gone);
                add(&mut self.come, &set, come);
            }
            self.flush()?;
        }
        Ok(())
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        (self.before_each)(self.written.transactions);
        let start = Instant::now();
        let result = self.nft.run(transaction);
        let took = start.elapsed();
        self.written.longest = self.written.longest.max(took);
        if result.is_ok() {
            let elements = elements_of(transaction);
            self.stride.measured(elements, took);
            self.written.transactions += 1;
            self.written.elements += elements as u64;
        }
        result
    }
}

fn add(to: &mut Vec<(Set, Vec<Element>)>, set: &Set, element: Option<Element>) {
    let Some(element) = element else { return };
    match to.last_mut().filter(|(last, _)| last.name == set.name) {
        Some((_, elements)) => elements.push(element),
        None => to.push((set.clone(), vec![element])),
    }
}

/// How many elements a transaction is about.
pub(crate) fn elements_of(transaction: &Transaction) -> usize {
    let elements = |object: &Object| match object {
        Object::Elements(elements) => elements.elements.len(),
        _ => 0,
    };
    transaction.operations.iter().map(|operation| elements(&operation.object)).sum()
}

/// What cannot be halved: all that happens to one key; of interval sets, all that happens to the set.
struct Item {
    set: Set,
    gone: Option<Element>,
    come: Option<Element>,
}

fn items(transaction: Transaction) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut places: HashMap<(String, Data), usize> = HashMap::new();
    for operation in transaction.operations {
        let Object::Elements(elements) = operation.object else { continue };
        let goes = operation.verb == Verb::Delete;
        for element in elements.elements {
            let place =
                *places.entry((elements.set.name.clone(), element.key.clone())).or_insert_with(|| {
                    items.push(Item { set: elements.set.clone(), gone: None, come: None });
                    items.len() - 1
                });
            let item = &mut items[place];
            *(if goes { &mut item.gone } else { &mut item.come }) = Some(element);
        }
    }
    items
}
