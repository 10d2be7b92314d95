//! `portolan up`: catalog, API, page, DNS and the node in one process.
//!
//! [`config`] is what it is told, [`lock`] keeps a second one away, [`listeners`] binds before anything changes,
//! [`start`] puts the parts together and takes them apart again. `demo` uses the same.

mod config;
mod listeners;
mod lock;
mod metrics;
mod start;

use std::process::ExitCode;

use anyhow::Context;
use portolan_cli::{Global, UpArgs};
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::{config::UpConfig, start::Up};
use crate::output::problem;

/// Runs until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn main(global: Global, args: UpArgs) -> anyhow::Result<ExitCode> {
    let config = match UpConfig::new(&global, &args) {
        Ok(config) => config,
        Err(error) => {
            problem::print(&error);
            return Ok(ExitCode::from(2));
        }
    };
    // Before the first change to the machine: a Ctrl-C during the start ends it in order.
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let up = Up::start(&config).await?;
    tracing::info!("page on http://{}/", config.page_listen);
    tracing::info!("API on http://{}/v1/instances", config.listen);
    tracing::info!("register API of the tutorial on http://{}/register", config.register_listen);
    tracing::info!("DNS for {} on {}", config.zone, config.dns_listen);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending; a second signal ends at once");
    let failures = tokio::select! {
        failures = up.stop() => failures,
        _ = interrupt.recv() => vec!["ended at once, by a second signal".to_owned()],
        _ = terminate.recv() => vec!["ended at once, by a second signal".to_owned()],
    };
    for failure in &failures {
        problem::print(&anyhow::anyhow!("not cleaned up: {failure}"));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
