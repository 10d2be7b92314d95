//! `portolan agent --cleanup`: nothing of ours is left on this node. Also after a crash, and also twice.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use portolan_attach::Attach;
use portolan_cli::{AgentArgs, Global};
use portolan_kubernetes::{Capacity, Connection, ConnectionConfig, NodeView};
use portolan_plugin::spool;

use super::{AgentConfig, self_address, start};
use crate::cni::install;

/// How long an agent that is ending, or a holder, may still be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the API server may take. A node that has left the cluster has nobody to tell.
const TOLD: Duration = Duration::from_secs(15);

/// Goes on after a failure, and says all of them at the end.
pub(crate) async fn main(global: &Global, args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let config = AgentConfig::new(global, args)?;
    let mut failures: Vec<String> = Vec::new();
    // First the plugin, so that no new container asks.
    let plugin = start::install(args);
    match tokio::task::spawn_blocking(move || install::uninstall(&plugin)).await? {
        Ok(done) => done.iter().for_each(|line| tracing::info!("{line}")),
        Err(error) => failures.push(format!("uninstalling the CNI plugin: {error:#}")),
    }
    let (data, holder_socket) = (config.data.clone(), args.holder_socket.clone());
    let reserved = config.reserved_ports.clone();
    let wiped = move || Attach::wipe(&data, holder_socket.as_deref(), &reserved, PATIENCE);
    failures.extend(tokio::task::spawn_blocking(wiped).await?);
    let address = config.self_address;
    if let Some(Err(error)) = tokio::task::spawn_blocking(move || address.map(self_address::remove)).await? {
        failures.push(format!("taking the address for Pods off lo: {error:#}"));
    }
    let mut paths = vec![config.pods(), config.networks(), args.socket.clone(), spool::folder(&args.socket)];
    // A holder that was killed could not remove them.
    paths
        .extend(args.holder_socket.iter().flat_map(|socket| [socket.clone(), socket.with_extension("lock")]));
    for path in paths {
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        match removed {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                failures.push(format!("removing {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    // Folders that others use too, or that are mounted, stay.
    for folder in [Some(config.data.as_path()), args.socket.parent()].into_iter().flatten() {
        let _ = std::fs::remove_dir(folder);
    }
    if !args.standalone
        && let Err(error) = take_back_resources(args, &config).await
    {
        failures.push(format!("taking the resources off the Node: {error:#}"));
    }
    if failures.is_empty() {
        tracing::info!("nothing of Portolan is left on this node");
        return Ok(ExitCode::SUCCESS);
    }
    for failure in &failures {
        tracing::error!("{failure}");
    }
    Ok(ExitCode::FAILURE)
}

async fn take_back_resources(args: &AgentArgs, config: &AgentConfig) -> anyhow::Result<()> {
    let connection = ConnectionConfig {
        kubeconfig: args.kubeconfig.clone(),
        context: None,
        component: "agent".to_owned(),
    };
    let connection = Connection::open(&connection).await?;
    let view = NodeView::start(&connection, &config.node);
    view.synced(TOLD).await?;
    let capacity = Capacity::start(&connection, &view);
    capacity.set(BTreeMap::new());
    let deadline = tokio::time::Instant::now() + TOLD;
    while view.node().is_some_and(|node| !node.capacity.is_empty()) {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "the API server did not take it in time");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
