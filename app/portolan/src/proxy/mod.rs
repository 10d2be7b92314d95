//! `portolan proxy`: what kube-proxy does, for all Services of a cluster or for those that name it.
//!
//! [`config`] is what kube-proxy's flags and its [file](mod@file) say. [`start`] opens the watches and the listeners;
//! [`drive`] waits until Services and endpoints are known, brings the table to them, and follows every change from then
//! on; [`addresses`] are those of the node. Others ask: load balancers at [`health`] and [`checks`], collectors at
//! [`http`], the administrator of the node at [`api`], by [`status`] and `portolan trace`.
//!
//! Ended, by a signal or a crash, it leaves its table for the next one: no connection notices. [`cleanup`] takes it away.

mod addresses;
mod api;
pub(crate) mod checks;
mod cleanup;
mod config;
mod counts;
mod drive;
mod file;
mod health;
mod http;
mod listen;
mod localhost;
mod locals;
mod start;
mod status;
mod sysctls;

#[cfg(test)]
mod tests;

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use portolan_apply::ServicePlane;
use portolan_cli::{Global, ProxyArgs, ProxyVerb};
use portolan_kubernetes::ServiceWatchHealth;
use portolan_telemetry::service_proxy::ServiceProxyMetrics;

use config::ProxyConfig;
use health::Health;
use locals::Locals;

/// What the parts of the proxy share.
pub(crate) struct Proxy {
    config: ProxyConfig,
    /// The words of the command line.
    flags: Vec<String>,
    metrics: Arc<ServiceProxyMetrics>,
    health: Health,
    locals: Locals,
    watches: ServiceWatchHealth,
    /// The owner of the table, once everything was known.
    plane: Mutex<Option<ServicePlane>>,
    started: SystemTime,
}

impl Proxy {
    /// The owner of the table; `None` until everything was known once.
    fn plane(&self) -> Option<ServicePlane> {
        self.plane.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves until SIGTERM or SIGINT, cleans up, or asks the proxy that runs.
pub(crate) async fn main(_: Global, args: ProxyArgs) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Some(ProxyVerb::Status(args)) => status::main(args).await,
        None if args.cleanup => cleanup::main(&args),
        None => {
            crate::memory::with_one_arena();
            start::main(&args).await
        }
    }
}
