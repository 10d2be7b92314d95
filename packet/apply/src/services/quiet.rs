//! Writing much while we do not listen.
//!
//! As long as anybody in the network namespace listens to changes, the kernel makes a notification of every element, our
//! own ones too, although we want to hear of others only (`nf_tables_setelem_notify`, v6.12): a third of the time for
//! which it holds its lock. So for the time in which we write much we leave the group. Each transaction, whoever made it,
//! makes the generation one greater: if it grew by more than ours, others have changed something, and everything is
//! compared once more.

use portolan_nft::{Error, Nft, Transaction};

use super::{
    level::{Levelled, Wanted, level},
    stride::Stride,
};
use crate::watch::Watch;

/// Fewer elements are not worth the questions.
const MUCH: usize = 500;

/// What was done, and whether others may have changed something meanwhile that nobody heard of.
pub(crate) struct Quietly<T> {
    pub(crate) result: Result<T, Error>,
    pub(crate) missed: bool,
}

/// [`level`], and does not listen from its first transaction on.
pub(crate) fn level_quietly<N: Nft>(
    nft: &mut N,
    watch: &Watch,
    wanted: &dyn Wanted,
    stride: &mut Stride,
    before_each: &mut dyn FnMut(u64),
) -> Quietly<Levelled> {
    let before = nft.generation().ok();
    let mut paused = false;
    let result = level(nft, wanted, stride, &mut |number| {
        paused = paused || pause(watch);
        before_each(number);
    });
    let ours = result.as_ref().map_or(0, |levelled| levelled.written.transactions);
    let missed = paused && listen(nft, watch, before, ours);
    Quietly { result, missed }
}

/// Runs a transaction, and does not listen meanwhile if it is a large one.
pub(crate) fn run_quietly<N: Nft>(
    nft: &mut N,
    watch: &Watch,
    transaction: &Transaction,
    elements: usize,
) -> Quietly<()> {
    if elements < MUCH {
        return Quietly { result: nft.run(transaction), missed: false };
    }
    let before = nft.generation().ok();
    let paused = pause(watch);
    let result = nft.run(transaction);
    let missed = paused && listen(nft, watch, before, u64::from(result.is_ok()));
    Quietly { result, missed }
}

fn pause(watch: &Watch) -> bool {
    let paused = watch.pause();
    if let Err(error) = &paused {
        tracing::debug!(%error, "goes on listening");
    }
    paused.is_ok()
}

/// Listens again; whether something was missed.
fn listen<N: Nft>(nft: &mut N, watch: &Watch, before: Option<u32>, ours: u64) -> bool {
    if let Err(error) = watch.listen() {
        tracing::error!(%error, "cannot hear any more of changes of the rules of Services");
        return true;
    }
    let expected = before.map(|before| before.wrapping_add(ours as u32));
    expected.is_none() || nft.generation().ok() != expected
}
