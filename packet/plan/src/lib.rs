//! Pure: mappings to the ruleset they ask for, and the difference of two rulesets. No socket, no clock.
//!
//! The way of a packet through the rules, one file for each step:
//!
//! 1. [`ingress`]: a packet to an address of this machine is looked up in a handful of maps, by address, protocol
//!    and port, and rewritten to the instance. How many mappings there are does not matter to it.
//! 2. [`outbound`]: what an instance sends to the outside leaves with an address of this machine.
//!    [`reverse`]: from a mapped port it leaves with the published one.
//! 3. [`hairpin`]: what an instance sends to a published port comes back to an instance, maybe to itself.
//! 4. [`protect`]: what no instance may send.
//!
//! [`Plan`] holds the mappings and gives, for each change, the few element operations of that change
//! ([`Changes`]); [`Plan::ruleset`] is the whole table; [`diff()`] is the way from any table to that one.
//! [`Plan::is_stale`] tells which connections the kernel still tracks by rules that no longer hold.
//! The next step is `packet/apply`, which makes the kernel agree.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod changes;
mod concerned;
mod config;
pub mod counters;
mod diff;
mod error;
pub mod hairpin;
pub mod ingress;
mod networks;
pub mod outbound;
mod plan;
pub mod protect;
pub mod published;
pub mod reverse;
mod ruleset;
mod sets;
pub mod sources;
mod stale;
mod version;

pub use changes::{Change, Changes};
pub use concerned::{concerned, concerned_by_flows};
pub use config::{Counting, Placement, PlanConfig};
pub use counters::Counts;
pub use diff::{Difference, diff, same_shape};
pub use error::PlanError;
pub use plan::Plan;
pub use sets::{Direction, Run, SetId, SetKind};
pub use sources::SourcePolicy;
pub use stale::{Flow, Touched};
pub use version::Version;
