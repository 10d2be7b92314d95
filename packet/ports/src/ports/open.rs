//! The start: what an earlier life has left is compared with what is, and made one again.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, Instant},
};

use portolan_model::PortRange;
use rustix::fs::{FlockOperation, flock};

use super::{Ports, PortsConfig, PortsError, maintain::living};
use crate::{
    allocate::Allocator,
    clock::{Boot, since_boot},
    hold::Hold,
    holder::HolderClient,
    journal::{Damage, Journal},
    lease::Lease,
    replay::{Past, Record},
    reserve::{Reservation, ReserveError},
    sticky::Sticky,
};

/// The journal's name in the folder.
pub(super) const JOURNAL: &str = "leases.journal";
/// How often a lock that another has is tried.
const LOCK_LOOK: Duration = Duration::from_millis(2);
/// How long the lock of a process that has just ended is waited for in any case: its children share it between their
/// fork and their exec.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// What was found at the start. Everything in it is worth a line in the log; none of it kept the start from going on.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Leases that go on as they were: their mappings should be there.
    pub kept: Vec<Lease>,
    /// Leases that ended while nobody watched: their mappings should not be there.
    pub dropped: Vec<(Lease, Dropped)>,
    /// Kept leases whose ports are not held, because something else took one of them meanwhile.
    pub unheld: Vec<Lease>,
    /// What was held and belonged to nobody.
    pub strays: Vec<Hold>,
    /// What was wrong with the journal.
    pub damage: Vec<Damage>,
    /// Why the pools are not in `ip_local_reserved_ports`.
    pub unprotected: Option<ReserveError>,
}

/// Why a lease was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its process is gone.
    OwnerGone,
    /// The machine was booted since.
    Rebooted,
    /// A newer lease has one of its ports: the end of this one was in a damaged part of the journal.
    Displaced,
}

impl Recovered {
    /// Says in the log what was found.
    pub fn report(&self) {
        if !self.kept.is_empty() {
            tracing::info!(leases = self.kept.len(), "took over what an earlier life left");
        }
        for (lease, why) in &self.dropped {
            tracing::info!(instance = %lease.request.instance, ?why, "its ports are free again");
        }
        for lease in &self.unheld {
            let instance = &lease.request.instance;
            tracing::warn!(%instance, "another process has one of its ports: not held until that ends");
        }
        for damage in &self.damage {
            tracing::warn!("{damage}");
        }
        if let Some(error) = &self.unprotected {
            tracing::warn!("{error}");
        }
    }
}

impl Ports {
    /// Takes everything in `folder` away, whoever left it: what the holders hold, the reservation, the journal. A
    /// process that has the folder is waited for. Goes on after a failure and returns what failed.
    pub fn wipe(
        folder: &Path,
        holder_socket: Option<&Path>,
        reserved_ports: &Path,
        patience: Duration,
    ) -> Vec<String> {
        if !folder.join("lock").exists() {
            return Vec::new();
        }
        let _lock = match lock(folder, patience) {
            Ok(lock) => lock,
            Err(error) => return vec![error.to_string()],
        };
        let mut failures = Vec::new();
        let socket = holder_socket.map_or_else(|| folder.join("holder.sock"), Path::to_owned);
        if let Err(error) = HolderClient::end_all(&socket) {
            failures.push(format!("ending the holder of ports: {error}"));
        }
        let record = folder.join("reserved.json");
        let (_, made) = Reservation::make(reserved_ports, &record, &Boot::current(), &[]);
        if let Err(error) = made.and_then(Reservation::restore) {
            failures.push(error.to_string());
        }
        let ours = |name: &str| name.starts_with("leases.") || name.starts_with("holder") || name == "lock";
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name().to_str().is_some_and(ours)) {
            if let Err(error) = fs::remove_file(file.path()) {
                failures.push(format!("removing {}: {error}", file.path().display()));
            }
        }
        // Only when nothing of others is in it.
        let _ = fs::remove_dir(folder);
        failures
    }

    /// Takes up the work in `config.folder`: leases of living processes are kept with their ports, all others are
    /// dropped, and what is held for nobody is let go of.
    pub fn open(config: PortsConfig) -> Result<(Self, Recovered), PortsError> {
        let lock = lock(&config.folder, config.patience)?;
        Self::open_locked(config, lock)
    }

    /// [`Ports::open`] for a folder that is locked.
    pub(super) fn open_locked(config: PortsConfig, lock: File) -> Result<(Self, Recovered), PortsError> {
        let boot = Boot::current();
        let now = since_boot();
        let (mut journal, records, damage) = Journal::open::<Record>(&config.folder.join(JOURNAL))?;
        journal.set_durable(config.durable);
        let past = Past::of(records, &boot, now);
        let mut recovered = Recovered { damage, ..Recovered::default() };

        let pool_ranges: Vec<PortRange> = config.pools.iter().flat_map(|pool| pool.ranges.iter()).collect();
        let mut allocator = Allocator::new(config.pools, Sticky::default());
        for ((instance, port), (range, used)) in past.remembered {
            allocator.remember(&instance, &port, range, used);
        }
        for freed in past.freed {
            allocator.quarantine(freed);
        }
        let mut reservation = None;
        if let Some(setting) = &config.reserved_ports {
            let record = config.folder.join("reserved.json");
            let (others, made) = Reservation::make(setting, &record, &boot, &pool_ranges);
            allocator.set_reserved(&others);
            match made {
                Ok(made) => reservation = Some(made),
                Err(error) => recovered.unprotected = Some(error),
            }
        }

        let socket = config.holder_socket.unwrap_or_else(|| config.folder.join("holder.sock"));
        let holder = match HolderClient::open(config.holder, &socket) {
            Ok(holder) => holder,
            Err(error) => {
                // Without a lease there is nothing to protect until the next start.
                if past.leases.is_empty()
                    && let Some(Err(error)) = reservation.map(Reservation::restore)
                {
                    tracing::error!("not cleaned up: {error}");
                }
                return Err(error.into());
            }
        };
        let mut ports = Self {
            boot,
            allocator,
            holder,
            journal,
            reservation,
            leases: Default::default(),
            unheld: Default::default(),
            behind: true,
            id: 0,
            unsettled: false,
            turn: None,
            _lock: lock,
        };
        let living = living(past.leases.iter().map(|survivor| survivor.lease.request.owner.clone()));
        for survivor in past.leases {
            let lease = survivor.lease;
            let reason = if !survivor.this_boot {
                Some(Dropped::Rebooted)
            } else if !living.contains(&lease.request.owner) {
                Some(Dropped::OwnerGone)
            } else if ports.allocator.adopt(&lease.ports).is_err() {
                Some(Dropped::Displaced)
            } else {
                None
            };
            match reason {
                None => ports.leases.insert(lease, None),
                Some(reason) => recovered.dropped.push((lease, reason)),
            }
        }
        for (lease, reason) in &recovered.dropped {
            // The ports of a displaced lease are in use; those of the others were until nobody knows when.
            if *reason != Dropped::Displaced {
                ports.allocator.quarantine_ports(&lease.request.instance, &lease.ports, now);
            }
        }
        // The lines that said all this before are many times longer, and their times may be of another boot.
        if let Err(error) = ports.rewrite() {
            // The old journal is still true for this boot; a lease will try again and say why it cannot.
            tracing::warn!(%error, "the journal of leases could not be rewritten at the start");
            ports.behind = true;
        }
        let compared = ports.compare()?;
        recovered.strays = compared;
        recovered.unheld = ports.unheld.iter().filter_map(|name| ports.leases.get(name)).cloned().collect();
        recovered.kept = ports.leases.values().cloned().collect();
        Ok((ports, recovered))
    }
}

/// Makes the folder if need be and locks it for this process.
pub(super) fn lock(folder: &Path, patience: Duration) -> Result<File, PortsError> {
    let fail = |source| PortsError::Folder { path: folder.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail)?;
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(folder.join("lock")).map_err(fail)?;
    let deadline = Instant::now() + patience.max(LOCK_WAIT);
    let mut locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    while locked == Err(rustix::io::Errno::WOULDBLOCK) && Instant::now() < deadline {
        std::thread::sleep(LOCK_LOOK);
        locked = flock(&file, FlockOperation::NonBlockingLockExclusive);
    }
    match locked {
        Ok(()) => {
            // For the error message of a second process. Nothing depends on it. Always as long as the longest one, so that
            // what was there before is gone without a truncation, which frees a block of the disk each time.
            let _ = write!(file, "{:<10}", std::process::id());
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            Err(PortsError::Locked { path: folder.to_owned(), pid: pid.trim().parse().ok() })
        }
        Err(error) => Err(fail(io::Error::from(error))),
    }
}
