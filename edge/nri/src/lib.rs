//! The NRI protocol: what a container runtime tells and lets a node resource plugin change.
#![cfg_attr(test, allow(clippy::unwrap_used))]
