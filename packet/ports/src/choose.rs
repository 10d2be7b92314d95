//! Which of the free ports to take: single ports at random among fragments, blocks where they fit best.
//!
//! The two rules serve each other. Random single ports all over a pool of 10,000 would leave no run of 1,000 after a
//! few dozen of them; so a single port is drawn from the parts of the pool that are broken anyway. A block goes into
//! the smallest run that holds it, at an aligned place, so that long runs stay long.

use portolan_model::PortRange;
use rand::{Rng, RngExt as _};

use crate::bitmap::Bitmap;

/// A random single port is drawn from at least so many, when there are so many: the number of the next one cannot be
/// guessed, and two nodes that start together rarely choose alike.
const CHOICE: u32 = 128;

/// A free port of `pool`, at random.
///
/// The pool is looked at in aligned chunks. Ports come from chunks in which something is already missing (taken, in
/// quarantine, or beyond the pool's edge); when those have fewer than `CHOICE` free ports, the whole chunk that lies
/// in the shortest stretch of whole chunks is opened too. Among the open chunks every free port is equally likely.
pub fn single(free: &Bitmap, pool: PortRange, random: &mut impl Rng) -> Option<u16> {
    let size = chunk_size(pool);
    let mut open = 0;
    let chunks: Vec<Chunk> = chunks(pool, size)
        .map(|range| {
            let count = free.count_in(range);
            let whole = count == u32::from(size);
            open += if whole { 0 } else { count };
            Chunk { range, free: count, whole }
        })
        .collect();
    let mut chunks = chunks;
    while open < CHOICE
        && let Some(next) = next_to_open(&chunks, random)
    {
        chunks[next].whole = false;
        open += chunks[next].free;
    }
    if open == 0 {
        return None;
    }
    let mut n = random.random_range(0..open);
    for chunk in chunks.iter().filter(|chunk| !chunk.whole) {
        if n < chunk.free {
            return free.nth_in(chunk.range, n);
        }
        n -= chunk.free;
    }
    None
}

/// `count` contiguous free ports.
///
/// Aligned to the largest power of two that is no greater than `count`: 64 for a block of 100, so that blocks of one
/// size lie as densely as under the next higher power and have twice the places. A pool that has no such place left
/// (or, being small and oddly placed, never had one) gives the best aligned place that it has: half the power, and so
/// on. Among the runs that hold the block at that alignment the shortest is taken, equal ones at random.
pub fn block(free: &Bitmap, count: u16, random: &mut impl Rng) -> Option<PortRange> {
    let runs: Vec<PortRange> = free.runs().filter(|run| run.count() >= count).collect();
    let mut alignment = alignment(count);
    loop {
        let mut best: Option<(u16, u32, PortRange)> = None;
        for run in &runs {
            let Some(place) = first_aligned(*run, count, alignment) else { continue };
            best = match best {
                Some((length, ties, _)) if length == run.count() => {
                    let ties = ties + 1;
                    // Keeps each of the equal runs with the same chance, without a list of them.
                    if random.random_range(0..ties) == 0 {
                        Some((length, ties, place))
                    } else {
                        best.map(|(length, _, place)| (length, ties, place))
                    }
                }
                Some((length, _, _)) if length < run.count() => best,
                _ => Some((run.count(), 1, place)),
            };
        }
        if let Some((_, _, place)) = best {
            return Some(place);
        }
        if alignment == 1 {
            return None;
        }
        alignment /= 2;
    }
}

/// The alignment that a block of `count` ports should have: the largest power of two that is no greater.
pub const fn alignment(count: u16) -> u16 {
    if count == 0 { 1 } else { 1 << count.ilog2() }
}

/// The lowest place for `count` ports in `run` whose first port is a multiple of `alignment`.
fn first_aligned(run: PortRange, count: u16, alignment: u16) -> Option<PortRange> {
    let first = run.first().checked_next_multiple_of(alignment)?;
    PortRange::block(first, count).filter(|place| place.last() <= run.last())
}

struct Chunk {
    range: PortRange,
    free: u32,
    whole: bool,
}

/// A power of two near a sixteenth of the pool, 64 to 1024.
fn chunk_size(pool: PortRange) -> u16 {
    alignment((pool.count() / 16).clamp(64, 1024))
}

/// The aligned chunks that `pool` touches, cut to it.
fn chunks(pool: PortRange, size: u16) -> impl Iterator<Item = PortRange> {
    (pool.first() / size..=pool.last() / size).filter_map(move |index| {
        let first = index * size;
        PortRange::new(first.max(pool.first()), (first + (size - 1)).min(pool.last())).ok()
    })
}

/// The index of a whole chunk at an end of the shortest stretch of whole chunks.
fn next_to_open(chunks: &[Chunk], random: &mut impl Rng) -> Option<usize> {
    let mut best: Vec<usize> = Vec::new();
    let mut shortest = usize::MAX;
    let mut start = 0;
    for stretch in chunks.chunk_by(|a, b| a.whole == b.whole) {
        if stretch[0].whole && stretch.len() <= shortest {
            if stretch.len() < shortest {
                best.clear();
                shortest = stretch.len();
            }
            best.extend([start, start + stretch.len() - 1]);
        }
        start += stretch.len();
    }
    if best.is_empty() { None } else { Some(best[random.random_range(0..best.len())]) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    fn whole(range: &str) -> (PortRange, Bitmap) {
        let pool: PortRange = range.parse().unwrap();
        (pool, Bitmap::complement_of(&pool.into(), []))
    }

    #[test]
    fn single_ports_leave_room_for_blocks() {
        let (pool, mut free) = whole("20000-29999");
        let mut random = StdRng::seed_from_u64(1);
        for _ in 0..500 {
            let port = single(&free, pool, &mut random).unwrap();
            free.remove(PortRange::single(port).unwrap());
        }
        let mut blocks = 0;
        while let Some(block) = block(&free, 1000, &mut random) {
            free.remove(block);
            blocks += 1;
        }
        assert!(blocks >= 8, "only {blocks} blocks of 1000 in the 9,500 ports that are left");
    }

    #[test]
    fn single_ports_are_spread_evenly_over_what_they_are_drawn_from() {
        let (pool, free) = whole("20000-20127");
        let mut random = StdRng::seed_from_u64(2);
        let mut hits = [0u32; 128];
        for _ in 0..128 * 100 {
            hits[usize::from(single(&free, pool, &mut random).unwrap() - 20_000)] += 1;
        }
        // 100 expected, standard deviation 10: 40 to 160 is six of them.
        assert!(hits.iter().all(|hit| (40..160).contains(hit)), "{hits:?}");
    }

    #[test]
    fn the_last_free_port_is_found_at_once() {
        let (pool, mut free) = whole("20000-29999");
        free.remove(pool);
        free.insert("29999".parse().unwrap());
        assert_eq!(single(&free, pool, &mut StdRng::seed_from_u64(3)), Some(29_999));
    }

    #[test]
    fn a_block_goes_where_it_fits_best() {
        let (_, mut free) = whole("20000-29999");
        free.remove("20000-23999".parse().unwrap());
        free.insert("20480-20735".parse().unwrap());
        let place = block(&free, 100, &mut StdRng::seed_from_u64(4)).unwrap();
        assert_eq!(place, "20480-20579".parse().unwrap(), "the run of 256, not the one of 6000");
    }

    #[test]
    fn a_block_is_aligned_as_well_as_the_pool_allows() {
        let (_, free) = whole("40000-40999");
        let mut random = StdRng::seed_from_u64(5);
        assert_eq!(block(&free, 1000, &mut random), "40000-40999".parse().ok());
        assert_eq!(block(&free, 100, &mut random).map(|b| b.first() % 64), Some(0));
        assert_eq!(block(&free, 1001, &mut random), None);
    }

    #[test]
    fn every_free_port_is_found_in_the_end() {
        let (pool, mut free) = whole("65000-65535");
        let mut random = StdRng::seed_from_u64(6);
        let mut seen = BTreeSet::new();
        while let Some(port) = single(&free, pool, &mut random) {
            free.remove(PortRange::single(port).unwrap());
            seen.insert(port);
        }
        assert_eq!(seen.len(), 536);
    }
}
