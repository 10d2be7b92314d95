//! The hidden `portolan await`: waits until a DaemonSet is ready on each of its nodes. `helm uninstall` ends when what
//! this waits for is done.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use portolan_cli::{AwaitArgs, Global};
use portolan_kubernetes::{Connection, ConnectionConfig, Rollout};

use crate::ending::Ending;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// Ends well when all is ready, else after the time limit or SIGTERM.
pub(crate) async fn main(_: Global, args: AwaitArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let config = ConnectionConfig {
        kubeconfig: args.kubeconfig.clone(),
        component: "await".to_owned(),
        ..ConnectionConfig::default()
    };
    let connection = Connection::open(&config).await?;
    let (namespace, name) = &args.daemon_set;
    let mut last = "nothing is known of it yet".to_owned();
    let waiting = async {
        loop {
            match Rollout::of_daemon_set(&connection, namespace, name).await {
                Ok(rollout) if rollout.is_complete() => break,
                Ok(rollout) => last = format!("ready on {} of {} nodes", rollout.ready, rollout.wanted),
                // The API server may be away, and RBAC be on its way: that is what the time limit is for.
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let complete = tokio::select! {
        waited = tokio::time::timeout(args.timeout, waiting) => waited.is_ok(),
        () = ending.asked() => return Ok(ExitCode::SUCCESS),
    };
    if !complete {
        let limit = humantime::format_duration(args.timeout);
        bail!("DaemonSet {namespace}/{name} is not complete after {limit}: {last}");
    }
    tracing::info!("DaemonSet {namespace}/{name} is ready on every node");
    Ok(ExitCode::SUCCESS)
}
