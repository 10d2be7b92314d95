//! The holder: a small process whose only work is to have sockets bound, so that they stay bound when `portolan up`
//! crashes or is replaced.
//!
//! kube-proxy gave holding up for want of such a process (kubernetes/kubernetes#100643); podman has conmon keep the
//! descriptors. The portolan program is its own holder: `portolan holder --socket PATH` calls [`serve()`]. [`wire`] is
//! what both sides say; [`HolderClient`] asks it. Either the client starts it, and another when one has as many sockets
//! as its limit of open files allows; or it runs as a container of its own and the client waits for it ([`HolderMode`]).

mod bind;
mod client;
mod error;
mod held;
mod serve;
mod shard;
mod spares;
pub mod wire;

pub use client::{HolderClient, HolderMode};
pub use error::HoldError;
pub use serve::{ABANDONED, IDLE, ServeError, ServeOptions, serve};
pub use shard::HolderError;
