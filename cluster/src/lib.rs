//! A real Kubernetes cluster of network namespaces, for tests and as a playground.
#![cfg_attr(test, allow(clippy::unwrap_used))]
