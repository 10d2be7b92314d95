//! The kernel, the plan in memory and the reference agree: real packets between namespaces, through the table that
//! [`ServicePlane`] writes.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, dead_code)]

#[path = "../../../services/tests/agree/mod.rs"]
mod agree;
mod ask;
mod beyond;
mod followed;
mod judge;
#[path = "../../../nft/tests/evaluate/observe.rs"]
mod observe;
#[path = "../../../nft/tests/evaluate/probe.rs"]
mod probe;
mod random;
#[path = "../../../services/tests/reference/mod.rs"]
mod reference;
mod servers;
mod site;
