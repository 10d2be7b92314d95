//! The ports of a node, all together: choose, hold, write down, and the same backwards.
//!
//! The order of a lease is choose, hold by bind, journal; the caller installs rules after that and takes them away
//! before [`Ports::release`]. So no rule is ever there for a port that somebody else may bind, and whatever a crash
//! interrupts, [`open`](Ports::open) and [`maintain`](Ports::maintain) find by comparing what is with what should be.
//!
//! Everything blocks, for a fraction of a millisecond (one bind and one fdatasync), and takes `&mut self`: one thread
//! owns it and others send it their requests.

use std::{collections::BTreeSet, fs::File, path::PathBuf, time::Duration};

use portolan_model::{Incarnation, InstanceId, PortName, PortRequest, Protocol, PublishedPort};
use portolan_netlink::step;

use crate::{
    allocate::Allocator,
    clock::{Boot, since_boot},
    hold::Hold,
    holder::{HoldError, HolderClient, HolderError, HolderMode, wire::Failure},
    journal::Journal,
    lease::{Lease, LeaseRequest, Network},
    leases::Leases,
    owner,
    pool::Pools,
    replay::{Record, millis, snapshot},
    reserve::Reservation,
};

mod activate;
mod error;
mod look;
mod maintain;
mod open;
mod policy;
mod sockets;
mod turn;

pub use activate::Activated;
pub use error::{Occupant, PortsError};
pub use maintain::{Closed, Maintained};
pub use open::{Dropped, Recovered};
pub use policy::PoolsChanged;
pub use turn::Turn;

/// How often another port is chosen when the kernel refuses one. Each time all that was found taken is avoided, so
/// the second choice fails only if somebody took it in between or the pool is full of foreign sockets.
const ATTEMPTS: usize = 32;
/// How long a port that a foreign process has is not tried again: as long as TIME_WAIT, the usual reason.
const FOREIGN: Duration = Duration::from_secs(60);

/// What [`Ports`] needs to know.
#[derive(Clone, Debug)]
pub struct PortsConfig {
    /// A folder for the journal and the holder's socket; made with mode 0700 when it is not there. One `Ports` at a
    /// time has it. Its path has 90 bytes at most (a unix socket's has 107, unix(7)).
    pub folder: PathBuf,
    /// The pools.
    pub pools: Pools,
    /// Where the holder comes from.
    pub holder: HolderMode,
    /// Where it is reached; `None` is `holder.sock` in the folder.
    pub holder_socket: Option<PathBuf>,
    /// [`crate::reserve::PATH`]; `None` leaves the setting alone.
    pub reserved_ports: Option<PathBuf>,
    /// How long another process that has the folder is waited for.
    pub patience: Duration,
    /// Whether a lease counts only when it is on the disk. Otherwise a power cut, which ends every lease anyway, may
    /// lose who had which port in the last seconds before it; [`Ports::maintain`] writes them to the disk.
    pub durable: bool,
}

/// The ports of a node.
#[derive(Debug)]
pub struct Ports {
    boot: Boot,
    allocator: Allocator,
    holder: HolderClient,
    journal: Journal,
    reservation: Option<Reservation>,
    leases: Leases,
    /// Leases whose ports should be held and are not, because something else has one of them.
    unheld: BTreeSet<InstanceId>,
    /// Something happened that the journal could not be told: it is rewritten before it is used again.
    behind: bool,
    /// What the journal is called, for what is written about it.
    id: u64,
    /// What this process leaves must not be trusted by the next one that takes its turn.
    unsettled: bool,
    turn: Option<turn::Marker>,
    _lock: File,
}

impl Ports {
    /// Gives an instance ports, held and written down. Nothing is changed on an error.
    ///
    /// Asked again with the same incarnation and the same requests, it answers the same lease. A new incarnation takes
    /// the ports over if it asks for the same, and gets what it asks for otherwise, the same numbers where they fit.
    ///
    /// A new incarnation has the same owner, or an owner that comes after one which is gone. A process is exclusive: as
    /// long as it lives, nobody else has its lease. What a runtime owns ([`Owner::is_runtimes`](crate::Owner)) is
    /// superseded by what the same runtime makes next, as a Pod's new sandbox comes while the old one is still there.
    ///
    /// When the new incarnation asks for something else and that is refused, the former one's lease is ended all the
    /// same: its sandbox is on its way out.
    pub fn lease(&mut self, request: LeaseRequest) -> Result<Lease, PortsError> {
        self.admits(&request)?;
        if let Some(known) = self.leases.get(&request.instance) {
            let same_owner = known.request.owner == request.owner;
            let superseded = known.request.owner.is_runtimes() && request.owner.is_runtimes();
            let same = known.request.requests == request.requests && known.request.network == request.network;
            if same && (same_owner || superseded) {
                return self.take_over(request);
            }
            let incarnation = known.request.incarnation.clone();
            self.release(&request.instance, &incarnation);
        }
        self.catch_up()?;
        let ports = self.choose_and_hold(&request)?;
        step::reached("ports.held");
        let lease = Lease { request, ports, held: true };
        let record = Record::Leased { lease: Box::new(lease.clone()), at: millis(since_boot()) };
        let places = self.journal.append(&[record]).inspect_err(|_| {
            self.let_go(&lease.holds());
            self.allocator.undo(lease.ports.iter().cloned());
        })?;
        step::reached("ports.written");
        self.leases.insert(lease.clone(), places.first().copied());
        self.after_change();
        Ok(lease)
    }

    /// Whether [`Ports::lease`] would go as far as to look for ports: the request can be met on its network, and the
    /// instance has no other owner that is exclusive and lives.
    pub fn admits(&self, request: &LeaseRequest) -> Result<(), PortsError> {
        check_network(request)?;
        match self.leases.get(&request.instance).map(|known| &known.request.owner) {
            Some(owner)
                if *owner != request.owner
                    && !(owner.is_runtimes() && request.owner.is_runtimes())
                    && owner::is_alive(owner) =>
            {
                let owner = Box::new(owner.clone());
                Err(PortsError::InUse { instance: request.instance.clone(), owner })
            }
            _ => Ok(()),
        }
    }

    /// Ends a lease: its ports are let go of and go into quarantine. Answers what it was; `None` when there is no such
    /// lease, also when the instance has a newer incarnation: a late or repeated release is no error.
    ///
    /// It always succeeds. What the disk or a holder refuses is logged and made good later.
    pub fn release(&mut self, instance: &InstanceId, incarnation: &Incarnation) -> Option<Lease> {
        if self.leases.get(instance)?.request.incarnation != *incarnation {
            return None;
        }
        let now = since_boot();
        // First the record: after a crash between the two, the hold belongs to nobody and is let go of at the start.
        self.record(Record::Released {
            instance: instance.clone(),
            incarnation: incarnation.clone(),
            at: millis(now),
        });
        step::reached("ports.released");
        let lease = self.leases.remove(instance)?;
        self.unheld.remove(instance);
        self.let_go(&lease.holds());
        step::reached("ports.let-go");
        self.allocator.release(instance, &lease.ports, now);
        self.after_change();
        Some(lease)
    }

    /// The same ports for the next life of an instance, or for the same one that asks twice.
    fn take_over(&mut self, request: LeaseRequest) -> Result<Lease, PortsError> {
        let Some(known) = self.leases.get(&request.instance) else { return self.lease(request) };
        if known.request == request {
            return Ok(known.clone());
        }
        // A runtime's next sandbox begins with its ports held, whatever the last one has done with them.
        let hold_again = !known.held && request.owner.is_runtimes();
        let lease = Lease { request, ports: known.ports.clone(), held: known.held || hold_again };
        self.catch_up()?;
        let record = Record::Leased { lease: Box::new(lease.clone()), at: millis(since_boot()) };
        let places = self.journal.append(&[record])?;
        step::reached("ports.taken-over");
        self.leases.insert(lease.clone(), places.first().copied());
        if hold_again && !self.hold_missing(&lease.request.instance, &lease.holds())? {
            tracing::debug!(instance = %lease.request.instance, "the last sandbox still has a port; trying again");
        }
        Ok(lease)
    }

    fn choose_and_hold(&mut self, request: &LeaseRequest) -> Result<Vec<PublishedPort>, PortsError> {
        let mut last = Vec::new();
        for _ in 0..ATTEMPTS {
            let now = since_boot();
            let chosen = self.allocator.allocate(&request.instance, &request.requests, now, &mut rand::rng());
            let ports = chosen.map_err(|error| self.explain(error))?;
            let holds: Vec<Hold> = ports.iter().flat_map(Hold::of).collect();
            step::reached("ports.chosen");
            let failures = match self.holder.hold(&holds) {
                Ok(()) => return Ok(ports),
                Err(HoldError::Refused(failures)) => failures,
                Err(error) => {
                    self.allocator.undo(ports);
                    return Err(error.into());
                }
            };
            self.allocator.undo(ports.iter().cloned());
            for failure in &failures {
                match responsible(&ports, &request.requests, failure) {
                    Some((_, asked)) if asked.host.is_none() && failure.is_taken() => {
                        self.allocator.avoid(failure.protocol, failure.port, now + FOREIGN);
                    }
                    found => return Err(self.refused(found.map(|(port, _)| &port.name), failure)),
                }
            }
            tracing::debug!(instance = %request.instance, taken = failures.len(), "foreign sockets: choosing again");
            last = failures;
        }
        Err(HoldError::Refused(last).into())
    }

    fn let_go(&mut self, holds: &[Hold]) {
        now_or_later(self.holder.release_soon(holds));
    }

    /// Writes a record of something that has happened whether it can be written or not.
    fn record(&mut self, record: Record) {
        if !self.behind
            && let Err(error) = self.journal.append(&[record])
        {
            tracing::warn!(%error, "the journal of leases is behind; it is rewritten as soon as that is possible");
            self.behind = true;
        }
    }

    /// Rewrites the journal if it does not know all that has happened.
    fn catch_up(&mut self) -> Result<(), PortsError> {
        if self.behind {
            self.rewrite()?;
        }
        Ok(())
    }

    fn rewrite(&mut self) -> Result<(), PortsError> {
        if !self.leases.is_whole() {
            // This process has not read everything that must be in it. The next one will, and writes it.
            self.unsettled = true;
            self.behind = false;
            return Ok(());
        }
        let records = snapshot(&self.boot, self.leases.values(), &self.allocator, since_boot());
        let places = self.journal.rewrite(&records)?;
        for (record, place) in records.into_iter().zip(places) {
            match record {
                Record::Opened { id, .. } => self.id = id,
                Record::Leased { lease, .. } => self.leases.insert(*lease, Some(place)),
                _ => {}
            }
        }
        self.behind = false;
        Ok(())
    }

    /// What can wait until a change is done: a shorter journal, and holds that a dead holder took with it.
    fn after_change(&mut self) {
        if self.journal.wants_rewrite()
            && let Err(error) = self.rewrite()
        {
            tracing::warn!(%error, "the journal of leases stays long");
        }
        if self.holder.take_lost() {
            tracing::warn!("a holder of ports was gone; holding its ports again");
            if let Err(error) = self.compare() {
                tracing::warn!(%error, "not all of them are held; trying again");
            }
        }
    }
}

/// What is held for nobody is found by [`Ports::maintain`].
fn now_or_later(released: Result<usize, HolderError>) {
    if let Err(error) = released {
        tracing::warn!(%error, "ports could not be let go of; trying again later");
    }
}

/// The port and the request that a failure belongs to.
fn responsible<'a>(
    ports: &'a [PublishedPort],
    requests: &'a [PortRequest],
    failure: &Failure,
) -> Option<(&'a PublishedPort, &'a PortRequest)> {
    ports.iter().zip(requests).find(|(port, _)| {
        port.protocols.contains(failure.protocol)
            && port.host.contains(failure.port)
            && port.address == failure.address
    })
}

/// On the host's network nothing is between the world and the process, so the numbers are the same.
fn check_network(request: &LeaseRequest) -> Result<(), PortsError> {
    let shifted = |port: &&PortRequest| port.container.is_some() && port.container != port.host;
    match request.requests.iter().find(shifted) {
        Some(port) if request.network == Network::Host => Err(PortsError::Shifted {
            port: port.name.clone(),
            container: port.container.unwrap_or_default(),
        }),
        _ => Ok(()),
    }
}
