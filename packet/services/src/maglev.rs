//! Maglev's table: which endpoint a hash leads to, so that few clients move when endpoints come and go.
//!
//! "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4: each endpoint has an order of
//! its own in which it would like the slots, and they take turns. An endpoint with a weight takes so many turns at a
//! time. The sizes are primes, each the last below a power of two; at least 15 slots for each endpoint keep the shares
//! within some percent.

use crate::{
    Target,
    arrange::{mix, seed},
};

const SIZES: [u32; 7] = [1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];

/// How many slots so many endpoints get.
pub(crate) fn size(endpoints: usize) -> u32 {
    SIZES.into_iter().find(|size| endpoints * 15 <= *size as usize).unwrap_or(SIZES[6])
}

/// The endpoint of each slot. `shares`: by address and port, each with a weight above 0, at most as many as slots.
pub(crate) fn table(shares: &[(Target, u16)]) -> Vec<Target> {
    struct Turn {
        target: Target,
        weight: u16,
        next: u64,
        skip: u64,
    }
    let size = u64::from(size(shares.len()));
    let mut turns: Vec<Turn> = shares
        .iter()
        .map(|&(target, weight)| {
            let seed = seed(&target, 0);
            Turn { target, weight, next: seed % size, skip: mix(seed ^ 1) % (size - 1) + 1 }
        })
        .collect();
    let mut slots: Vec<Option<Target>> = vec![None; size as usize];
    let mut free = if turns.is_empty() { 0 } else { slots.len() };
    while free > 0 {
        for turn in &mut turns {
            for _ in 0..turn.weight {
                if free == 0 {
                    break;
                }
                while slots[turn.next as usize].is_some() {
                    turn.next = (turn.next + turn.skip) % size;
                }
                slots[turn.next as usize] = Some(turn.target);
                free -= 1;
            }
        }
    }
    slots.into_iter().flatten().collect()
}
