//! What differs between the elements that the kernel has and those that should be, without holding either.
//!
//! Of each element that should be there two numbers are kept, of its key and of its content: 16 bytes. The kernel's
//! elements are compared as they arrive, those that should be are asked for again when it is known which are missing. The
//! numbers are hashes with a key of chance, of 64 bits: among 100,000 elements two share one in one of a billion runs,
//! and then a missing element is found in the next run.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use portolan_nft::{Element, Error, Nft, Set, Table};

/// How often a set is read anew that the kernel rehashes meanwhile. All waits together are some seconds.
const ATTEMPTS: u32 = 12;

/// What has to be done to a set.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// Those that should be there and are not.
    pub(crate) missing: Vec<Element>,
    /// Those that have another content: as they are, and as they should be.
    pub(crate) changed: Vec<(Element, Element)>,
    /// Those that should not be there.
    pub(crate) foreign: Vec<Element>,
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.changed.is_empty() && self.foreign.is_empty()
    }

    /// In words, for the log.
    pub(crate) fn describe(&self, set: &Set) -> String {
        let parts = [
            (self.missing.len(), "missing"),
            (self.changed.len(), "changed"),
            (self.foreign.len(), "foreign"),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        format!("{} {set}: elements {}", set.noun(), parts.join(", "))
    }
}

/// What is kept of an element that should be there.
#[derive(Clone, Copy)]
struct Print {
    key: u64,
    content: u64,
}

#[derive(Default)]
struct Found {
    /// A bit for each print: it is there.
    seen: Vec<u64>,
    /// An element came twice: the kernel was rehashing, and another was passed over.
    twice: bool,
    changed: HashMap<u64, Element>,
    foreign: Vec<Element>,
}

/// Compares the elements of a set in the kernel with those that `wanted` gives, each time it is asked the same.
pub(crate) fn difference<N: Nft, I: Iterator<Item = Element>>(
    nft: &mut N,
    table: &Table,
    set: &Set,
    wanted: impl Fn() -> I,
) -> Result<Difference, Error> {
    let hash = RandomState::new();
    let mut prints: Vec<Print> = wanted().map(|element| print(&hash, &element)).collect();
    prints.sort_unstable_by_key(|print| print.key);
    let place = |key: u64| prints.binary_search_by_key(&key, |print| print.key).ok();
    for attempt in 0..ATTEMPTS {
        let found = std::cell::RefCell::new(Found::default());
        nft.visit_elements(
            table,
            set,
            &mut || {
                *found.borrow_mut() = Found { seen: vec![0; prints.len().div_ceil(64)], ..Found::default() };
            },
            &mut |element| {
                let mut found = found.borrow_mut();
                let print = print(&hash, &element);
                match place(print.key) {
                    None => found.foreign.push(element),
                    Some(at) => {
                        let bit = 1 << (at % 64);
                        found.twice |= found.seen[at / 64] & bit != 0;
                        found.seen[at / 64] |= bit;
                        if prints[at].content != print.content {
                            found.changed.insert(print.key, element);
                        }
                    }
                }
            },
        )?;
        let mut found = found.into_inner();
        if found.twice {
            tracing::debug!(%table, %set, "the set was being rehashed while it was read; reading again");
            std::thread::sleep(Duration::from_millis(1 << attempt.min(9)));
            continue;
        }
        let mut difference =
            Difference { foreign: std::mem::take(&mut found.foreign), ..Difference::default() };
        if found.changed.is_empty()
            && found.seen.iter().map(|word| word.count_ones() as usize).sum::<usize>() == prints.len()
        {
            return Ok(difference);
        }
        for element in wanted() {
            let key = hash.hash_one(&element.key);
            let seen = place(key).is_some_and(|at| found.seen[at / 64] & 1 << (at % 64) != 0);
            if !seen {
                difference.missing.push(element);
            } else if let Some(present) = found.changed.remove(&key) {
                difference.changed.push((present, element));
            }
        }
        return Ok(difference);
    }
    Err(Error::Unstable { table: table.to_string(), attempts: ATTEMPTS })
}

fn print(hash: &RandomState, element: &Element) -> Print {
    let content = (element.last(), &element.value, element.timeout, &element.comment);
    Print { key: hash.hash_one(&element.key), content: hash.hash_one(content) }
}
