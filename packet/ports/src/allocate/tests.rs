//! The allocator against a model that is too plain to be wrong: lists of single ports, searched from one end to the
//! other.

use std::{collections::BTreeMap, net::IpAddr};

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

mod history;
mod promises;

/// Three small pools: small enough that histories of a few dozen steps fill them.
pub(super) fn pools() -> Pools {
    let pool = |name: &str, range: &str, seconds| Pool {
        name: name.parse().unwrap(),
        range: range.parse().unwrap(),
        quarantine: Duration::from_secs(seconds),
    };
    Pools::new(vec![
        pool("default", "20000-20149", 60),
        pool("media", "21030-21090", 10),
        pool("tiny", "65533-65535", 0),
    ])
    .unwrap()
}

pub(super) fn allocator() -> Allocator {
    Allocator::new(pools(), Sticky::default())
}

pub(super) fn requests(specs: &[&str]) -> Vec<PortRequest> {
    specs.iter().map(|spec| spec.parse().unwrap()).collect()
}

pub(super) fn name(text: &str) -> Name {
    text.parse().unwrap()
}
