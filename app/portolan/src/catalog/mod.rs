//! The catalog with its API, its page and DNS, on listeners: what `up` and `registry` have in common.
//!
//! [`listeners`] binds before anything changes. What is served on which listener is the verb's affair: it gives each a
//! router.

pub(crate) mod listeners;

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use axum::Router;
use portolan_dns::{Dns, DnsConfig, Listener, Zone, services::ServiceBoard};
use portolan_netlink::route;
use portolan_registry::{
    Registry, RegistryConfig,
    api::{self, Served},
};
use portolan_store::RedbStore;
use portolan_telemetry::metrics::Metrics;
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long requests under way may take to end.
const DRAIN: Duration = Duration::from_secs(5);

/// How long resolvers may keep an answer, in seconds.
const DNS_TTL: u32 = 5;

/// A catalog, running.
pub(crate) struct Catalog {
    pub(crate) registry: Registry,
    /// The names of Services, beside those of the catalog.
    pub(crate) services: ServiceBoard,
    dns: Vec<Dns>,
    /// Cancelled when no new request is to be taken.
    closing: CancellationToken,
    servers: JoinSet<()>,
}

impl Catalog {
    /// Opens the one that is stored in this folder, or begins it.
    pub(crate) async fn open(folder: &Path, config: RegistryConfig) -> anyhow::Result<Self> {
        let store = RedbStore::open(folder)?;
        let registry = Registry::start(config, Box::new(store)).await?;
        let services = ServiceBoard::default();
        Ok(Self {
            registry,
            services,
            dns: Vec::new(),
            closing: CancellationToken::new(),
            servers: JoinSet::new(),
        })
    }

    /// Answers for the catalog's names.
    pub(crate) fn resolve(
        &mut self,
        zone: &str,
        listener: Listener,
        metrics: &Arc<Metrics>,
    ) -> anyhow::Result<()> {
        let config = DnsConfig {
            zone: Zone::new(zone, DNS_TTL)?,
            listeners: vec![listener],
            upstreams: None,
            resolv_conf: "/etc/resolv.conf".into(),
            metrics: Arc::clone(metrics),
        };
        self.dns.push(Dns::start(config, Arc::new(self.services.beside(self.registry.clone())))?);
        Ok(())
    }

    /// Answers HTTP there until the end.
    pub(crate) fn serve(&mut self, listener: impl Served + Send, router: Router) {
        self.servers.spawn(api::serve(listener, router, self.closing.clone()));
    }

    /// [`Self::serve`] on a socket that was bound before.
    pub(crate) fn serve_tcp(
        &mut self,
        listener: std::net::TcpListener,
        router: Router,
    ) -> anyhow::Result<()> {
        self.serve(TcpListener::from_std(listener)?, router);
        Ok(())
    }

    /// No new requests, those under way end, the catalog is written.
    pub(crate) async fn stop(mut self) {
        self.closing.cancel();
        // Streams of the page and of watchers end with the registry's `closing`.
        let (registry, servers) = (self.registry.clone(), &mut self.servers);
        let drained = async {
            tokio::join!(registry.shutdown(), async { while servers.join_next().await.is_some() {} });
        };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            tracing::warn!("requests still under way after {}: cut off", humantime::format_duration(DRAIN));
            self.servers.abort_all();
        }
        for dns in self.dns {
            dns.stop().await;
        }
    }
}

/// Whether an address is this machine's. Asked of the kernel each time: addresses come and go.
pub(crate) fn has_address(address: IpAddr) -> bool {
    let addresses = route::Rtnl::open().and_then(|rtnl| rtnl.addresses());
    addresses.is_ok_and(|all| all.iter().any(|own| own.net.addr() == address))
}
