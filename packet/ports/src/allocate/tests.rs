//! The allocator against a model that is too plain to be wrong: lists of single ports, searched from one end to the
//! other.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::PortRanges;
use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::StdRng};

use super::*;

mod history;
mod promises;

/// Three small pools: small enough that histories of a few dozen steps fill them.
pub(super) fn pools() -> Pools {
    let pool = |name: &str, range: &str, seconds| Pool {
        quarantine: Duration::from_secs(seconds),
        ..Pool::new(name.parse().unwrap(), range.parse::<PortRanges>().unwrap())
    };
    Pools::new(vec![
        pool("default", "20000-20149", 60),
        pool("media", "21030-21090", 10),
        pool("tiny", "65533-65535", 0),
    ])
    .unwrap()
}

/// The same names with other ranges, protocols and times.
pub(super) fn other_pools() -> Pools {
    let mut pools: Vec<Pool> = pools().iter().cloned().collect();
    pools[0].ranges = "20000-20059,20070-20079,20100-20199".parse().unwrap();
    pools[0].quarantine = Duration::from_secs(5);
    pools[1].ranges = "20060-20069".parse().unwrap();
    pools[1].protocols = Protocols::TCP.with(Protocol::Udp);
    Pools::new(pools).unwrap()
}

pub(super) fn allocator() -> Allocator {
    Allocator::new(pools(), Sticky::default())
}

pub(super) fn requests(specs: &[&str]) -> Vec<PortRequest> {
    specs.iter().map(|spec| spec.parse().unwrap()).collect()
}

pub(super) fn port_name(text: &str) -> PortName {
    text.parse().unwrap()
}

pub(super) fn name(text: &str) -> InstanceId {
    text.parse().unwrap()
}
