//! Which endpoint is behind which number.
//!
//! `numgen` gives a number below the number of endpoints, so each number has one endpoint. A new endpoint may move few
//! others only, or a change of one would write them all; and the order must follow from the endpoints alone, or a
//! restart would find another order in the kernel than it wants. Moving the last one into a gap fulfils the first, an
//! order by address the second. This fulfils both:
//!
//! The highest number takes the endpoint that has the least hash together with that number; the next takes, of those
//! that are left, the one with the least hash together with it; and so on. When an endpoint comes or goes, the choice at
//! number `i` is another one with probability 2 / `i`, so about 2 ln n numbers change: 9 of 100, 14 of 1,000.

use std::net::IpAddr;

use crate::Target;

/// An endpoint, or one of its shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    seed: u64,
    target: Target,
    share: u16,
}

impl Item {
    fn new(target: Target, share: u16) -> Self {
        Self { seed: seed(&target, share), target, share }
    }

    /// Less than all others means: takes the number. Never equal for two.
    const fn rank(&self, number: usize) -> u64 {
        mix(self.seed ^ (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn precedes(&self, other: &Self, number: usize) -> bool {
        let (mine, theirs) = (self.rank(number), other.rank(number));
        mine < theirs || mine == theirs && (self.target, self.share) < (other.target, other.share)
    }
}

/// Finalizer of SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) const fn mix(mut word: u64) -> u64 {
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// A hash that is the same on every machine and in every version.
pub(crate) fn seed(target: &Target, share: u16) -> u64 {
    let address = match target.address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    };
    let port = u64::from(target.port) << 16 | u64::from(share);
    mix(mix(mix(address as u64) ^ (address >> 64) as u64) ^ port)
}

/// The endpoints by number: each as often as it has shares.
pub(crate) fn arrange(shares: &[(Target, u16)]) -> Vec<Target> {
    let all =
        shares.iter().flat_map(|&(target, count)| (0..count).map(move |share| Item::new(target, share)));
    let mut items: Vec<Item> = all.collect();
    for number in (1..items.len()).rev() {
        let least = least(&items[..=number], number);
        items.swap(least, number);
    }
    items.into_iter().map(|item| item.target).collect()
}

/// The same for endpoints of one share each, from what it was before some came and some went.
pub(crate) fn rearrange(before: &[Target], gone: &[Target], come: &[Target]) -> Vec<Target> {
    let mut items: Vec<Item> = before.iter().map(|target| Item::new(*target, 0)).collect();
    for target in gone {
        let Some(place) = items.iter().position(|item| item.target == *target) else { continue };
        let Some(last) = items.pop() else { break };
        if place < items.len() {
            settle(&mut items, last, place);
        }
    }
    for target in come {
        let new = Item::new(*target, 0);
        items.push(new);
        let number = items.len() - 1;
        let least = least(&items, number);
        if least != number {
            items[number] = items[least];
            settle(&mut items[..number], new, least);
        }
    }
    items.into_iter().map(|item| item.target).collect()
}

/// The one that takes the number: asked n times of n endpoints, so it has to be quick.
fn least(items: &[Item], number: usize) -> usize {
    let Some(first) = items.first() else { return 0 };
    let (mut best, mut rank) = (0, first.rank(number));
    for (at, item) in items.iter().enumerate().skip(1) {
        let other = item.rank(number);
        if other < rank || other == rank && item.precedes(&items[best], number) {
            (best, rank) = (at, other);
        }
    }
    best
}

/// `items` are as they should be, but that the one at `hole` is gone and `spare` has come.
fn settle(items: &mut [Item], mut spare: Item, mut hole: usize) {
    for number in (0..items.len()).rev() {
        if number > hole {
            if spare.precedes(&items[number], number) {
                std::mem::swap(&mut items[number], &mut spare);
            }
            continue;
        }
        if number == 0 {
            items[0] = spare;
            return;
        }
        let best = least(&items[..number], number);
        if !items[best].precedes(&spare, number) {
            items[number] = spare;
            return;
        }
        items[number] = items[best];
        hole = best;
    }
}
