//! Bringing the table to what it should be, from whatever it is: at the start, after a crash, after others changed it.
//!
//! No Service is ever half there. The sets of the wanted table come in the order in which packets may miss them: what
//! leads packets into the rules, the verdict maps, is last. So elements are added from the first set to the last and
//! removed from the last to the first, each in as many transactions as it takes. A Service that gains a backend has it
//! before packets are counted out to it, and one that loses a backend is counted anew before that is gone.

use std::{sync::mpsc, thread, time::Duration};

use portolan_nft::{Element, Error, FilledChain, Nft, Ruleset, Set, Transaction};
use portolan_services::Services;

use super::{
    chunks::{Chunks, Written},
    difference::{Difference, difference},
    stride::Stride,
};
use crate::commit::is_drift;

/// How often it is begun anew when others change the table meanwhile.
const ATTEMPTS: u32 = 5;
/// How many elements are handed on at once, and how often before the kernel is waited for.
const BATCH: usize = 1_024;
const BATCHES: usize = 4;

/// What a table should be.
pub(crate) trait Wanted: Sync {
    /// Table, chains with their rules, and sets without elements in the order in which they are filled.
    fn shape(&self) -> Ruleset;

    /// The elements of one of these sets.
    fn elements<'a>(&'a self, set: &'a Set) -> Box<dyn Iterator<Item = Element> + 'a>;
}

impl Wanted for Ruleset {
    fn shape(&self) -> Ruleset {
        let mut shape = self.clone();
        shape.sets.iter_mut().for_each(|filled| filled.elements.clear());
        shape
    }

    fn elements<'a>(&'a self, set: &'a Set) -> Box<dyn Iterator<Item = Element> + 'a> {
        let filled = self.find_set(&set.name);
        Box::new(filled.into_iter().flat_map(|filled| &filled.elements).cloned())
    }
}

impl Wanted for Services {
    fn shape(&self) -> Ruleset {
        let mut shape = self.shape();
        shape.sets.iter_mut().for_each(|filled| filled.elements.clear());
        shape
    }

    fn elements<'a>(&'a self, set: &'a Set) -> Box<dyn Iterator<Item = Element> + 'a> {
        Box::new(self.elements(&set.name))
    }
}

/// What was found and done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Levelled {
    /// What differed, in words; empty when nothing was written.
    pub(crate) found: Vec<String>,
    /// What was written.
    pub(crate) written: Written,
}

/// Makes the kernel's table what is wanted. `before_each` is called before each transaction, with its number.
pub(crate) fn level<N: Nft>(
    nft: &mut N,
    wanted: &dyn Wanted,
    stride: &mut Stride,
    before_each: &mut dyn FnMut(u64),
) -> Result<Levelled, Error> {
    let mut attempt = 1;
    loop {
        match once(nft, wanted, stride, before_each) {
            Err(error) if is_drift(&error) && attempt < ATTEMPTS => {
                tracing::debug!(%error, "the table changed while it was brought to what it should be; comparing anew");
                thread::sleep(Duration::from_millis(1 << attempt));
                attempt += 1;
            }
            result => return result,
        }
    }
}

fn once<N: Nft>(
    nft: &mut N,
    wanted: &dyn Wanted,
    stride: &mut Stride,
    before_each: &mut dyn FnMut(u64),
) -> Result<Levelled, Error> {
    let want = wanted.shape();
    let Some(have) = nft.dump_shape(&want.table)? else {
        let found = vec![format!("table {} is missing", want.table)];
        return Ok(Levelled { found, written: create(nft, &want, wanted, stride, before_each)? });
    };
    if let Some(why) = incompatible(&have, &want) {
        // What is there serves packets until the new one does: one transaction, however long it takes. It happens when
        // another version of this program, or of its configuration, takes over.
        let mut transaction = Transaction::new(want.table.clone());
        transaction.delete_table();
        let mut whole = want;
        for filled in whole.sets.iter_mut().filter(|filled| !filled.set.dynamic) {
            filled.elements = wanted.elements(&filled.set).collect();
        }
        transaction.operations.extend(whole.creation().operations);
        let mut chunks = Chunks::new(nft, whole.table, stride, before_each);
        chunks.whole(transaction)?;
        return Ok(Levelled { found: vec![why], written: chunks.finish()? });
    }
    let (mut found, steps) = shapes(&have, &want);
    // All sets are compared before anything is written: what is found in one does not depend on another.
    let mut differences: Vec<(Set, Difference)> = Vec::new();
    for filled in want.sets.iter().filter(|filled| !filled.set.dynamic) {
        let set = &filled.set;
        let one = if have.find_set(&set.name).is_some() {
            difference(nft, &want.table, set, || wanted.elements(set))?
        } else {
            Difference { missing: wanted.elements(set).collect(), ..Difference::default() }
        };
        if !one.is_empty() {
            found.push(one.describe(set));
            differences.push((set.clone(), one));
        }
    }
    let mut chunks = Chunks::new(nft, want.table.clone(), stride, before_each);
    chunks.whole(steps.before)?;
    for (set, one) in &mut differences {
        if set.interval {
            let (mut gone, mut come) = (std::mem::take(&mut one.foreign), std::mem::take(&mut one.missing));
            for (present, element) in one.changed.drain(..) {
                gone.push(present);
                come.push(element);
            }
            chunks.together(set, gone, come)?;
            continue;
        }
        for element in one.missing.drain(..) {
            chunks.element(set, None, Some(element))?;
        }
        for (present, element) in one.changed.drain(..) {
            chunks.element(set, Some(present), Some(element))?;
        }
    }
    // What is not reached any more goes after what led there.
    chunks.flush()?;
    for (set, one) in differences.iter_mut().rev() {
        for element in one.foreign.drain(..) {
            chunks.element(set, Some(element), None)?;
        }
    }
    chunks.whole(steps.after)?;
    Ok(Levelled { found, written: chunks.finish()? })
}

/// Makes the table from nothing.
fn create<N: Nft>(
    nft: &mut N,
    want: &Ruleset,
    wanted: &dyn Wanted,
    stride: &mut Stride,
    before_each: &mut dyn FnMut(u64),
) -> Result<Written, Error> {
    let mut chunks = Chunks::new(nft, want.table.clone(), stride, before_each);
    chunks.whole(want.creation())?;
    let batches = || {
        let sets = want.sets.iter().map(|filled| &filled.set).filter(|set| !set.dynamic);
        sets.flat_map(|set| batches(set, wanted))
    };
    let mut write = |(set, elements): (&Set, Vec<Element>)| {
        if set.interval {
            return chunks.together(set, Vec::new(), elements);
        }
        elements.into_iter().try_for_each(|element| chunks.element(set, None, Some(element)))
    };
    // The next elements are made while the kernel takes these: each is about half of the work.
    thread::scope(|scope| {
        let (sender, made) = mpsc::sync_channel(BATCHES);
        // Refused when writing has ended with an error.
        let make = move || _ = batches().try_for_each(|batch| sender.send(batch));
        match thread::Builder::new().spawn_scoped(scope, make) {
            Ok(_) => made.into_iter().try_for_each(&mut write),
            // No thread to be had: one after the other.
            Err(_) => batches().try_for_each(&mut write),
        }
    })?;
    chunks.finish()
}

/// The elements of a set, some at a time; an interval's all together.
fn batches<'a>(set: &'a Set, wanted: &'a dyn Wanted) -> impl Iterator<Item = (&'a Set, Vec<Element>)> {
    let size = if set.interval { usize::MAX } else { BATCH };
    let mut elements = wanted.elements(set).peekable();
    std::iter::from_fn(move || {
        elements.peek()?;
        Some((set, elements.by_ref().take(size).collect()))
    })
}

/// What has to be done to chains, rules and declarations: before the elements, and after them.
struct Steps {
    before: Transaction,
    after: Transaction,
}

fn shapes(have: &Ruleset, want: &Ruleset) -> (Vec<String>, Steps) {
    let mut found = Vec::new();
    let mut before = Transaction::new(want.table.clone());
    let mut after = Transaction::new(want.table.clone());
    for filled in want.chains.iter().filter(|filled| have.find_chain(&filled.chain.name).is_none()) {
        found.push(format!("chain {} is missing", filled.chain));
        before.add(filled.chain.clone());
    }
    for filled in want.sets.iter().filter(|filled| have.find_set(&filled.set.name).is_none()) {
        found.push(format!("{} {} is missing", filled.set.noun(), filled.set));
        before.add(filled.set.clone());
    }
    for filled in &want.chains {
        let present = have.find_chain(&filled.chain.name);
        if present.is_some_and(|present| same_rules(present, filled)) {
            continue;
        }
        if present.is_some() {
            found.push(format!("chain {}: the rules are others", filled.chain));
            before.flush(filled.chain.clone());
        }
        filled.rules.iter().for_each(|rule| {
            before.add(rule.clone());
        });
    }
    // Foreign chains may call each other and be called by foreign maps, so all are emptied before any is deleted.
    let foreign = || have.chains.iter().filter(|filled| want.find_chain(&filled.chain.name).is_none());
    for filled in foreign() {
        found.push(format!("chain {} is foreign", filled.chain));
        after.flush(filled.chain.clone());
    }
    for filled in have.sets.iter().filter(|filled| want.find_set(&filled.set.name).is_none()) {
        found.push(format!("{} {} is foreign", filled.set.noun(), filled.set));
        after.delete(filled.set.clone());
    }
    foreign().for_each(|filled| {
        after.delete(filled.chain.clone());
    });
    (found, Steps { before, after })
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
    let chain = want.chains.iter().map(|filled| &filled.chain);
    let chain = chain
        .into_iter()
        .find(|chain| have.find_chain(&chain.name).is_some_and(|present| present.chain != **chain));
    if let Some(chain) = chain {
        return Some(format!("chain {chain} was declared in another way"));
    }
    let set = want
        .sets
        .iter()
        .map(|filled| &filled.set)
        .find(|set| have.find_set(&set.name).is_some_and(|present| present.set != **set))?;
    Some(format!("{} {set} was declared in another way", set.noun()))
}

#[cfg(test)]
mod tests;
