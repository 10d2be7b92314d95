//! Why no ports could be chosen.

use std::net::IpAddr;

use portolan_model::{Name, PortName, PortRange, PortRanges, Protocol, Protocols};

use crate::{pool::PoolError, usage::Exhaustion};

/// Why no ports could be chosen. Nothing is taken then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// The pool is not there.
    #[error("port {port}: {source}")]
    Pool {
        /// The port's name.
        port: PortName,
        /// Which pool, and which there are.
        source: PoolError,
    },
    /// The pool is there, and full.
    #[error("port {port}: {exhaustion}")]
    Exhausted {
        /// The port's name.
        port: PortName,
        /// What is in the way.
        exhaustion: Box<Exhaustion>,
    },
    /// More ports than the pool has.
    #[error("port {port}: a block of {count} cannot fit in the pool {pool} ({ranges}), which has {} ports in a row: ask for fewer or configure a larger pool", .ranges.longest())]
    TooLarge {
        /// The port's name.
        port: PortName,
        /// How many were asked for.
        count: u16,
        /// The pool.
        pool: Name,
        /// Its ports.
        ranges: PortRanges,
    },
    /// A static port that another lease has.
    #[error("port {port}: host port {number}/{protocol} is leased already{}", on(*.address))]
    Leased {
        /// The port's name.
        port: PortName,
        /// The number that is in the way: the lowest of the block that is.
        number: u16,
        /// The protocol.
        protocol: Protocol,
        /// The address that was asked for.
        address: Option<IpAddr>,
    },
    /// A static port outside of the pool that the request names.
    #[error(
        "port {port}: host port {host} is not in the pool {pool} ({ranges}): leave the pool out, static ports need none"
    )]
    OutsidePool {
        /// The port's name.
        port: PortName,
        /// The asked port or block.
        host: PortRange,
        /// The pool.
        pool: Name,
        /// Its ports.
        ranges: PortRanges,
    },
    /// The pool is not for this protocol.
    #[error(
        "port {port}: the pool {pool} is for {allowed}, not for {asked}: name another pool, or another protocol"
    )]
    Protocol {
        /// The port's name.
        port: PortName,
        /// What was asked for.
        asked: Protocols,
        /// The pool.
        pool: Name,
        /// What it is for.
        allowed: Protocols,
    },
    /// Not a request that can be answered.
    #[error("port {port}: {why}")]
    Request {
        /// The port's name.
        port: PortName,
        /// What is wrong and what to do.
        why: &'static str,
    },
}

fn on(address: Option<IpAddr>) -> String {
    address.map(|address| format!(" on {address}")).unwrap_or_default()
}
