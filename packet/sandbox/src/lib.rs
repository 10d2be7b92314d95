//! The network of an instance that has one of its own: a named namespace with one link to the host.
//!
//! ```text
//!   namespace portolan-web-0                        the host
//!   eth0  10.213.17.4/32, fd70:..:a1b2/128  ─veth─  pt-5c0ffee1  10.213.0.1/32, fe80::1, fd70:..:1/128
//!   default via 10.213.0.1, via fe80::1             10.213.17.4 dev pt-5c0ffee1, and so on
//! ```
//! There is no bridge: the host routes, with one route of full length per instance, so that instances see no link layer
//! of each other, and what goes from one to another passes the host's rules.
//!
//! [`Sandboxes`] makes ([`create`](Sandboxes::create)), finds and removes them, and [`address`] chooses what they are
//! called on the wire. [`Forwarding`] lets the host forward, and puts back what it changed. The kernel's side of all of
//! it is `portolan-netlink`; masquerading and the way to published ports are rules, `portolan-plan`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
mod config;
mod create;
mod destroy;
mod error;
pub mod forwarding;
mod hash;
mod resolv;
mod sandboxes;

pub use address::{AddressError, Addresses};
pub use config::SandboxConfig;
pub use error::SandboxError;
pub use forwarding::{Forwarding, ForwardingError};
pub use resolv::resolv_conf;
pub use sandboxes::{Sandbox, Sandboxes};
