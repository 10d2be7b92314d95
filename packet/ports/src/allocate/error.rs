//! Why no ports could be chosen.

use std::net::IpAddr;

use portolan_model::{Name, PortName, PortRange, Protocol};

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
    #[error("port {port}: a block of {count} cannot fit in the pool {pool} ({range}), which has {} ports: ask for fewer or configure a larger pool", .range.count())]
    TooLarge {
        /// The port's name.
        port: PortName,
        /// How many were asked for.
        count: u16,
        /// The pool.
        pool: Name,
        /// Its ports.
        range: PortRange,
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
        "port {port}: host port {host} is not in the pool {pool} ({range}): leave the pool out, static ports need none"
    )]
    OutsidePool {
        /// The port's name.
        port: PortName,
        /// The asked port or block.
        host: PortRange,
        /// The pool.
        pool: Name,
        /// Its ports.
        range: PortRange,
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
