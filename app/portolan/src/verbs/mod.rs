//! The verbs that ask and show: one file each. What they print goes through [`crate::output`].

pub(crate) mod api;
pub(crate) mod doctor;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod ports;
pub(crate) mod resolve;
mod services;
pub(crate) mod shell;
pub(crate) mod watch;
