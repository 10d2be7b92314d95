//! The table `inet portolan-services`: one thread owns it, and makes it what [`portolan_services`] asks for.
//!
//! [`ServicePlane`] is the door. The way of a change of a Service or of its endpoints:
//!
//! 1. [`ServicePlane::submit`] puts the event into a bounded queue;
//! 2. the owner (`owner`) tells it to [`portolan_services::Services`], which says what that means in elements, and writes
//!    these in one transaction;
//! 3. the caller has its answer; UDP connections that go to the wrong place are found and deleted beside (`flows`), TCP
//!    connections to endpoints that are gone are reset when their Service wants it (`drain`).
//!
//! At the start, after a refused transaction and after others changed the table, `level` compares all of it with what it
//! should be (`difference`) and writes the rest in pieces that keep nobody waiting (`chunks`, `stride`, `quiet`).

mod chunks;
mod counters;
mod difference;
mod drain;
mod event;
mod flows;
mod level;
mod owner;
mod plane;
mod queue;
mod quiet;
mod stats;
mod stride;

pub use counters::{BackendCounts, FrontendCounts, ServiceCounts};
pub use event::ServiceEvent;
pub use plane::ServicePlane;
pub use stats::{Live, ServiceStats};
