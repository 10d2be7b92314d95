//! Processes that take turns: each goes on from where the last one stopped, without reading what that has written.
//!
//! A small file says how the last turn ended. It says `busy` from the beginning of a turn on, so that the next process
//! looks at everything after one that was killed, as [`Ports::open`] does; and so it does after a reboot, when the pools
//! or the holders are others, and when the journal is due to be rewritten. Otherwise [`crate::index`] and the few
//! records that were appended since are enough, and what a turn costs does not depend on how many leases there are.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{
    Ports, PortsConfig, PortsError, Recovered,
    open::{JOURNAL, lock},
};
use crate::{
    allocate::Allocator,
    clock::{Boot, since_boot},
    holder::HolderClient,
    index::{Index, Slot, Writer, hash},
    journal::{Journal, Place, Resumed},
    lease::Lease,
    leases::Leases,
    replay::Record,
    reserve::Reservation,
};

/// The file that says how the last turn ended.
const MARKER: &str = "leases.turn";
const INDEX: &str = "leases.index";
const MAGIC: u64 = u64::from_le_bytes(*b"ptlnturn");
/// Records since the index are done again, which takes some 40 ns a byte, so a new one is written when they are an
/// eighth of its size, within these bounds.
const TAIL: std::ops::RangeInclusive<u64> = 8 << 10..=32 << 10;
/// With so many records to do again, all slots are read at once instead of being searched in the file.
const MANY: usize = 8;

/// A turn.
#[derive(Debug)]
pub struct Turn {
    /// The ports.
    pub ports: Ports,
    /// What was found, when everything was looked at.
    pub recovered: Option<Recovered>,
    /// What the last turn has left for this one: [`Ports::end_turn`].
    pub note: Option<u64>,
}

/// The file, while it says `busy`.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    folder: PathBuf,
    config: u64,
    /// Where the index ends, and how large it is.
    upto: u64,
    size: u64,
}

/// What the file says after a turn that ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rest {
    config: u64,
    journal: u64,
    length: u64,
    compacted: u64,
    held: u64,
    note: Option<u64>,
}

impl Rest {
    fn bytes(self) -> [u8; 64] {
        let Self { config, journal, length, compacted, held, note } = self;
        let numbers =
            [MAGIC, config, journal, length, compacted, held, u64::from(note.is_some()), note.unwrap_or(0)];
        let mut bytes = [0; 64];
        for (place, number) in bytes.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn of(bytes: &[u8; 64]) -> Option<Self> {
        let number = |at: usize| {
            let mut array = [0; 8];
            array.copy_from_slice(&bytes[8 * at..8 * at + 8]);
            u64::from_le_bytes(array)
        };
        (number(0) == MAGIC).then(|| Self {
            config: number(1),
            journal: number(2),
            length: number(3),
            compacted: number(4),
            held: number(5),
            note: (number(6) == 1).then(|| number(7)),
        })
    }
}

impl Ports {
    /// Waits for the turn of this process, and takes up the work where the last one stopped. Nobody is found to be gone
    /// unless everything has to be looked at.
    pub fn take_turn(config: PortsConfig) -> Result<Turn, PortsError> {
        let lock = lock(&config.folder, config.patience)?;
        let fail = |source| PortsError::Folder { path: config.folder.clone(), source };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(config.folder.join(MARKER)).map_err(fail)?;
        let mut bytes = [0; 64];
        let rest = file.read_exact_at(&mut bytes, 0).ok().and_then(|()| Rest::of(&bytes));
        file.write_all_at(&[0; 64], 0).map_err(fail)?;
        let boot = Boot::current();
        let folder = config.folder.clone();
        let mut marker = Marker { file, folder, config: fingerprint(&config, &boot), upto: 0, size: 0 };
        if let Some(rest) = rest {
            match resume(&config, &boot, &mut marker, rest, &lock) {
                Ok(Some(ports)) => {
                    let ports = Self { turn: Some(marker), ..ports };
                    return Ok(Turn { ports, recovered: None, note: rest.note });
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "cannot go on from the last turn; looking at everything");
                }
            }
        }
        let (mut ports, recovered) = Self::open_locked(config, lock)?;
        ports.turn = Some(marker);
        Ok(Turn { ports, recovered: Some(recovered), note: None })
    }

    /// Leaves all as it is for the next process, and `note` with it. A process that ends without this has the next one
    /// look at everything.
    pub fn end_turn(mut self, note: Option<u64>) {
        let Some(mut marker) = self.turn.take() else { return };
        if self.unsettled || self.behind || self.leases.is_damaged() {
            return;
        }
        let (length, compacted) = self.journal.lengths();
        let tail = length.saturating_sub(marker.upto);
        let patience = (marker.size / 8).clamp(*TAIL.start(), *TAIL.end());
        if marker.upto == 0 || tail > patience {
            if let Err(error) = self.write_index(&marker, length) {
                tracing::warn!(%error, "what is taken could not be written down; the next process reads all of the journal");
                return;
            }
            marker.upto = length;
        }
        let Ok(held) = self.holder.count() else { return };
        let (config, journal, held) = (marker.config, self.id, held as u64);
        let rest = Rest { config, journal, length, compacted, held, note };
        // Without it the next process looks at everything.
        let _ = marker.file.write_all_at(&rest.bytes(), 0);
    }

    fn write_index(&mut self, marker: &Marker, upto: u64) -> io::Result<()> {
        let mut index = Writer::default();
        self.allocator.write(&mut index, since_boot());
        if let Some((before, live)) = self.leases.rest() {
            let mut ids = vec![None; before.len()];
            for slot in live {
                ids[slot] = Some(index.lease(before.slot(slot)));
            }
            for (slot, mapping) in before.mappings() {
                if let Some(id) = ids.get(slot).copied().flatten() {
                    index.mapping(id, mapping);
                }
            }
        }
        for (lease, place) in self.leases.known() {
            let place = place.ok_or_else(|| io::Error::other("a lease is not in the journal"))?;
            let id = index.lease(slot(lease, place));
            lease.mappings().into_iter().for_each(|mapping| index.mapping(id, mapping));
        }
        self.leases.networks().iter().for_each(|network| index.network(*network));
        index.write(&marker.folder.join(INDEX), self.id, upto)
    }
}

/// Goes on from the last turn. `None`: everything has to be looked at.
fn resume(
    config: &PortsConfig,
    boot: &Boot,
    marker: &mut Marker,
    rest: Rest,
    lock: &File,
) -> io::Result<Option<Ports>> {
    let path = config.folder.join(JOURNAL);
    let Some(Record::Opened { boot: journals, id }) = Journal::first(&path) else { return Ok(None) };
    if rest.config != marker.config || (&journals, id) != (boot, rest.journal) {
        return Ok(None);
    }
    let Some(index) = Index::open(&config.folder.join(INDEX), id, rest.length)? else { return Ok(None) };
    let index = Arc::new(index);
    let resumed = Journal::resume::<Record>(&path, rest.length, index.upto(), rest.compacted)?;
    let Some(Resumed { mut journal, records }) = resumed else { return Ok(None) };
    if journal.wants_rewrite() {
        return Ok(None);
    }
    journal.set_durable(config.durable);
    (marker.upto, marker.size) = (index.upto(), index.size());
    if records.len() > MANY {
        index.read_slots();
    }
    let mut allocator = Allocator::resume(config.pools.clone(), &index);
    let mut leases = Leases::indexed(Arc::clone(&index), journal.reader()?);
    if !records.into_iter().all(|(place, record)| apply(record, place, &mut leases, &mut allocator)) {
        return Ok(None);
    }
    if index.is_damaged() {
        return Ok(None);
    }
    let mut reservation = None;
    if let Some(setting) = &config.reserved_ports {
        let wanted: Vec<_> = config.pools.iter().flat_map(|pool| pool.ranges.iter()).collect();
        let found = Reservation::look(setting, &config.folder.join("reserved.json"), boot, &wanted);
        let Some((others, found)) = found else { return Ok(None) };
        allocator.set_reserved(&others);
        reservation = Some(found);
    }
    let socket = config.holder_socket.clone().unwrap_or_else(|| config.folder.join("holder.sock"));
    let holder = HolderClient::open(config.holder.clone(), &socket).map_err(io::Error::other)?;
    // Another holder, which has been started since, holds nothing.
    if holder.found() as u64 != rest.held {
        return Ok(None);
    }
    Ok(Some(Ports {
        boot: boot.clone(),
        allocator,
        holder,
        journal,
        reservation,
        leases,
        unheld: Default::default(),
        behind: false,
        id,
        unsettled: false,
        turn: None,
        // The same lock: it is let go of with the last descriptor (flock(2)).
        _lock: lock.try_clone()?,
    }))
}

/// Does again what a record says. `false` when that cannot be.
fn apply(record: Record, place: Place, leases: &mut Leases, allocator: &mut Allocator) -> bool {
    let time = |at| Duration::from_millis(at).min(since_boot());
    match record {
        Record::Leased { lease, at } => {
            let instance = lease.request.instance.clone();
            if let Some(former) = leases.remove(&instance) {
                allocator.undo(former.ports);
            }
            for (port, request) in lease.ports.iter().zip(&lease.request.requests) {
                if request.host.is_none() {
                    allocator.remember(&instance, &port.name, port.host, time(at));
                }
            }
            let adopted = allocator.adopt(&lease.ports).is_ok();
            leases.insert(*lease, Some(place));
            adopted
        }
        Record::Held { instance, incarnation, held } => {
            if let Some(lease) = leases.get_mut(&instance)
                && lease.request.incarnation == incarnation
            {
                lease.held = held;
            }
            true
        }
        Record::Released { instance, incarnation, at } => {
            if leases.get(&instance).is_some_and(|lease| lease.request.incarnation == incarnation)
                && let Some(lease) = leases.remove(&instance)
            {
                allocator.release(&instance, &lease.ports, time(at));
            }
            true
        }
        // They are at the beginning of a journal only.
        Record::Opened { .. } | Record::Freed { .. } | Record::Remembered { .. } => false,
    }
}

fn slot(lease: &Lease, place: Place) -> Slot {
    let attachment = lease.request.attachment.as_ref();
    let container = attachment.map_or(0, |own| hash(&[&own.container]));
    Slot { instance: hash(&[lease.request.instance.as_str()]), container, place, held: lease.held }
}

/// What has to be the same for a turn to go on from the last one.
fn fingerprint(config: &PortsConfig, boot: &Boot) -> u64 {
    let PortsConfig { pools, holder, holder_socket, reserved_ports, .. } = config;
    hash(&[
        env!("CARGO_PKG_VERSION"),
        &format!("{boot:?} {pools:?} {holder:?} {holder_socket:?} {reserved_ports:?}"),
    ])
}
