//! From what the API server tells to the kernel: one task that takes what has gathered, has it written, and only then
//! takes more. What gathers meanwhile is written together, so that nothing piles up however much happens.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use portolan_apply::{ApplyError, ServiceEvent as Change, ServicePlane};
use portolan_kubernetes::{About, EventKind, ProxyNode, Publisher, ServiceEvent, ServiceWatch};
use portolan_model::{ObjectName, Service, ServiceNode, TrafficPolicy};
use portolan_services::{Gathered, LocalDetector, NodePortAddresses, ServicesConfig};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Proxy,
    addresses::{self, Local},
    checks::{Check, Checks},
    config::{Detector, ProxyConfig, one_of_each},
    localhost::Localhost,
};

/// So many events become one write at most.
const TOGETHER: usize = 1024;
/// How often somebody is told that nothing is programmed yet.
const REMIND: Duration = Duration::from_secs(30);
/// From when on watches that fail are told of.
const AWAY: Duration = Duration::from_secs(2);
/// How often what failed is looked at again.
const LOOK: Duration = Duration::from_secs(1);

/// What is known besides Services and slices.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    node: Option<ProxyNode>,
    service_networks: Vec<ipnet::IpNet>,
}

/// The task's state.
pub(crate) struct Driver {
    proxy: Arc<Proxy>,
    watch: ServiceWatch,
    publisher: Publisher,
    local: watch::Receiver<Local>,
    surroundings: Surroundings,
    /// What the kernel follows now.
    followed: ServicesConfig,
    asked: BTreeMap<ObjectName, Check>,
    checks: Checks,
    localhost: Option<Localhost>,
    started: SystemTime,
    last_flush: Duration,
    /// It was told that the API server is away.
    is_away: bool,
}

impl Driver {
    /// Waits until everything is known, brings the table to it, and gives the driver of what comes then. `None` when
    /// it is to stop before. Until then rules of an earlier proxy stay as they are.
    pub(crate) async fn start(
        proxy: Arc<Proxy>,
        mut watch: ServiceWatch,
        publisher: Publisher,
        mut local: watch::Receiver<Local>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let begun = SystemTime::now();
        let (mut known, mut surroundings) = (Known::default(), Surroundings::default());
        let synced = known.gather(&proxy, &mut watch, &publisher, &mut surroundings);
        tokio::select! {
            () = synced => {}
            () = stop.cancelled() => return Ok(None),
        }
        let addresses = Arc::clone(&local.borrow_and_update());
        let followed = services_config(&proxy.config, &surroundings, &addresses);
        let config = followed.clone();
        let gathered = known.gathered;
        let plane = tokio::task::spawn_blocking(move || ServicePlane::start_with(config, gathered)).await?;
        let plane = plane.context("writing the rules of Services")?;
        proxy.metrics.synced(plane.stats().start, true, SystemTime::now());
        *proxy.plane.lock().unwrap_or_else(PoisonError::into_inner) = Some(plane);
        let checks = Checks::new(&proxy.config.node, proxy.health.clone(), publisher.clone());
        let localhost = proxy.config.localhost_node_ports.then(Localhost::new);
        let mut driver = Self {
            proxy,
            watch,
            publisher,
            local,
            surroundings,
            followed,
            asked: known.checks,
            checks,
            localhost,
            started: begun,
            last_flush: Duration::ZERO,
            is_away: false,
        };
        driver.after_a_write(&Written::everything()).await;
        driver.proxy.health.updated();
        Ok(Some(driver))
    }

    /// Follows until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let (mut events, mut look) = (Vec::new(), tokio::time::interval(LOOK));
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut moved = false;
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.watch.next_many(&mut events, TOGETHER) => {}
                changed = self.local.changed() => moved = changed.is_ok(),
                _ = look.tick() => {
                    self.look_again().await;
                    continue;
                }
            }
            let written = self.write(std::mem::take(&mut events)).await;
            if moved || written.surroundings {
                self.reconfigure().await;
            }
            self.after_a_write(&written).await;
        }
    }

    async fn write(&mut self, events: Vec<ServiceEvent>) -> Written {
        let (mut written, mut changes) = (Written::default(), Vec::with_capacity(events.len()));
        for event in events {
            self.take(event, &mut changes, &mut written);
        }
        if changes.is_empty() {
            return written;
        }
        let (metrics, now) = (&self.proxy.metrics, SystemTime::now());
        metrics.service_changes.inc_by(written.service_changes);
        metrics.endpoint_changes.inc_by(written.slice_changes);
        metrics.service_changes_pending.set(i64::try_from(written.service_changes).unwrap_or(i64::MAX));
        metrics.endpoint_changes_pending.set(i64::try_from(written.slice_changes).unwrap_or(i64::MAX));
        metrics.queued(now);
        self.proxy.health.queued();
        let begun = Instant::now();
        let done = self.blocking(move |plane| plane.change(changes)).await;
        metrics_of_a_write(&self.proxy, done.as_ref().err(), begun.elapsed());
        let (metrics, now) = (&self.proxy.metrics, SystemTime::now());
        metrics.service_changes_pending.set(0);
        metrics.endpoint_changes_pending.set(0);
        match done {
            Ok(()) => {
                for (v4, triggered) in &written.triggered {
                    // What was triggered before we started was made live by somebody else, or waited for us to start.
                    if *triggered > self.started {
                        metrics.programmed(*v4, now.duration_since(*triggered).unwrap_or_default());
                    }
                }
                self.proxy.health.updated();
            }
            Err(error) => {
                tracing::error!(%error, "changes of Services are not in the kernel yet; trying again")
            }
        }
        written
    }

    fn take(&mut self, event: ServiceEvent, changes: &mut Vec<Change>, written: &mut Written) {
        match event {
            ServiceEvent::Synced => {}
            ServiceEvent::SetService { service, uid, problems } => {
                written.service_changes += 1;
                tell(&self.publisher, &service.name, &uid, &problems);
                let service = adapted(*service, &self.proxy.config);
                self.proxy.locals.note(&service);
                note_check(&mut self.asked, &service, &uid);
                changes.push(Change::SetService(service));
            }
            ServiceEvent::RemoveService(name) => {
                written.service_changes += 1;
                self.proxy.locals.forget(&name);
                self.asked.remove(&name);
                changes.push(Change::RemoveService(name));
            }
            ServiceEvent::SetSlice(slice) => {
                written.slice_changes += 1;
                if let (Some(triggered), Some(first)) = (slice.triggered, slice.endpoints.first()) {
                    written.triggered.push((first.address.is_ipv4(), triggered));
                }
                changes.push(Change::SetSlice(slice));
            }
            ServiceEvent::RemoveSlice(name) => {
                written.slice_changes += 1;
                changes.push(Change::RemoveSlice(name));
            }
            ServiceEvent::Node(node) => {
                if node.is_none() {
                    tracing::warn!(node = %self.proxy.config.node, "there is no such Node any more");
                }
                self.surroundings.node = node;
                written.surroundings = true;
            }
            ServiceEvent::ServiceNetworks(networks) => {
                self.surroundings.service_networks = networks;
                written.surroundings = true;
            }
        }
    }

    /// The node, its addresses or the networks of Services are other ones: at once, not at the next full write.
    async fn reconfigure(&mut self) {
        let local = Arc::clone(&self.local.borrow_and_update());
        let config = services_config(&self.proxy.config, &self.surroundings, &local);
        if config == self.followed {
            return;
        }
        self.followed = config.clone();
        let begun = Instant::now();
        let done = self.blocking(move |plane| plane.reconfigure(config)).await;
        metrics_of_a_write(&self.proxy, done.as_ref().err(), begun.elapsed());
        match done {
            Ok(()) => tracing::info!(
                zone = ?self.followed.node.zone, node_ports = ?self.followed.node_ports,
                networks = ?self.followed.service_networks, "the rules follow the node"
            ),
            Err(error) => {
                // Look again later: the last word of the node is not followed yet.
                self.followed.table.clear();
                tracing::error!(%error, "the rules cannot follow the node; trying again");
            }
        }
    }

    /// What others are told from.
    async fn after_a_write(&mut self, written: &Written) {
        let node = self.surroundings.node.as_ref();
        self.proxy.health.set_eligible(node.is_some_and(|node| node.eligible));
        if !self.asked.is_empty() && written.is_of_services() {
            let names: Vec<ObjectName> = self.asked.keys().cloned().collect();
            let counts = self.blocking(move |plane| {
                plane.inspect(move |services| {
                    names.iter().map(|name| services.local_ready(name)).collect::<Vec<_>>()
                })
            });
            if let Ok(counts) = counts.await {
                for (check, count) in self.asked.values_mut().zip(counts) {
                    check.local = count;
                }
            }
        }
        self.checks.set(&self.asked, &self.followed.node_ports).await;
        if written.is_of_services() || written.surroundings {
            self.follow_on_the_loopback().await;
        }
    }

    async fn follow_on_the_loopback(&mut self) {
        if let (Some(localhost), Some(plane)) = (&mut self.localhost, self.proxy.plane()) {
            localhost.follow(plane).await;
        }
    }

    async fn look_again(&mut self) {
        self.tell_whether_the_api_server_is_away();
        if self.followed.table.is_empty() {
            self.reconfigure().await;
        }
        if self.checks.is_missing_one() {
            self.checks.set(&self.asked, &self.followed.node_ports).await;
        }
        if self.localhost.as_ref().is_some_and(Localhost::is_missing_one) {
            self.follow_on_the_loopback().await;
        }
        let Some(plane) = self.proxy.plane() else { return };
        let stats = plane.stats();
        if stats.last_flush != self.last_flush {
            self.last_flush = stats.last_flush;
            self.proxy.metrics.flushed(stats.last_flush);
        }
        if stats.pending == 0 && stats.last_error.is_none() {
            self.proxy.health.updated();
        } else {
            self.proxy.health.queued();
        }
    }

    /// Once when it goes, and once when it comes back. A watch that is begun anew a moment later is nothing to tell.
    fn tell_whether_the_api_server_is_away(&mut self) {
        let health = self.watch.health();
        match health.away {
            Some(since) if !self.is_away && since >= AWAY => {
                self.is_away = true;
                let because = health.error.map(|error| error.to_string()).unwrap_or_default();
                tracing::warn!(%because, "nothing is heard of Services: they are served as they were known last");
            }
            None if self.is_away => {
                self.is_away = false;
                tracing::info!("Services are heard of again");
            }
            _ => {}
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ServicePlane) -> Result<T, ApplyError> + Send + 'static,
    ) -> Result<T, ApplyError> {
        let Some(plane) = self.proxy.plane() else { return Err(ApplyError::Stopped) };
        match tokio::task::spawn_blocking(move || work(&plane)).await {
            Ok(done) => done,
            Err(_) => Err(ApplyError::Stopped),
        }
    }
}

fn metrics_of_a_write(proxy: &Proxy, error: Option<&ApplyError>, took: Duration) {
    match error {
        None => proxy.metrics.synced(took, false, SystemTime::now()),
        Some(_) => proxy.metrics.sync_failed(),
    }
}

/// What a batch of events was about.
#[derive(Debug, Default)]
struct Written {
    service_changes: u64,
    slice_changes: u64,
    surroundings: bool,
    triggered: Vec<(bool, SystemTime)>,
}

impl Written {
    fn everything() -> Self {
        Self { service_changes: 1, slice_changes: 1, surroundings: true, triggered: Vec::new() }
    }

    fn is_of_services(&self) -> bool {
        self.service_changes + self.slice_changes > 0
    }
}

/// Everything, until it is whole.
#[derive(Debug, Default)]
struct Known {
    gathered: Gathered,
    checks: BTreeMap<ObjectName, Check>,
}

impl Known {
    async fn gather(
        &mut self,
        proxy: &Proxy,
        watch: &mut ServiceWatch,
        publisher: &Publisher,
        surroundings: &mut Surroundings,
    ) {
        let mut remind = tokio::time::interval(REMIND);
        // The first one is at once.
        remind.tick().await;
        loop {
            let event = tokio::select! {
                event = watch.next() => event,
                _ = remind.tick() => {
                    let because = watch.health().error.map(|error| error.to_string()).unwrap_or_default();
                    tracing::warn!(%because, "Services and their endpoints are not known yet: nothing is changed");
                    continue;
                }
            };
            match event {
                ServiceEvent::Synced => return,
                ServiceEvent::SetService { service, uid, problems } => {
                    tell(publisher, &service.name, &uid, &problems);
                    let service = adapted(*service, &proxy.config);
                    proxy.locals.note(&service);
                    note_check(&mut self.checks, &service, &uid);
                    self.gathered.set_service(service);
                }
                ServiceEvent::RemoveService(name) => {
                    proxy.locals.forget(&name);
                    self.checks.remove(&name);
                    self.gathered.remove_service(&name);
                }
                ServiceEvent::SetSlice(slice) => self.gathered.set_slice(slice),
                ServiceEvent::RemoveSlice(name) => self.gathered.remove_slice(&name),
                ServiceEvent::Node(node) => {
                    if node.is_none() {
                        tracing::warn!(
                            node = %proxy.config.node,
                            "there is no such Node: its zone and addresses are not known; is --hostname-override right?"
                        );
                    }
                    surroundings.node = node;
                }
                ServiceEvent::ServiceNetworks(networks) => surroundings.service_networks = networks,
            }
        }
    }
}

/// Without what is not to be served.
fn adapted(mut service: Service, config: &ProxyConfig) -> Service {
    if !config.external_ips {
        service.external_addresses.clear();
    }
    service
}

fn note_check(checks: &mut BTreeMap<ObjectName, Check>, service: &Service, uid: &str) {
    match service.health_check_node_port.filter(|_| service.external_policy == TrafficPolicy::Local) {
        Some(port) => {
            let local = checks.get(&service.name).map_or(0, |check| check.local);
            checks.insert(service.name.clone(), Check { port, uid: uid.to_owned(), local });
        }
        None => {
            checks.remove(&service.name);
        }
    }
}

fn tell(publisher: &Publisher, name: &ObjectName, uid: &str, problems: &[String]) {
    for problem in problems {
        tracing::warn!(service = %name, "{problem}");
        let about = About::Service(name.namespace.clone(), name.name.clone(), uid.to_owned());
        publisher.event(&about, EventKind::Warning, "ServiceOptionIgnored", "ProgramService", problem);
    }
}

/// What the rules are made with.
fn services_config(
    config: &ProxyConfig,
    surroundings: &Surroundings,
    local: &BTreeSet<IpAddr>,
) -> ServicesConfig {
    let known = surroundings.node.as_ref();
    let mut addresses = known.map(|known| known.node.addresses.clone()).unwrap_or_default();
    if let Some(own) = config.bind_address {
        addresses.retain(|address| address.is_ipv4() != own.is_ipv4());
        addresses.insert(0, own);
    }
    let networks = |networks: &[ipnet::IpNet]| match one_of_each(networks) {
        networks if networks.is_empty() => LocalDetector::None,
        networks => LocalDetector::Networks(networks),
    };
    ServicesConfig {
        table: config.table.clone(),
        detector: match &config.detector {
            Detector::ClusterNetworks(cluster) => networks(cluster),
            Detector::NodeNetworks => {
                networks(known.map(|known| known.pod_networks.as_slice()).unwrap_or_default())
            }
            Detector::Bridge(name) => LocalDetector::Interface(name.clone()),
            Detector::Prefix(prefix) => LocalDetector::InterfacePrefix(prefix.clone()),
        },
        masquerade_all: config.masquerade_all,
        masquerade_mark: config.masquerade_mark,
        node_ports: addresses::resolve(&config.node_ports, &addresses, local),
        // Beside another proxy most addresses of these networks are served by that one.
        service_networks: match config.proxy_name {
            None => surroundings.service_networks.clone(),
            Some(_) => Vec::new(),
        },
        node: ServiceNode {
            name: config.node.clone(),
            zone: known.and_then(|known| known.node.zone.clone()),
            addresses,
        },
        counting: config.counting,
        affinity_size: config.affinity_size,
    }
}

/// Where node ports are served now, for those who ask.
pub(crate) fn describe_node_ports(addresses: &NodePortAddresses) -> Option<Vec<IpAddr>> {
    match addresses {
        NodePortAddresses::All => None,
        NodePortAddresses::Only(addresses) => Some(addresses.iter().copied().collect()),
    }
}
