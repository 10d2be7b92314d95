//! DNS answers from a snapshot of the catalog, and the server.
//!
//! The way of a question: `serve` receives the packet, `message` reads it, `respond` decides whose it is; a name of
//! ours goes through `zone` (what does it name) and [`answer()`] (what is known of it; of Services, [`services`]) back into `message`, another
//! through `forward` to the resolvers of `resolv`.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
mod catalog;
mod forward;
mod listen;
mod message;
mod resolv;
mod respond;
mod serve;
pub mod services;
mod zone;

pub use answer::{Answer, View, answer};
pub use listen::{DnsError, Listener};
pub use respond::Catalog;
pub use serve::{Dns, DnsConfig};
pub use zone::{Zone, ZoneError};
