//! Choose, hold, reserve and journal host ports.
//!
//! The way of a lease: [`ports::Ports`] takes a request; [`allocate`] chooses numbers from a [`pool`] (single ports
//! and blocks as [`choose`] says, the former ones again as [`sticky`] remembers, none that is in [`quarantine`]);
//! [`holder`] binds them in a process of its own by [`hold`], so that they stay held when `portolan up` dies;
//! [`journal`] makes the lease last; then, outside of this crate, `portolan-apply` installs the rule. Before any of
//! it, [`reserve`] has told the kernel to keep its own choices out of the pools.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod allocate;
pub mod bitmap;
pub mod choose;
pub mod clock;
pub mod compare;
pub mod ephemeral;
pub mod hold;
pub mod holder;
pub mod index;
pub mod journal;
pub mod lease;
pub mod leases;
pub mod overlap;
pub mod owner;
pub mod pool;
pub mod ports;
pub mod quarantine;
pub mod replay;
pub mod reserve;
pub mod sticky;
pub mod taken;
pub mod usage;

pub use holder::HolderMode;
pub use lease::{Lease, LeaseRequest, Network, Owner};
pub use pool::{Pool, PoolError, Pools};
pub use ports::{Dropped, Maintained, PoolsChanged, Ports, PortsConfig, PortsError, Recovered, Turn};
pub use usage::Usage;
