//! The doors to the kernel: netlink sockets, links and routes, conntrack, sock_diag, namespaces.
//! The only crate with `unsafe` (a call each in [`namespace`], [`fragments`] and [`socket`]).
//!
//! Read it in this order: [`socket`] sends and receives datagrams, [`exchange`] asks and waits for the answer, [`message`] and [`attribute`] are the two layers
//! of what is in them, and [`error`] is what the kernel answers when it refuses. On these stand [`route`] (links,
//! addresses, routes), [`conntrack`] (flows) and [`sockdiag`] (who has bound which port), and, outside this crate,
//! `portolan-nft`. [`namespace`], [`process`] and [`sysctl`] are the doors that are files instead of messages;
//! at a [`step`] tests have a process killed.
//!
//! Everything here blocks. Async callers keep a thread of their own for it: a socket belongs to the namespace in
//! which it was opened, and threads of a runtime must not change theirs.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod attribute;
pub mod conntrack;
pub mod error;
pub mod exchange;
pub mod fragments;
pub mod message;
pub mod namespace;
pub mod process;
pub mod route;
pub mod sockdiag;
pub mod socket;
pub mod step;
pub mod sysctl;

pub use error::{KernelError, NetlinkError};
pub use socket::{Bus, Socket};
