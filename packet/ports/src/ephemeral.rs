//! The kernel's ephemeral range, and whether a pool lies in it.
//!
//! Ports that connect(2) and bind(0) choose from are busy at random. A pool should be elsewhere; where it is not,
//! `ip_local_reserved_ports` ([`crate::reserve`]) keeps the kernel out of it, if it may be written.

use std::{fmt, fs, io, path::Path};

use portolan_model::{Name, PortRange};

use crate::pool::{Pool, Pools};

/// Where Linux shows the range of the calling thread's network namespace (`ip-sysctl.rst`).
pub const PATH: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// A pool whose ports the kernel also gives to clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EphemeralConflict {
    /// The pool.
    pub pool: Name,
    /// Its ports.
    pub range: PortRange,
    /// The ephemeral range.
    pub ephemeral: PortRange,
}

impl fmt::Display for EphemeralConflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, range, ephemeral } = self;
        write!(f, "the pool {pool} ({range}) overlaps the kernel's ephemeral ports ({ephemeral}): ")?;
        write!(f, "choose another range, or reserve it (sysctl net.ipv4.ip_local_reserved_ports={range})")
    }
}

/// The ephemeral range in the file at `path` ([`PATH`]).
pub fn ephemeral_range(path: &Path) -> io::Result<PortRange> {
    let text = fs::read_to_string(path)?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) => {
            PortRange::new(first, last).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no pair of ports"))),
    }
}

/// The pools that overlap the ephemeral range.
pub fn conflicts(pools: &Pools, ephemeral: PortRange) -> Vec<EphemeralConflict> {
    let conflict = |pool: &Pool| EphemeralConflict { pool: pool.name.clone(), range: pool.range, ephemeral };
    pools.iter().filter(|pool| pool.range.overlaps(ephemeral)).map(conflict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_pool_is_outside_of_linux_default_range() {
        let ephemeral = "32768-60999".parse().unwrap();
        assert_eq!(conflicts(&Pools::default(), ephemeral), []);
        assert_eq!(conflicts(&Pools::default(), "29999-60999".parse().unwrap()).len(), 1);
    }

    #[test]
    fn the_range_of_this_machine_can_be_read() {
        assert!(ephemeral_range(PATH.as_ref()).unwrap().count() > 0);
    }
}
