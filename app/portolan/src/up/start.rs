//! Puts the parts of `up` together, and takes them apart in the reverse order.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::Context;
use axum::Router;
use ipnet::IpNet;
use portolan_dns::{Dns, DnsConfig, Listener, Zone};
use portolan_model::{Name, NodeInfo};
use portolan_netlink::route;
use portolan_registry::{Registry, RegistryConfig, api};
use portolan_store::RedbStore;
use portolan_telemetry::metrics::Metrics;
use tokio::{net::TcpListener, net::UnixListener, sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    config::UpConfig,
    listeners::{self, UnixPath},
    lock::{DataFolder, DataPlaneLock},
    metrics,
};
use crate::{
    node::{self, Engine, NodeHandle},
    output::problem::mendable,
    run::SOCKET,
};

/// How long requests under way may take to end when `up` ends.
const DRAIN: Duration = Duration::from_secs(5);

/// How long resolvers may keep an answer, in seconds.
const DNS_TTL: u32 = 5;

/// Everything, running.
pub(crate) struct Up {
    /// The catalog.
    pub(crate) registry: Registry,
    node: NodeHandle,
    dns: Vec<Dns>,
    /// Cancelled when no new request is to be taken.
    closing: CancellationToken,
    servers: JoinSet<()>,
    _socket: UnixPath,
    _dataplane: Option<DataPlaneLock>,
    // Last: the folder is unlocked when nothing writes to it any more.
    _folder: DataFolder,
}

/// Bound before anything was changed.
struct Listeners {
    public: std::net::TcpListener,
    /// The same for browsers.
    browsers: std::net::TcpListener,
    register: std::net::TcpListener,
}

impl Up {
    /// Starts all parts, or none. Locks and addresses come first, as they fail most often and change nothing.
    pub(crate) async fn start(config: &UpConfig) -> anyhow::Result<Self> {
        let folder = DataFolder::lock(&config.data).map_err(mendable)?;
        let dataplane = config.dataplane.then(DataPlaneLock::take).transpose().map_err(mendable)?;
        let public = listeners::tcp(config.listen, "the page and the API", "--listen").map_err(mendable)?;
        let browsers = listeners::tcp(config.page_listen, "the page", "--page-listen").map_err(mendable)?;
        let register =
            listeners::tcp(config.register_listen, "the tutorial's register API", "--register-listen")
                .map_err(mendable)?;
        listeners::probe(config.dns_listen, "DNS", "--dns-listen").map_err(mendable)?;

        let counters = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
        let node_config = config.node()?;
        if let Err(why) = &node_config.own {
            tracing::info!("instances run on the host's network only: {why}");
        }
        let engine = tokio::task::spawn_blocking(move || Engine::open(node_config)).await??;
        let (gone, lost) = mpsc::unbounded_channel();
        let node = NodeHandle::start(engine, gone).context("starting the node's thread")?;

        // From here on the kernel knows us: whatever fails must give back what was taken.
        match Self::serve(config, &node, Listeners { public, browsers, register }, counters).await {
            Ok((registry, dns, servers, closing, socket)) => {
                tokio::spawn(forget(registry.clone(), lost));
                Ok(Self {
                    registry,
                    node,
                    dns,
                    closing,
                    servers,
                    _socket: socket,
                    _dataplane: dataplane,
                    _folder: folder,
                })
            }
            Err(error) => {
                for failure in node.close().await {
                    tracing::error!("not cleaned up: {failure}");
                }
                Err(error)
            }
        }
    }

    async fn serve(
        config: &UpConfig,
        node: &NodeHandle,
        listeners: Listeners,
        counters: Arc<Metrics>,
    ) -> anyhow::Result<(Registry, Vec<Dns>, JoinSet<()>, CancellationToken, UnixPath)> {
        let store = RedbStore::open(&config.data)?;
        let registry =
            Registry::start(registry_config(config, Arc::clone(&counters)), Box::new(store)).await?;
        let dns = start_dns(config, &counters, &registry)?;

        let closing = CancellationToken::new();
        let (socket, path) = super::listeners::unix(&config.data.join(SOCKET)).map_err(mendable)?;
        let info = NodeInfo {
            node: config.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            addresses: config.addresses.clone(),
            dataplane: config.dataplane,
            listen: config.listen.to_string(),
            dns: config.dns_listen.to_string(),
            zone: config.zone.clone(),
        };
        let public = Router::new()
            .merge(portolan_web::router(registry.clone()))
            .merge(metrics::router(counters, node.clone()))
            .merge(api::router(registry.clone()));
        let local = api::router(registry.clone()).merge(node::router(node.clone(), info));
        let tutorial = api::tutorial(registry.clone());

        let mut servers = JoinSet::new();
        for listener in [listeners.public, listeners.browsers] {
            servers.spawn(api::serve(TcpListener::from_std(listener)?, public.clone(), closing.clone()));
        }
        servers.spawn(api::serve(TcpListener::from_std(listeners.register)?, tutorial, closing.clone()));
        servers.spawn(api::serve(UnixListener::from_std(socket)?, local, closing.clone()));
        Ok((registry, dns, servers, closing, path))
    }

    /// Ends all parts: no new requests, those under way end, the catalog is written, the node gives back what belongs
    /// to nobody. Returns what could not be cleaned up.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        self.closing.cancel();
        // Streams of the page and of watchers end with the registry's `closing`.
        let (registry, servers) = (self.registry.clone(), &mut self.servers);
        let drained = async {
            tokio::join!(registry.shutdown(), async { while servers.join_next().await.is_some() {} });
        };
        let mut failures = Vec::new();
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("requests still under way after {}: cut off", humantime::format_duration(DRAIN));
            self.servers.abort_all();
        }
        for dns in self.dns {
            dns.stop().await;
        }
        failures.extend(self.node.close().await);
        failures
    }
}

fn registry_config(config: &UpConfig, metrics: Arc<Metrics>) -> RegistryConfig {
    let advertised = config.addresses.clone();
    let instances = [IpNet::V4(config.v4), IpNet::V6(config.v6)];
    RegistryConfig {
        node: config.node.clone(),
        ttl: config.ttl,
        remove_after: config.remove_after,
        token: config.token.clone(),
        // Asked of the kernel each time: addresses come and go.
        is_local: Arc::new(move |address: IpAddr| {
            advertised.contains(&address)
                || instances.iter().any(|net| net.contains(&address))
                || has_address(address)
        }),
        metrics,
        ..RegistryConfig::default()
    }
}

fn has_address(address: IpAddr) -> bool {
    let addresses = route::Rtnl::open().and_then(|rtnl| rtnl.addresses());
    addresses.is_ok_and(|all| all.iter().any(|own| own.net.addr() == address))
}

/// The server for everybody, and one on the gateway for instances with networks of their own, for whom names outside
/// the zone are forwarded too. Instances can do without the second one where something else has port 53.
fn start_dns(config: &UpConfig, metrics: &Arc<Metrics>, registry: &Registry) -> anyhow::Result<Vec<Dns>> {
    let start = |listener| {
        let config = DnsConfig {
            zone: Zone::new(&config.zone, DNS_TTL)?,
            listeners: vec![listener],
            upstreams: None,
            resolv_conf: "/etc/resolv.conf".into(),
            metrics: Arc::clone(metrics),
        };
        anyhow::Ok(Dns::start(config, Arc::new(registry.clone()))?)
    };
    let mut servers = vec![start(Listener::new(config.dns_listen))?];
    for gateway in config.gateways() {
        let gateway = Listener {
            address: (gateway, 53).into(),
            forward_for: vec![config.v4.into(), config.v6.into()],
            before_address: true,
            sockets: None,
        };
        match start(gateway) {
            Ok(server) => servers.push(server),
            Err(error) => tracing::warn!("instances with a network of their own have no DNS there: {error}"),
        }
    }
    Ok(servers)
}

/// An instance whose supervisor was killed has nobody to say so: the node noticed, the catalog forgets it.
async fn forget(registry: Registry, mut lost: mpsc::UnboundedReceiver<Name>) {
    while let Some(name) = lost.recv().await {
        if let Err(error) = registry.deregister(&name, None).await {
            tracing::debug!(instance = %name, %error, "was not in the catalog");
        }
    }
}
