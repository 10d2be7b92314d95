//! The Kubernetes API: the only crate that knows kube.
#![cfg_attr(test, allow(clippy::unwrap_used))]
