//! The CNI plugin, and its place in a runtime's configuration.
//!
//! A container runtime starts this program with `CNI_COMMAND` in its environment and no arguments: [`plugin`] answers,
//! without a thread or an async runtime, and starts no other program. What the runtime says is read by
//! [`portolan_cni`]; the work is done by the agent behind its socket ([`ask`]), or here ([`alone`]) where there is no
//! agent. `portolan cni` ([`verb`]) puts the plugin into the chain of plugins ([`install`]).

mod alone;
mod ask;
pub(crate) mod install;
pub(crate) mod plugin;
pub(crate) mod spool;
pub(crate) mod verb;
