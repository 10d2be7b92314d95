//! Pure: Services and their endpoints to the ruleset they ask for. No socket, no clock.
//!
//! 1. [`select()`]: which endpoints take new connections on this node, and why the others do not.
//! 2. `claims`: which Service has a frontend that several ask for.
//! 3. `unit`: a Service port, compiled: its endpoints by number (`arrange`, `maglev`), its frontends, its policies.
//! 4. [`SetId`]: the maps in which all of that is; `way`: the chains that choose, a handful for all Services;
//!    `chains`: where packets enter, are refused and leave.
//!
//! [`Services`] holds all of it and gives, for each change, the few element operations of that change ([`Changes`]);
//! [`Services::ruleset`] is the whole table. [`Services::is_stale`] tells which UDP flows the kernel still tracks by rules
//! that no longer hold. The next step is `packet/apply`, which makes the kernel agree.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arrange;
mod chains;
mod changes;
mod claims;
mod config;
mod counters;
mod drain;
mod error;
mod identity;
mod maglev;
mod roster;
mod ruleset;
mod select;
mod services;
mod sets;
mod shared;
mod slices;
mod sources;
mod stale;
mod unit;
mod view;
mod way;

pub use changes::Changes;
pub use config::{LocalDetector, NodePortAddresses, ServicesConfig};
pub use counters::Counted;
pub use drain::Gone;
pub use error::{Problem, ServicesError};
pub use identity::{Front, Identity, Space, Target};
pub use portolan_plan::{Counting, Flow, Version};
pub use select::{Asked, Candidate, Hint, Selection, Standing, Topology, select};
pub use services::{Gathered, Services};
pub use sets::{Direction, List, SetId, SetKind};
pub use stale::Touched;
pub use unit::Refusal;
pub use view::{EndpointView, FrontView, PortView};
pub use way::{Choice, Entrance, Sticky, Way};
