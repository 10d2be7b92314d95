//! Userspace forwarding where the kernel cannot: the loopback.
#![cfg_attr(test, allow(clippy::unwrap_used))]
