//! Where a relay learns of Services: files, or an API server.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Context as _;
use portolan_cli::RelayArgs;
use portolan_kubernetes::{Connection, ConnectionConfig, ServiceEvent, ServiceWatch, ServiceWatchConfig};
use portolan_model::{EndpointSlice, ObjectName, Service};

use crate::{output::problem::Hint as _, services::files::Files};

/// How often files are looked at, and ports that could not be had are tried again.
const LOOK: Duration = Duration::from_millis(500);
/// So many events become one change at most.
const TOGETHER: usize = 1024;
/// How often somebody is told that nothing is known yet.
const REMIND: Duration = Duration::from_secs(30);

/// Services and endpoints at one moment.
#[derive(Debug, Default)]
pub(crate) struct Known<'a> {
    pub(crate) services: BTreeMap<&'a ObjectName, &'a Service>,
    /// Services of type ExternalName, as far as they are known.
    pub(crate) aliases: BTreeSet<&'a ObjectName>,
    pub(crate) slices: Vec<&'a EndpointSlice>,
    /// Of the own Node.
    pub(crate) zone: Option<&'a str>,
    /// What to say of a Service that is not there.
    pub(crate) missing: &'static str,
}

/// See the module.
pub(crate) enum Source {
    Files(Files),
    Cluster(Box<Cluster>),
}

impl Source {
    /// As the flags say. A file that cannot be read is an error now; later it would be told.
    pub(crate) async fn open(args: &RelayArgs, node: &str) -> anyhow::Result<Self> {
        if args.services.is_empty() {
            return Ok(Self::Cluster(Box::new(Cluster::open(args, node).await?)));
        }
        let mut files = Files::new(args.services.clone());
        let mut looked = files.look();
        for warning in &looked.warnings {
            tracing::warn!("{warning}");
        }
        match looked.errors.pop() {
            Some(error) => Err(error.into()),
            None => Ok(Self::Files(files)),
        }
    }

    /// Waits until there may be something to do: whether Services or endpoints are other ones.
    pub(crate) async fn next(&mut self) -> anyhow::Result<bool> {
        match self {
            Self::Files(files) => {
                tokio::time::sleep(LOOK).await;
                let mut taken = std::mem::replace(files, Files::new(Vec::new()));
                let (back, looked) = tokio::task::spawn_blocking(move || {
                    let looked = taken.look();
                    (taken, looked)
                })
                .await?;
                *files = back;
                for warning in &looked.warnings {
                    tracing::warn!("{warning}");
                }
                for error in &looked.errors {
                    tracing::error!("{error}; what the file said before still holds");
                }
                Ok(looked.changed)
            }
            Self::Cluster(cluster) => Ok(cluster.next().await),
        }
    }

    /// Whether everything was read once.
    pub(crate) fn is_synced(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Cluster(cluster) => cluster.synced,
        }
    }

    pub(crate) fn known(&self) -> Known<'_> {
        match self {
            Self::Files(files) => of_files(files),
            Self::Cluster(cluster) => cluster.known(),
        }
    }
}

fn of_files(files: &Files) -> Known<'_> {
    let mut known = Known { missing: "no file has a Service of that name", ..Known::default() };
    for written in files.manifests().flat_map(|read| &read.services) {
        if written.is_alias() {
            known.aliases.insert(written.name());
        } else {
            known.services.entry(written.name()).or_insert(&written.service.service);
        }
    }
    known.slices = files.manifests().flat_map(|read| &read.slices).collect();
    known
}

/// The Services of a cluster, followed. While the API server is away what was known holds.
pub(crate) struct Cluster {
    watch: ServiceWatch,
    services: BTreeMap<ObjectName, Service>,
    slices: BTreeMap<ObjectName, EndpointSlice>,
    zone: Option<String>,
    synced: bool,
    reminded: tokio::time::Instant,
}

impl Cluster {
    async fn open(args: &RelayArgs, node: &str) -> anyhow::Result<Self> {
        let wanted = ConnectionConfig {
            kubeconfig: args.kubeconfig.clone(),
            context: None,
            component: "relay".to_owned(),
        };
        let connection = Connection::open(&wanted).await.context("reaching the API server").hint(
            "-f FILE reads Services from a file, --kubeconfig FILE says where the API server is; in a Pod neither is needed",
        )?;
        let config =
            ServiceWatchConfig { node: node.to_owned(), proxy_name: args.service_proxy_name.clone() };
        Ok(Self {
            watch: ServiceWatch::start(&connection, &config),
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            zone: None,
            synced: false,
            reminded: tokio::time::Instant::now(),
        })
    }

    /// Nothing changes before everything is known: half of the endpoints would get all of the clients.
    async fn next(&mut self) -> bool {
        let mut events = Vec::new();
        tokio::select! {
            () = self.watch.next_many(&mut events, TOGETHER) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
        let changed = !events.is_empty();
        for event in events {
            self.take(event);
        }
        if !self.synced && self.reminded.elapsed() > REMIND {
            self.reminded = tokio::time::Instant::now();
            let because = self.watch.health().error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(%because, "Services and their endpoints are not known yet: nothing is served");
        }
        changed && self.synced
    }

    fn take(&mut self, event: ServiceEvent) {
        match event {
            ServiceEvent::Synced => self.synced = true,
            ServiceEvent::SetService { service, problems, .. } => {
                for problem in problems {
                    tracing::warn!(service = %service.name, "{problem}");
                }
                self.services.insert(service.name.clone(), *service);
            }
            ServiceEvent::RemoveService(name) => drop(self.services.remove(&name)),
            ServiceEvent::SetSlice(slice) => drop(self.slices.insert(slice.name.clone(), slice)),
            ServiceEvent::RemoveSlice(name) => drop(self.slices.remove(&name)),
            ServiceEvent::Node(node) => self.zone = node.and_then(|node| node.node.zone),
            // Cluster addresses are not a relay's affair.
            ServiceEvent::ServiceNetworks(_) => {}
        }
    }

    fn known(&self) -> Known<'_> {
        Known {
            services: self.services.iter().collect(),
            aliases: BTreeSet::new(),
            slices: self.slices.values().collect(),
            zone: self.zone.as_deref(),
            missing: "the cluster has no Service of that name with a cluster address that is ours to serve",
        }
    }
}
