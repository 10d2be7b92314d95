//! The way of a registration. Folders and files are its stages, in this order:
//!
//! 1. [`api`]: a request comes in, over TCP or a unix socket;
//! 2. [`admit`]: who asks, may they, and is what they say usable;
//! 3. `table`: what the catalog becomes, a pure state machine;
//! 4. `health`: looks at the instance from then on;
//! 5. `evict`: what becomes of it when it no longer renews;
//! 6. [`watch`]: how everybody else learns of all that, as a [`Snapshot`] and a log of [`Change`]s.
//!
//! [`Registry`] is the handle on all of it. Behind it one owner task holds the table (`owner`); nobody else writes.
//! What must survive a crash goes to a [`store::Store`] before it is acknowledged.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admit;
pub mod api;
mod config;
mod error;
mod evict;
mod health;
mod owner;
mod registry;
mod snapshot;
pub mod store;
mod table;
pub mod watch;

pub use admit::{Anonymous, Caller, Peer, Refusal};
pub use config::RegistryConfig;
pub use error::RegistryError;
pub use registry::Registry;
pub use snapshot::Snapshot;
pub use watch::{Change, Changes};
