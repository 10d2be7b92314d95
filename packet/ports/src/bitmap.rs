//! A set of port numbers as bits: 8 KiB for all 65,536, and rank and select in a pass over the words.
//!
//! A pool of 10,000 ports is 157 words. Every choice is one pass over them, which takes well under a microsecond
//! whether the pool is empty or full; no random probing that slows down as the pool fills.

use portolan_model::{PortRange, PortRanges};

const WORDS: usize = 65_536 / 64;

/// A set of port numbers.
#[derive(Clone, PartialEq, Eq)]
pub struct Bitmap {
    words: Box<[u64]>,
}

impl Bitmap {
    /// How many bytes it takes when it is written.
    pub const BYTES: usize = WORDS * 8;

    /// As [`Bitmap::write`] has written it; what is missing is empty.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut map = Self::new();
        for (word, bytes) in map.words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        }
        map
    }

    /// Adds its [`Bitmap::BYTES`] to `to`.
    pub fn write(&self, to: &mut Vec<u8>) {
        self.words.iter().for_each(|word| to.extend(word.to_le_bytes()));
    }

    /// The empty set.
    pub fn new() -> Self {
        Self { words: vec![0; WORDS].into_boxed_slice() }
    }

    /// Adds every port of `range`.
    pub fn insert(&mut self, range: PortRange) {
        for_words(range, |index, mask| self.words[index] |= mask);
    }

    /// Takes every port of `range` out.
    pub fn remove(&mut self, range: PortRange) {
        for_words(range, |index, mask| self.words[index] &= !mask);
    }

    /// Whether `port` is in it.
    pub fn contains(&self, port: u16) -> bool {
        self.words[usize::from(port) / 64] & (1 << (port % 64)) != 0
    }

    /// The lowest port of `range` that is in it.
    pub fn first_in(&self, range: PortRange) -> Option<u16> {
        self.next(u32::from(range.first()), true)
            .filter(|&port| port <= u32::from(range.last()))
            .map(|port| port as u16)
    }

    /// How many ports of `range` are in it (rank).
    pub fn count_in(&self, range: PortRange) -> u32 {
        let mut count = 0;
        for_words(range, |index, mask| count += (self.words[index] & mask).count_ones());
        count
    }

    /// The `n`th port of `range` that is in it, counted from 0 (select).
    pub fn nth_in(&self, range: PortRange, mut n: u32) -> Option<u16> {
        let mut found = None;
        for_words(range, |index, mask| {
            if found.is_some() {
                return;
            }
            let mut word = self.words[index] & mask;
            let ones = word.count_ones();
            if n < ones {
                for _ in 0..n {
                    word &= word - 1;
                }
                found = Some((index as u32 * 64 + word.trailing_zeros()) as u16);
            } else {
                n -= ones;
            }
        });
        found
    }

    /// The ports of `ranges` that are in none of `others`.
    pub fn complement_of<'a>(ranges: &PortRanges, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut free = Self::new();
        ranges.iter().for_each(|range| free.insert(range));
        let hull = ranges.hull();
        let span = usize::from(hull.first()) / 64..=usize::from(hull.last()) / 64;
        for other in others {
            for (word, taken) in free.words[span.clone()].iter_mut().zip(&other.words[span.clone()]) {
                *word &= !taken;
            }
        }
        free
    }

    /// How many ports there are in it.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The longest runs of ports in it without a gap, in rising order. Never with port 0.
    pub fn runs(&self) -> impl Iterator<Item = PortRange> {
        let mut from = 1;
        std::iter::from_fn(move || {
            let first = self.next(from, true)?;
            let end = self.next(first, false).unwrap_or(65_536);
            from = end;
            PortRange::new(first as u16, (end - 1) as u16).ok()
        })
    }

    /// The lowest number from `from` on that is in the set, or with `inside` false, that is not.
    fn next(&self, from: u32, inside: bool) -> Option<u32> {
        let flip = if inside { 0 } else { u64::MAX };
        let mut index = from as usize / 64;
        let mut word = (self.words.get(index)? ^ flip) & (u64::MAX << (from % 64));
        while word == 0 {
            index += 1;
            word = self.words.get(index)? ^ flip;
        }
        Some(index as u32 * 64 + word.trailing_zeros())
    }
}

impl Default for Bitmap {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.runs()).finish()
    }
}

/// Calls `visit` with the index of each word that `range` touches and the bits of it.
fn for_words(range: PortRange, mut visit: impl FnMut(usize, u64)) {
    let (first, last) = (usize::from(range.first()), usize::from(range.last()));
    for index in first / 64..=last / 64 {
        let mut mask = u64::MAX;
        if index == first / 64 {
            mask &= u64::MAX << (first % 64);
        }
        if index == last / 64 {
            mask &= u64::MAX >> (63 - last % 64);
        }
        visit(index, mask);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = PortRange> {
        (1u16..=65_535, 1u16..=300)
            .prop_map(|(first, count)| PortRange::new(first, first.saturating_add(count - 1)).unwrap())
    }

    #[test]
    fn the_highest_port_is_a_port_like_any_other() {
        let mut map = Bitmap::new();
        let top = PortRange::new(65_530, 65_535).unwrap();
        map.insert(top);
        assert_eq!(map.runs().collect::<Vec<_>>(), [top]);
        assert_eq!(map.nth_in(top, 5), Some(65_535));
        assert_eq!(map.nth_in(top, 6), None);
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_of_numbers(changes in prop::collection::vec((any::<bool>(), range()), 1..20), asked in range()) {
            let mut map = Bitmap::new();
            let mut set = BTreeSet::new();
            for (add, range) in changes {
                if add { map.insert(range); set.extend(range.iter()); }
                else { map.remove(range); range.iter().for_each(|p| { set.remove(&p); }); }
            }
            let inside: Vec<_> = asked.iter().filter(|p| set.contains(p)).collect();
            prop_assert_eq!(map.count_in(asked) as usize, inside.len());
            prop_assert_eq!(map.first_in(asked), inside.first().copied());
            for (n, &port) in inside.iter().enumerate() {
                prop_assert_eq!(map.nth_in(asked, n as u32), Some(port));
                prop_assert!(map.contains(port));
            }
            let in_runs: BTreeSet<_> = map.runs().flat_map(|r| r.iter().collect::<Vec<_>>()).collect();
            prop_assert_eq!(&in_runs, &set);
            let free = Bitmap::complement_of(&asked.into(), [&map]);
            prop_assert_eq!(free.count_in(asked) as usize, usize::from(asked.count()) - inside.len());
        }
    }
}
