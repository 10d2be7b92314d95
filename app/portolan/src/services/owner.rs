//! The owner of the Services of `up`: files, what was exposed, numbers, and what follows from them in kernel and DNS.
//!
//! Level-triggered: each turn begins with what is written and what the catalog says now, and ends with the difference to
//! what was before. It has a thread of its own, as files, fsync and netlink block.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use portolan_apply::{ServiceEvent, ServicePlane};
use portolan_dns::services::ServiceBoard;
use portolan_model::{EndpointSlice, ObjectName, PortRange, Protocol, ServiceNode};
use portolan_netlink::{process, sockdiag};
use portolan_ports::{clock::Boot, reserve};
use portolan_relay::{LocalNodePort, LocalNodePorts, service::Options};
use portolan_services::{LocalDetector, ServicesConfig};

use super::{
    allocate::{AllocateError, Family, Ranges, Wanted},
    desired::{Admitted, Desired, desired, wanted},
    endpoints::World,
    error::ServiceError,
    files::Files,
    local,
    manifest::{self, Written},
    ranges,
    shown::Shown,
    store::{Store, Stored},
};

/// The table of `up`: another one than that of `portolan proxy`, which may be in the same network namespace.
const TABLE: &str = "portolan-services-local";
/// What `source` says of a Service that no file has.
const EXPOSED: &str = "portolan expose";

/// What it is told.
#[derive(Clone, Debug)]
pub(crate) struct ServicesSettings {
    pub(crate) data: PathBuf,
    pub(crate) files: Vec<PathBuf>,
    /// As given; a family that is missing gets a range of its own.
    pub(crate) networks: Vec<IpNet>,
    pub(crate) node_ports: PortRange,
    /// Ranges that instances get ports from: not for node ports.
    pub(crate) pools: Vec<PortRange>,
    /// Networks that are somebody else's already.
    pub(crate) taken: Vec<IpNet>,
    pub(crate) node: ServiceNode,
    /// How names of interfaces of instances begin.
    pub(crate) interfaces: String,
    /// Whether the kernel may be asked.
    pub(crate) dataplane: bool,
    /// Node ports also on the loopback.
    pub(crate) localhost: bool,
}

/// See the module.
pub(crate) struct Owner {
    settings: ServicesSettings,
    ranges: Ranges,
    files: Files,
    store: Store,
    stored: Stored,
    exposed: BTreeMap<ObjectName, Written>,
    /// As they were last when they could be served.
    good: BTreeMap<ObjectName, Written>,
    problems: BTreeMap<ObjectName, String>,
    world: Option<World>,
    now: Desired,
    board: ServiceBoard,
    plane: Option<ServicePlane>,
    local: Option<(LocalNodePorts, tokio::runtime::Handle)>,
    reservation: Option<reserve::Reservation>,
    reserved: BTreeSet<u16>,
}

impl Owner {
    /// Reads everything and changes nothing. A file that cannot be read is an error now; later it would be told, and
    /// what it said before would hold.
    pub(crate) fn open(settings: ServicesSettings, board: ServiceBoard) -> Result<Self, ServiceError> {
        let store = Store::open(&settings.data)?;
        let mut stored = store.read();
        let addresses = ranges::choose(&settings.networks, &settings.taken, &mut stored.chosen);
        let mut files = Files::new(settings.files.clone());
        let looked = files.look();
        if let Some(error) = looked.errors.into_iter().next() {
            return Err(error.into());
        }
        for warning in looked.warnings {
            tracing::warn!("{warning}");
        }
        let mut exposed = BTreeMap::new();
        for (name, text) in &stored.exposed {
            match read_one(text) {
                Ok(written) => {
                    exposed.insert(written.name().clone(), written);
                }
                Err(error) => tracing::error!("the exposed Service {name} is not served: {error}"),
            }
        }
        let local = settings
            .localhost
            .then(tokio::runtime::Handle::try_current)
            .and_then(Result::ok)
            .map(|runtime| (LocalNodePorts::new(Options::default()), runtime));
        let ranges = Ranges { addresses, ports: settings.node_ports };
        Ok(Self {
            settings,
            ranges,
            files,
            store,
            stored,
            exposed,
            good: BTreeMap::new(),
            problems: BTreeMap::new(),
            world: None,
            now: Desired::default(),
            board,
            plane: None,
            local,
            reservation: None,
            reserved: BTreeSet::new(),
        })
    }

    /// The catalog is otherwise.
    pub(crate) fn world(&mut self, world: World) {
        let first = self.world.is_none();
        self.world = Some(world);
        if first && self.settings.dataplane && self.written().is_empty() {
            // Of a former life, which had some and left them to us.
            if let Err(error) = ServicePlane::remove_table(TABLE) {
                tracing::debug!(%error, "no table of Services to remove");
            }
        }
        self.turn();
    }

    /// Looks at the files.
    pub(crate) fn look(&mut self) {
        let looked = self.files.look();
        for warning in looked.warnings {
            tracing::warn!("{warning}");
        }
        for error in looked.errors {
            tracing::error!("{error}; what the file said before still holds");
        }
        if looked.changed {
            self.turn();
        } else {
            self.serve_loopback();
        }
    }

    /// One more Service; it is served when this returns.
    pub(crate) fn expose(&mut self, text: &str) -> Result<Shown, ServiceError> {
        let written = read_one(text)?;
        let name = written.name().clone();
        if self.written().contains_key(&name) {
            return Err(ServiceError::Exists(name));
        }
        let before = self.stored.clone();
        self.exposed.insert(name.clone(), written);
        self.stored.exposed.insert(name.to_string(), text.to_owned());
        self.turn();
        let problem = self.problems.get(&name).cloned();
        let shown =
            self.now.shown.iter().find(|shown| shown.namespace == name.namespace && shown.name == name.name);
        match (problem, shown.cloned()) {
            (None, Some(shown)) => Ok(shown),
            (problem, _) => {
                self.exposed.remove(&name);
                self.good.remove(&name);
                self.stored = before;
                self.turn();
                Err(ServiceError::Invalid(
                    name,
                    problem.unwrap_or_else(|| "the catalog is still loading".to_owned()),
                ))
            }
        }
    }

    /// Takes an exposed Service away.
    pub(crate) fn delete(&mut self, name: &ObjectName) -> Result<(), ServiceError> {
        if self.exposed.remove(name).is_none() {
            return Err(match self.written().get(name) {
                Some(written) => ServiceError::OfFile(name.clone(), written.place.clone()),
                None => ServiceError::NotFound(name.clone()),
            });
        }
        self.stored.exposed.remove(&name.to_string());
        self.turn();
        Ok(())
    }

    /// All Services, and the files that are not as they are written.
    pub(crate) fn shown(&self) -> (Vec<Shown>, Vec<String>) {
        (self.now.shown.clone(), self.files.errors().iter().map(ToString::to_string).collect())
    }

    /// Ends. `leave`: what is served stays served, for the next one to take over.
    pub(crate) fn close(mut self, leave: bool) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some((local, runtime)) = self.local.take() {
            runtime.block_on(local.drain(Duration::ZERO));
        }
        match self.plane.take() {
            Some(plane) if leave => plane.leave(),
            Some(plane) => {
                if let Err(error) = plane.stop() {
                    failures.push(format!("removing the table of Services: {error}"));
                }
            }
            None => {}
        }
        if let Some(reservation) = self.reservation.take().filter(|_| !leave)
            && let Err(error) = reservation.restore()
        {
            failures.push(format!("giving the node ports back: {error}"));
        }
        failures
    }

    /// Everything that is written: files first, in their order.
    fn written(&self) -> BTreeMap<ObjectName, Written> {
        let mut all: BTreeMap<ObjectName, Written> = BTreeMap::new();
        let of_files = self.files.manifests().flat_map(|read| &read.services);
        for written in of_files.chain(self.exposed.values()) {
            match all.get(written.name()) {
                Some(first) if first.place != written.place => tracing::debug!(
                    "Service {} of {} is ignored: {} has it",
                    written.name(),
                    written.place,
                    first.place
                ),
                _ => {
                    all.insert(written.name().clone(), written.clone());
                }
            }
        }
        all
    }

    /// See the module.
    fn turn(&mut self) {
        let Some(world) = self.world.clone() else { return };
        let written = self.written();
        let refused = self.allocate(&written);
        self.stored.keep(written.keys().cloned());
        let mut served = Vec::new();
        for (name, one) in &written {
            let problem = refused.get(name).map(ToString::to_string);
            if problem.is_none() {
                self.good.insert(name.clone(), one.clone());
            }
            // Who exposes one is told himself.
            if let Some(problem) = &problem
                && self.problems.get(name) != Some(problem)
                && one.place != EXPOSED
            {
                tracing::error!("{}: Service {name} is invalid: {problem}", one.place);
            }
            served.push((name.clone(), problem));
        }
        self.good.retain(|name, _| written.contains_key(name));
        self.problems =
            served.iter().filter_map(|(name, problem)| Some((name.clone(), problem.clone()?))).collect();
        let since: BTreeMap<ObjectName, _> =
            written.keys().map(|name| (name.clone(), self.stored.since(name))).collect();
        let admitted: Vec<Admitted<'_>> = served
            .into_iter()
            .filter_map(|(name, problem)| {
                let written = self.good.get(&name)?;
                let given = self.stored.allocations.get(&name)?;
                Some(Admitted { written, given, since: *since.get(&name)?, problem })
            })
            .collect();
        let of_files: Vec<EndpointSlice> =
            self.files.manifests().flat_map(|read| read.slices.clone()).collect();
        let next = desired(&admitted, of_files.iter(), &world);
        // Numbers are on disk before anybody is told.
        if let Err(error) = self.store.write(&self.stored) {
            tracing::error!("{error}; Services may get other addresses after a restart");
        }
        self.apply(next);
    }

    fn allocate(&mut self, written: &BTreeMap<ObjectName, Written>) -> BTreeMap<ObjectName, AllocateError> {
        let primary = self.ranges.addresses.first().map_or(Family::V4, |range| Family::of(range.addr()));
        let wanted: Vec<Wanted> = written.values().map(|one| wanted(one, primary)).collect();
        let pools = self.settings.pools.clone();
        let others = move |port: u16| {
            if let Some(pool) = pools.iter().find(|pool| pool.contains(port)) {
                return Some(format!("by the pool {pool} that instances get ports from"));
            }
            bound(port)
        };
        self.stored.allocations.settle(&self.ranges, &wanted, &others, &mut rand::rng())
    }

    fn apply(&mut self, next: Desired) {
        self.board.set(next.names.clone());
        self.reserve();
        if self.settings.dataplane {
            self.apply_rules(&next);
        }
        self.now = next;
        self.serve_loopback();
    }

    fn apply_rules(&mut self, next: &Desired) {
        let Some(plane) = &self.plane else {
            if next.services.is_empty() {
                return;
            }
            let services = next.services.values().cloned().collect();
            match ServicePlane::start(self.config(), services, next.slices.values().cloned().collect()) {
                Ok(plane) => self.plane = Some(plane),
                Err(error) => tracing::error!("Services are not served: {error}"),
            }
            return;
        };
        let mut events = Vec::new();
        let gone = |name: &&ObjectName| !next.services.contains_key(*name);
        events.extend(self.now.services.keys().filter(gone).cloned().map(ServiceEvent::RemoveService));
        let gone = |name: &&ObjectName| !next.slices.contains_key(*name);
        events.extend(self.now.slices.keys().filter(gone).cloned().map(ServiceEvent::RemoveSlice));
        let slices = next.slices.values().filter(|slice| self.now.slices.get(&slice.name) != Some(*slice));
        events.extend(slices.cloned().map(ServiceEvent::SetSlice));
        let services = next.services.values().filter(|one| self.now.services.get(&one.name) != Some(*one));
        events.extend(services.cloned().map(ServiceEvent::SetService));
        if !events.is_empty()
            && let Err(error) = plane.change(events)
        {
            tracing::error!("not all Services are served as they should be: {error}; trying again");
        }
    }

    fn config(&self) -> ServicesConfig {
        ServicesConfig {
            table: TABLE.to_owned(),
            node: self.settings.node.clone(),
            detector: LocalDetector::InterfacePrefix(self.settings.interfaces.clone()),
            service_networks: self.ranges.addresses.clone(),
            ..ServicesConfig::default()
        }
    }

    /// Node ports are nobody's source port: the kernel would then take an answer for a new connection to the Service.
    fn reserve(&mut self) {
        let ports = self.stored.allocations.node_ports();
        if !self.settings.dataplane || ports == self.reserved {
            return;
        }
        let ranges: Vec<PortRange> = ports.iter().filter_map(|port| PortRange::single(*port).ok()).collect();
        let result = match &mut self.reservation {
            Some(reservation) => reservation.change(&ranges).map(|_| ()),
            None => {
                let record = self.settings.data.join("node-ports.json");
                let made =
                    reserve::Reservation::make(Path::new(reserve::PATH), &record, &Boot::current(), &ranges)
                        .1;
                made.map(|made| self.reservation = Some(made))
            }
        };
        match result {
            Ok(()) => self.reserved = ports,
            Err(error) => tracing::warn!("node ports are not reserved: {error}"),
        }
    }

    /// Also when nothing has changed: a port that somebody had may be free now.
    fn serve_loopback(&mut self) {
        let Some((local, runtime)) = &self.local else { return };
        let _inside = runtime.enter();
        let ports: Vec<LocalNodePort> = local::ports(&self.now, &self.settings.node);
        for problem in local.set(ports) {
            tracing::debug!("{problem}");
        }
    }
}

/// Who has a port for himself, on whatever address.
fn bound(port: u16) -> Option<String> {
    let sockets = [Protocol::Tcp, Protocol::Udp].map(|protocol| (protocol, sockdiag::bound(protocol, port)));
    sockets.into_iter().find_map(|(protocol, sockets)| {
        let socket = sockets.ok()?.into_iter().next()?;
        let by = process::owner_of(socket.inode).map_or("somebody".to_owned(), |process| process.to_string());
        Some(format!("{port}/{protocol} is bound by {by}: choose another, or stop it"))
    })
}

/// A text with exactly one Service.
fn read_one(text: &str) -> Result<Written, ServiceError> {
    let mut read = manifest::read(EXPOSED, text)?;
    for warning in read.warnings {
        tracing::warn!("{warning}");
    }
    match (read.services.pop(), read.services.len()) {
        (Some(one), 0) => Ok(Written { place: EXPOSED.to_owned(), ..one }),
        _ => Err(ServiceError::NotOne),
    }
}
