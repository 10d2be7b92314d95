//! From the flags to a running agent, and its end.

use std::{
    net::IpAddr,
    path::Path,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use arc_swap::ArcSwap;
use portolan_attach::{Attach, AttachConfig, Plane};
use portolan_cli::{AgentArgs, Global};
use portolan_client::{Client, Endpoint};
use portolan_kubernetes::{Capacity, Connection, ConnectionConfig, NodeView, Publisher};
use portolan_model::AgentRequest;
use portolan_netlink::route;
use portolan_nri::Plugin;
use portolan_plugin::spool;
use portolan_ports::HolderMode;
use portolan_telemetry::metrics::Metrics;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Agent, AgentConfig,
    catalog::Catalog,
    cluster::{Cluster, Kubernetes},
    engine::Engine,
    http,
    localhost::Localhost,
    nri::Runtime,
    plan, pools, probe, reconcile, self_address, serve, server,
};
use crate::{
    cni::install::{self, InstallConfig},
    ending::Ending,
    holder,
};

/// How long the cluster's state is waited for before the node's ports are looked at. Pods that run need nothing of it,
/// so the agent goes on without; those that ask wait for it one by one.
const SYNC: Duration = Duration::from_secs(10);
/// How long the holder's container may take to start.
const HOLDER: Duration = Duration::from_secs(60);
/// How long the agent before us may take to end: a DaemonSet starts the next one when the last one has ended, but on
/// a slow machine its process may outlive its container for a moment.
const LOCK: Duration = Duration::from_secs(15);
/// How long requests that were begun may take at the end.
const GRACE: Duration = Duration::from_secs(10);
/// How long the runtime's side may be away before somebody is told.
const NRI_PATIENCE: Duration = Duration::from_secs(5);
/// The plugin's name among NRI plugins.
pub(crate) const NRI_NAME: &str = "portolan";
/// Its place among them: early, so that others see our variables.
const NRI_INDEX: &str = "10";

/// Runs until SIGTERM or SIGINT. Rules, holds and leases stay for the next agent.
pub(crate) async fn main(global: &Global, args: &AgentArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let config = AgentConfig::new(global, args)?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tokio::task::spawn_blocking(probe::kernel).await??;
    // First what fails when another agent is there already, as nothing is to be undone then.
    let http = TcpListener::bind(args.listen).await;
    let http = http.with_context(|| format!("listening on {} for metrics", args.listen))?;
    let cluster = cluster(args, &config).await?;
    let agent = open(args, config, cluster).await?;

    let socket = server::bind(&args.socket)?;
    tracing::info!(node = %agent.config.node, socket = %args.socket.display(), "serving the CNI plugin");
    tasks.spawn(server::run(Arc::clone(&agent), socket, stop.clone()));
    tasks.spawn(late_releases(Arc::clone(&agent), args.socket.clone()));
    tasks.spawn(http::run(Arc::clone(&agent), http, stop.clone()));
    tasks.spawn(reconcile::run(Arc::clone(&agent), catalog(global, args)?, stop.clone()));
    if let Some(address) = agent.config.self_address {
        let listener = self_address::listen(address).await?;
        tasks.spawn(self_address::run(Arc::clone(&agent), listener, stop.clone()));
    }
    if !args.no_nri {
        let plugin = Plugin::new(&args.nri_socket, NRI_NAME, NRI_INDEX)?;
        tasks.spawn(watch_nri(plugin.state(), stop.clone()));
        tasks.spawn(plugin.serve(Arc::new(Runtime(Arc::clone(&agent))), stop.clone()));
    }
    let chained = args.install_cni.then(|| chain(args)).transpose()?;

    ending.asked().await;
    tracing::info!("ending: ports, rules and holds stay for the next agent");
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(GRACE, tasks.wait()).await.is_err() {
        tracing::warn!("a request took too long and is left to the next agent");
    }
    if let Some(watched) = chained {
        watched.store(true, Ordering::Relaxed);
    }
    // Nobody may ask any more when the next agent takes the lock.
    let _ = std::fs::remove_file(&args.socket);
    if let Some(kubernetes) = agent.cluster.kubernetes() {
        kubernetes.publisher.idle(Duration::from_secs(2)).await;
    }
    agent.engine.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// The API server, as far as it is there.
async fn cluster(args: &AgentArgs, config: &AgentConfig) -> anyhow::Result<Cluster> {
    if args.standalone {
        return Ok(Cluster::Standalone);
    }
    let connection = ConnectionConfig {
        kubeconfig: args.kubeconfig.clone(),
        context: None,
        component: "agent".to_owned(),
    };
    let connection = Connection::open(&connection).await.context(
        "reaching the API server: run in a Pod with a service account, or say --kubeconfig, or --standalone",
    )?;
    let view = NodeView::start(&connection, &config.node);
    if let Err(error) = view.synced(SYNC).await {
        tracing::warn!("going on without the cluster until it answers: {error}");
    }
    let publisher = Publisher::start(&connection, &config.node);
    let capacity = Capacity::start(&connection, &view);
    Ok(Cluster::Kubernetes(Box::new(Kubernetes { connection, view, publisher, capacity })))
}

/// Takes over what the last agent left, and makes the kernel agree with it.
async fn open(args: &AgentArgs, config: AgentConfig, cluster: Cluster) -> anyhow::Result<Arc<Agent>> {
    let own = tokio::task::spawn_blocking(own_addresses).await?;
    let now = pools::pools(cluster.pools(), &config.pools, config.quarantine);
    let for_ports = pools::of_ports(&now)?;
    let attach = AttachConfig {
        folder: config.data.clone(),
        pools: for_ports,
        holder: match &args.holder_socket {
            Some(_) => HolderMode::Connect { patience: HOLDER },
            None => holder::spawned_to_stay()?,
        },
        holder_socket: args.holder_socket.clone(),
        reserved_ports: Some(config.reserved_ports.clone()),
        plan: plan::first(&config, &cluster, &now),
        fixed: config.self_address.and_then(self_address::mapping).into_iter().collect(),
        plane: Plane::Live,
        patience: LOCK,
    };
    let (attach, recovered) = tokio::task::spawn_blocking(move || Attach::open(attach))
        .await?
        .context("taking over the ports of this node")?;
    recovered.report();
    let leases: Vec<_> = attach.leases().cloned().collect();
    let agent = Arc::new(Agent {
        engine: Engine::start(attach)?,
        config,
        cluster,
        directory: Default::default(),
        localhost: Localhost::new(args.localhost),
        metrics: Arc::new(Metrics::default()),
        pools: ArcSwap::from_pointee(Vec::new()),
        followed: Mutex::default(),
        own,
        wake: Notify::new(),
    });
    agent.set_pools(now);
    reconcile::recover(&agent, &leases);
    Ok(agent)
}

/// What the machine itself says of where it can be reached.
fn own_addresses() -> Vec<IpAddr> {
    match route::primary_addresses() {
        Ok(primary) => primary.iter().collect(),
        Err(error) => {
            tracing::debug!(%error, "cannot list the addresses of this machine");
            Vec::new()
        }
    }
}

/// DELs that came while no agent was there. Only once the socket listens, so that none can come after.
async fn late_releases(agent: Arc<Agent>, socket: std::path::PathBuf) {
    let kept = tokio::task::spawn_blocking(move || spool::take(&socket)).await.unwrap_or_default();
    for request in kept {
        debug_assert!(matches!(request, AgentRequest::Del { .. }));
        serve::serve(&agent, request).await;
    }
}

fn catalog(global: &Global, args: &AgentArgs) -> anyhow::Result<Option<Catalog>> {
    let Some(url) = &args.registry else { return Ok(None) };
    let endpoint: Endpoint = url.parse().with_context(|| format!("--registry {url}"))?;
    let token = global.read_token().context("the registry's token")?;
    Ok(Some(Catalog::new(Client::new(endpoint, token))))
}

/// Puts the plugin into the runtime's chain, and keeps it there. The answer ends that when it is set.
fn chain(args: &AgentArgs) -> anyhow::Result<Arc<AtomicBool>> {
    let config = install(args);
    let copied = install::copy_binary(&config).context("installing the CNI plugin")?;
    if let Some(instead) = copied.instead {
        tracing::warn!("{instead}");
    }
    tracing::info!(copied = copied.changed, folder = %args.cni_bin_dir.display(), "the CNI plugin is installed");
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    // It waits for files, and for a configuration that the network's own DaemonSet has not written yet.
    std::thread::Builder::new().name("cni-chain".into()).spawn(move || {
        install::watch(&config, &end);
    })?;
    Ok(ended)
}

/// Where the plugin goes.
pub(crate) fn install(args: &AgentArgs) -> InstallConfig {
    InstallConfig {
        bin_dir: Some(args.cni_bin_dir.clone()),
        conf_dir: args.cni_conf_dir.clone(),
        agent_socket: Some(Path::new(&args.socket).to_path_buf()),
        keep_portmap: false,
    }
}

/// Says when the runtime comes and goes: without it containers do not know their ports.
async fn watch_nri(mut state: tokio::sync::watch::Receiver<portolan_nri::State>, stop: CancellationToken) {
    loop {
        let now = state.borrow_and_update().clone();
        match &now {
            portolan_nri::State::Ready { runtime, version } => {
                tracing::info!(%runtime, %version, "containers get their ports in the environment (NRI)");
            }
            portolan_nri::State::Waiting { reason } => {
                // A runtime that is being restarted is back soon.
                if tokio::time::timeout(NRI_PATIENCE, state.changed())
                    .await
                    .is_ok_and(|changed| changed.is_ok())
                {
                    continue;
                }
                tracing::warn!(
                    "containers do not get their ports in the environment: {reason}; containerd from 2.0 on has NRI, \
                     before it is enabled by [plugins.\"io.containerd.nri.v1.nri\"] disable = false"
                );
            }
            _ => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
