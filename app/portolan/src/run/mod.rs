//! `portolan run`: a command with published ports, registered and watched over.
//!
//! `plan` is what is asked; for each copy a `supervisor` leases ports from the node, starts the command (`child`,
//! through [`crate::launch`]), registers it, and starts it again (`restart`) when it dies.

mod bound;
mod child;
mod node_client;
pub(crate) mod plan;
mod program;
mod restart;
mod signals;
mod supervisor;

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use portolan_cli::{Global, RunArgs};
use portolan_client::{Client, Endpoint};
use portolan_model::Name;
use rustix::process::Signal;
use tokio::{sync::broadcast, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{plan::RunPlan, supervisor::Supervisor};
use crate::rights::Rights;

/// The name of the unix socket in the data folder by which `run` reaches `up`.
pub(crate) const SOCKET: &str = "portolan.sock";

/// The file with the ports of an instance as JSON, whose path its process finds in `PORTOLAN_PORTS_FILE`.
pub(crate) fn ports_file(data: &Path, name: &Name) -> PathBuf {
    data.join("instances").join(format!("{name}.json"))
}

/// Runs until the command has ended for good, and ends with its code.
pub(crate) async fn main(global: Global, args: RunArgs) -> anyhow::Result<ExitCode> {
    let plan = match RunPlan::new(&args, Rights::own().all()) {
        Ok(plan) => plan,
        Err(error) => {
            let (code, hint) = (error.exit_code(), error.hint());
            crate::output::problem::print_with_hint(&error.into(), hint);
            return Ok(ExitCode::from(code));
        }
    };
    // From here on a Ctrl-C is a wish to stop, not the end of this process with ports in its hands.
    let signals = signals::listen()?;
    let stop = CancellationToken::new();
    tokio::spawn(stop_on_signal(signals.subscribe(), stop.clone()));
    let data = global.data_dir();
    let statuses = supervise(&plan, &data, &signals, &stop).await?;
    Ok(ExitCode::from(code(&statuses)))
}

/// Runs all copies of `plan` against the node whose data folder is `data`, until each has ended for good or `stop`.
///
/// When one copy cannot be had (no ports, no such name), the others are stopped and that error is the result.
pub(crate) async fn supervise(
    plan: &RunPlan,
    data: &Path,
    signals: &broadcast::Sender<Signal>,
    stop: &CancellationToken,
) -> anyhow::Result<Vec<ExitStatus>> {
    let client = Client::new(Endpoint::Unix(data.join(SOCKET)), None).with_timeout(Duration::from_secs(10));
    let all = stop.child_token();
    let mut copies = JoinSet::new();
    for name in &plan.names {
        let (plan, name) = (plan.clone(), name.clone());
        let (client, data) = (client.clone(), data.to_owned());
        let (signals, stop) = (signals.subscribe(), all.clone());
        copies.spawn(async move {
            Supervisor::new(&plan, &name, client, &data, signals, stop)?.supervise().await
        });
    }
    let mut statuses = Vec::new();
    let mut failure = None;
    while let Some(copy) = copies.join_next().await {
        match copy.map_err(anyhow::Error::from).and_then(|result| result) {
            Ok(status) => statuses.extend(status),
            Err(error) => {
                all.cancel();
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(statuses), Err)
}

/// Turns the first SIGINT or SIGTERM into the order to stop.
async fn stop_on_signal(mut signals: broadcast::Receiver<Signal>, stop: CancellationToken) {
    loop {
        match signals.recv().await {
            Ok(signal) if signals::stops(signal) => return stop.cancel(),
            Err(broadcast::error::RecvError::Closed) => return,
            _ => {}
        }
    }
}

/// The command's code, as a shell would show it: 128 and the signal's number when a signal ended it. Of several
/// copies the highest. A command that ended by the very signal with which `run` was asked to end still says so.
fn code(statuses: &[ExitStatus]) -> u8 {
    let of = |status: &ExitStatus| {
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .and_then(|c| u8::try_from(c).ok())
    };
    statuses.iter().map(|status| of(status).unwrap_or(1)).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_the_commands() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(code(&[]), 0);
        assert_eq!(code(&[exited(7)]), 7);
        assert_eq!(code(&[exited(0), exited(3), exited(1)]), 3);
        assert_eq!(code(&[ExitStatus::from_raw(15)]), 143);
    }
}
