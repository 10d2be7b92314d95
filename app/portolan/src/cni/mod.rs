//! The CNI plugin's place in a runtime's configuration.
//!
//! `portolan cni` ([`verb`]) and the agent put it into the chain of plugins ([`install`]): `portolan-cni`, a program of
//! its own beside this one ([`portolan_plugin`]).

pub(crate) mod install;
pub(crate) mod verb;
