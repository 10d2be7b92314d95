//! Namespaces, echo servers, browsers and oracles for the tests.
//!
//! Everything here panics with a reason when it cannot do its work, as a test would: this crate is only ever a
//! dev-dependency, or a dependency of `tests/` and `benches/` (`cargo xtask layers` checks that). Nothing here
//! uses Portolan's own netlink code: what checks a thing must not be built on it. Namespaces come from `ip`,
//! rules are read back by `nft`.
//!
//! - [`need_root!`] says who may run a test, [`programs`] what it needs installed;
//! - [`net`] makes networks, [`echo`] answers in them, [`ask`] asks;
//! - [`nft`] is the independent reader of rules;
//! - [`eventually`] waits for a condition instead of for a time;
//! - [`Portolan`] starts the real binary, [`browser`] looks at its page.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ask;
pub mod browser;
pub mod echo;
pub mod net;
pub mod nft;
mod portolan;
mod privileges;
pub mod process;
pub mod programs;
mod wait;

pub use portolan::{Output, Portolan, binary, built, cargo, plugin};
pub use privileges::{root_problem, skip};
pub use process::Background;
pub use wait::{eventually, eventually_ok};
