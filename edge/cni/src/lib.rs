//! The CNI protocol: what a container runtime asks of a network plugin.
#![cfg_attr(test, allow(clippy::unwrap_used))]
