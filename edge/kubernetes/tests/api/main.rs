//! What the crate promises, against a real etcd and kube-apiserver on the loopback.
//!
//! Each test has namespaces, nodes and pools of its own, so that they share one API server; those that stop it have one
//! for themselves.
#![allow(clippy::unwrap_used)]

mod endpoints;
mod gate;
mod leader;
mod objects;
mod pools;
mod publish;
mod restart;
mod server;
mod services;
mod view;
mod webhook;

use std::time::Duration;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something; panics with `what` when it does not in time.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(found) => found,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    eventually(what, async || holds().await.then_some(())).await;
}
