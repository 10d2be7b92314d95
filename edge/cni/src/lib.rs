//! The CNI protocol: what a container runtime asks of a network plugin, and how it is answered.
//!
//! The [specification](https://github.com/containernetworking/cni/blob/main/SPEC.md), versions 0.1.0 to 1.1.0, of a
//! plugin that is chained behind others: it changes nothing of their result and publishes ports for it.
//! [`Call::read`] turns environment and standard input into a [`Call`]; [`CniError`] and [`version_reply`] are what is
//! written back. No I/O and no decision here: those are in `app/plugin`.
//!
//! * [`environment`](Environment): the variables and what is required of them;
//! * `config`: the configuration, read once;
//! * [`mod@call`]: variables and configuration together;
//! * `result`: the addresses in the result of the plugins before us;
//! * `mappings`: the runtime's `portMappings`;
//! * `portmap`: the options of the portmap plugin, in whose place this one can stand.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arguments;
pub mod call;
mod config;
mod environment;
mod error;
mod mappings;
mod portmap;
mod result;
mod settings;
mod text;
mod version;

pub use call::{Call, Task};
pub use environment::{Command, Environment};
pub use error::{CniError, code};
pub use settings::Settings;
pub use version::{SpecVersion, version_reply};
