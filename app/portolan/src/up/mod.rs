//! `portolan up`: catalog, API, page, DNS and the node in one process.
//!
//! [`config`] is what it is told, [`lock`] keeps a second one away, [`start`] puts the parts together (the
//! [`catalog`](crate::catalog) and the node) and takes them apart again. `demo` uses the same.

mod config;
pub(crate) mod lock;
mod metrics;
mod start;

use std::process::ExitCode;

use portolan_cli::{Global, UpArgs};

pub(crate) use self::{config::UpConfig, start::Up};
use crate::{ending::Ending, output::problem};

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
    let mut ending = Ending::listen()?;
    let up = Up::start(&config).await?;
    tracing::info!("page on http://{}/", config.page_listen);
    tracing::info!("API on http://{}/v1/instances", config.listen);
    tracing::info!("register API of the tutorial on http://{}/register", config.register_listen);
    tracing::info!("DNS for {} on {}", config.zone, config.dns_listen);
    ending.asked().await;
    tracing::info!("ending; a second signal ends at once");
    let failures = tokio::select! {
        failures = up.stop() => failures,
        () = ending.asked() => vec!["ended at once, by a second signal".to_owned()],
    };
    for failure in &failures {
        problem::print(&anyhow::anyhow!("not cleaned up: {failure}"));
    }
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
