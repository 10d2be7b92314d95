//! What follows from the Services of `up`: names, rules, ports that are nobody else's, health checks, the loopback, and a
//! way to cluster addresses. Each part compares what is with what should be, so that all of them may be called at any time.

use std::{collections::BTreeSet, path::Path, time::Duration};

use ipnet::IpNet;
use portolan_apply::{ServiceEvent, ServicePlane};
use portolan_dns::services::ServiceBoard;
use portolan_model::{ObjectName, PortRange, Protocol};
use portolan_ports::{clock::Boot, reserve};
use portolan_relay::{LocalNodePort, LocalNodePorts, service::Options};
use portolan_services::{LocalDetector, ServicesConfig};

use super::{
    allocate::Allocations,
    checked::Checked,
    desired::{Desired, Renewed},
    error::ServiceError,
    held::HeldPorts,
    local,
    settings::ServicesSettings,
    way::Way,
};
use crate::trace::state::State;

/// The table of `up`: another one than that of `portolan proxy`, which may be in the same network namespace.
const TABLE: &str = "portolan-services-local";

/// See the module.
pub(crate) struct Effects {
    settings: ServicesSettings,
    networks: Vec<IpNet>,
    board: ServiceBoard,
    plane: Option<ServicePlane>,
    local: Option<(LocalNodePorts, tokio::runtime::Handle)>,
    held: HeldPorts,
    checked: Option<Checked>,
    way: Way,
    reservation: Option<reserve::Reservation>,
    reserved: BTreeSet<u16>,
}

impl Effects {
    /// Nothing yet. `networks`: where cluster addresses come from.
    pub(crate) fn new(settings: ServicesSettings, networks: Vec<IpNet>, board: ServiceBoard) -> Self {
        let runtime = tokio::runtime::Handle::try_current().ok();
        let local = runtime.clone().filter(|_| settings.localhost);
        Self {
            held: HeldPorts::new(&settings),
            checked: runtime.filter(|_| settings.dataplane).map(Checked::new),
            local: local.map(|runtime| (LocalNodePorts::new(Options::default()), runtime)),
            settings,
            networks,
            board,
            plane: None,
            way: Way::default(),
            reservation: None,
            reserved: BTreeSet::new(),
        }
    }

    /// Takes away what a former life has left to us, when there is nothing to serve.
    pub(crate) fn forget_former(&mut self) {
        if !self.settings.dataplane {
            return;
        }
        if let Err(error) = ServicePlane::remove_table(TABLE) {
            tracing::debug!(%error, "no table of Services to remove");
        }
        self.way.forget(&self.networks);
    }

    /// Whether a process holds this port for us.
    pub(crate) fn holds(&self, port: u16) -> bool {
        self.held.has(port)
    }

    /// Everything may be otherwise.
    pub(crate) fn follow(&mut self, before: &Desired, next: &Desired, given: &Allocations) {
        self.board.set(next.names.clone());
        self.reserve(given);
        if self.settings.dataplane {
            self.hold(given);
            self.write(before, next);
            self.way.lead(&self.networks, !next.services.is_empty());
        }
        self.check(next);
        self.serve_loopback(next);
    }

    /// Some slices are otherwise, and nothing else.
    pub(crate) fn follow_instances(&mut self, now: &Desired, renewed: Renewed) {
        self.board.set(now.names.clone());
        let gone = renewed.gone.into_iter().map(ServiceEvent::RemoveSlice);
        self.change(gone.chain(renewed.set.into_iter().map(ServiceEvent::SetSlice)).collect());
        self.check(now);
        self.serve_loopback(now);
    }

    /// Also when nothing has changed: a port that somebody had may be free now, the default route may be gone.
    pub(crate) fn look(&mut self, now: &Desired, given: &Allocations) {
        if self.settings.dataplane {
            self.hold(given);
            self.way.lead(&self.networks, !now.services.is_empty());
        }
        self.check(now);
        self.serve_loopback(now);
    }

    /// What the rules are made from, as they are in the kernel.
    pub(crate) fn rules(&self) -> Result<State, ServiceError> {
        match &self.plane {
            _ if !self.settings.dataplane => Err(ServiceError::NoRules),
            Some(plane) => Ok(State::of_plane(plane)?),
            None => Ok(State::of(&self.config(), Vec::new(), Vec::new())),
        }
    }

    /// Ends. `leave`: what is served stays served, for the next one to take over.
    pub(crate) fn close(mut self, leave: bool) -> Vec<String> {
        let mut failures = Vec::new();
        if let Some((local, runtime)) = self.local.take() {
            runtime.block_on(local.drain(Duration::ZERO));
        }
        if let Some(checked) = self.checked.take() {
            checked.close();
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
        if !leave {
            failures.extend(self.way.close());
        }
        failures.extend(self.held.close(leave));
        if let Some(reservation) = self.reservation.take().filter(|_| !leave)
            && let Err(error) = reservation.restore()
        {
            failures.push(format!("giving the node ports back: {error}"));
        }
        failures
    }

    /// The differences of everything that the rules are made from.
    fn write(&mut self, before: &Desired, next: &Desired) {
        if self.plane.is_none() {
            if next.services.is_empty() {
                return;
            }
            let services = next.services.values().cloned().collect();
            match ServicePlane::start(self.config(), services, next.slices.values().cloned().collect()) {
                Ok(plane) => self.plane = Some(plane),
                Err(error) => tracing::error!("Services are not served: {error}"),
            }
            return;
        }
        let mut events = Vec::new();
        let gone = |name: &&ObjectName| !next.services.contains_key(*name);
        events.extend(before.services.keys().filter(gone).cloned().map(ServiceEvent::RemoveService));
        let gone = |name: &&ObjectName| !next.slices.contains_key(*name);
        events.extend(before.slices.keys().filter(gone).cloned().map(ServiceEvent::RemoveSlice));
        let slices = next.slices.values().filter(|slice| before.slices.get(&slice.name) != Some(*slice));
        events.extend(slices.cloned().map(ServiceEvent::SetSlice));
        let services = next.services.values().filter(|one| before.services.get(&one.name) != Some(*one));
        events.extend(services.cloned().map(ServiceEvent::SetService));
        self.change(events);
    }

    fn change(&self, events: Vec<ServiceEvent>) {
        let Some(plane) = self.plane.as_ref().filter(|_| !events.is_empty()) else { return };
        if let Err(error) = plane.change(events) {
            tracing::error!("not all Services are served as they should be: {error}; trying again");
        }
    }

    fn config(&self) -> ServicesConfig {
        ServicesConfig {
            table: TABLE.to_owned(),
            node: self.settings.node.clone(),
            detector: LocalDetector::InterfacePrefix(self.settings.interfaces.clone()),
            service_networks: self.networks.clone(),
            ..ServicesConfig::default()
        }
    }

    fn hold(&mut self, given: &Allocations) {
        // SCTP is left out: a socket of it would load a module that nobody may have asked for.
        let ports = given.held_ports().filter(|(protocol, _)| *protocol != Protocol::Sctp);
        self.held.set(ports.collect());
    }

    /// Node ports are nobody's source port: the kernel would then take an answer for a new connection to the Service.
    fn reserve(&mut self, given: &Allocations) {
        let ports = given.node_ports();
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

    fn check(&mut self, now: &Desired) {
        if let Some(checked) = &mut self.checked {
            checked.follow(now, self.plane.as_ref(), &self.settings.node.name);
        }
    }

    fn serve_loopback(&mut self, now: &Desired) {
        let Some((local, runtime)) = &self.local else { return };
        let _inside = runtime.enter();
        let ports: Vec<LocalNodePort> = local::ports(now, &self.settings.node);
        for problem in local.set(ports) {
            tracing::debug!("{problem}");
        }
    }
}
