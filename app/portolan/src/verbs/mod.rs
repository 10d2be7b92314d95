//! The verbs that ask and show: one file each. What they print goes through [`crate::output`].

mod api;
pub(crate) mod doctor;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod ports;
pub(crate) mod resolve;
pub(crate) mod shell;
pub(crate) mod watch;
