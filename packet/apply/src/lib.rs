//! Make the kernel agree with the plan, flush what is stale, repair what others break.
//!
//! [`DataPlane`] is the door: any thread asks for changes, one thread of ours owns the table and makes them. The way
//! of a change:
//!
//! 1. [`DataPlane::submit`] puts it into a bounded queue, `queue`;
//! 2. the owner (`owner`) takes what has gathered there, asks `packet/plan` what it means for the kernel, and writes
//!    it in one transaction, `commit`;
//! 3. the caller has its answer; UDP connections that go to the wrong place are found and deleted beside, `flush`.
//!
//! The owner is level-triggered: at the start, after a failed transaction and after others changed our table
//! (`watch`), the same comparison of what is with what should be brings it back (`repair`). So a restart with
//! unchanged mappings writes nothing and no packet notices.
//!
//! Dropping a `DataPlane` leaves the table in place, as a crash would: packets keep flowing. [`DataPlane::stop`]
//! removes it, and nothing else.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod commit;
mod error;
mod flush;
mod handle;
mod ledger;
mod oneshot;
mod owner;
mod queue;
mod repair;
mod services;
mod stats;
mod watch;

pub use error::ApplyError;
pub use handle::{DataPlane, Ticket};
pub use oneshot::{Done, Known, OneShot};
pub use portolan_plan::{Counting, Counts, Placement, PlanConfig, PlanError, SourcePolicy};
pub use services::{
    BackendCounts, FrontendCounts, Live, ServiceCounts, ServiceEvent, ServicePlane, ServiceStats,
};
pub use stats::Stats;
