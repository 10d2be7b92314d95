//! Puts the parts of `up` together, and takes them apart in the reverse order.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context;
use axum::Router;
use ipnet::IpNet;
use portolan_dns::Listener;
use portolan_model::{Name, NodeInfo};
use portolan_registry::{Registry, RegistryConfig, api};
use portolan_telemetry::metrics::Metrics;
use tokio::{net::UnixListener, sync::mpsc};

use super::{
    config::UpConfig,
    lock::{DataFolder, DataPlaneLock},
    metrics,
};
use crate::{
    catalog::{
        Catalog, has_address,
        listeners::{self, UnixPath},
    },
    node::{self, Engine, NodeHandle},
    output::problem::mendable,
    run::SOCKET,
    services::{self, Owner, ServicesHandle},
};

/// Everything, running.
pub(crate) struct Up {
    catalog: Catalog,
    node: NodeHandle,
    services: ServicesHandle,
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
    /// The catalog.
    pub(crate) const fn registry(&self) -> &Registry {
        &self.catalog.registry
    }

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
        let node = NodeHandle::start(engine, gone, config.localhost).context("starting the node's thread")?;

        // From here on the kernel knows us: whatever fails must give back what was taken.
        match Self::serve(config, &node, Listeners { public, browsers, register }, counters).await {
            Ok((catalog, services, socket)) => {
                tokio::spawn(forget(catalog.registry.clone(), lost));
                Ok(Self { catalog, node, services, _socket: socket, _dataplane: dataplane, _folder: folder })
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
    ) -> anyhow::Result<(Catalog, ServicesHandle, UnixPath)> {
        let mut catalog = Catalog::open(&config.data, registry_config(config, Arc::clone(&counters))).await?;
        start_dns(config, &counters, &mut catalog)?;
        let (settings, board) = (config.services(), catalog.services.clone());
        let owner = tokio::task::spawn_blocking(move || Owner::open(settings, board)).await??;
        let services = ServicesHandle::start(owner, catalog.registry.clone(), node.clone())
            .context("starting the thread of Services")?;

        let (socket, path) = listeners::unix(&config.data.join(SOCKET)).map_err(mendable)?;
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
        let registry = &catalog.registry;
        let public = Router::new()
            .merge(portolan_web::router(registry.clone()))
            .merge(metrics::router(counters, node.clone()))
            .merge(api::router(registry.clone()));
        let local = api::router(registry.clone())
            .merge(node::router(node.clone(), info))
            .merge(services::api::router(services.clone()));
        let tutorial = api::tutorial(registry.clone());

        catalog.serve_tcp(listeners.public, public.clone())?;
        catalog.serve_tcp(listeners.browsers, public)?;
        catalog.serve_tcp(listeners.register, tutorial)?;
        catalog.serve(UnixListener::from_std(socket)?, local);
        Ok((catalog, services, path))
    }

    /// Ends all parts: no new requests, those under way end, the catalog is written, the node gives back what belongs
    /// to nobody. Returns what could not be cleaned up.
    pub(crate) async fn stop(self) -> Vec<String> {
        self.catalog.stop().await;
        // As rules and holds of instances that live, Services stay for the next `up`.
        let leave = self.node.usage().await.is_ok_and(|usage| !usage.leases.is_empty());
        let mut failures = self.services.close(leave).await;
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

/// The server for everybody, and one on the gateway for instances with networks of their own, for whom names outside
/// the zone are forwarded too. Instances can do without the second one where something else has port 53.
fn start_dns(config: &UpConfig, metrics: &Arc<Metrics>, catalog: &mut Catalog) -> anyhow::Result<()> {
    catalog.resolve(&config.zone, Listener::new(config.dns_listen), metrics)?;
    for gateway in config.gateways() {
        let gateway = Listener {
            address: (gateway, 53).into(),
            forward_for: vec![config.v4.into(), config.v6.into()],
            before_address: true,
            sockets: None,
        };
        if let Err(error) = catalog.resolve(&config.zone, gateway, metrics) {
            tracing::warn!("instances with a network of their own have no DNS there: {error}");
        }
    }
    Ok(())
}

/// An instance whose supervisor was killed has nobody to say so: the node noticed, the catalog forgets it.
async fn forget(registry: Registry, mut lost: mpsc::UnboundedReceiver<Name>) {
    while let Some(name) = lost.recv().await {
        if let Err(error) = registry.deregister(&name, None).await {
            tracing::debug!(instance = %name, %error, "was not in the catalog");
        }
    }
}
