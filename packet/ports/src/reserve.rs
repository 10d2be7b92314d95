//! `net.ipv4.ip_local_reserved_ports`: the kernel's own choices stay out of the pools.
//!
//! It covers what holds cannot: the moment between giving a hold up and the instance's own bind, and the time when no
//! holder runs. Cilium does the same for node ports (cilium/cilium#10261). The setting belongs to the whole network
//! namespace and may have other users, so it is merged, and what was added is remembered on disk before it is
//! written: after a crash the next start knows which ranges are ours.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use portolan_model::PortRange;
use serde::{Deserialize, Serialize};

use crate::{bitmap::Bitmap, clock::Boot};

#[cfg(test)]
mod tests;

/// The setting, in the calling thread's network namespace (`ip-sysctl.rst`).
pub const PATH: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Ranges that are reserved for us, until [`Reservation::restore`].
#[derive(Debug)]
pub struct Reservation {
    setting: PathBuf,
    record: PathBuf,
    boot: Boot,
    wanted: Vec<PortRange>,
    added: Vec<PortRange>,
}

/// Why ports could not be reserved. Portolan goes on without: holds alone protect ports then.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    /// The setting cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The setting cannot be written: no privilege, or a read-only /proc/sys.
    #[error(
        "cannot write {path}: {source}; clients on this machine may be given ports of the pool while nothing holds them. As root: sysctl -w net.ipv4.ip_local_reserved_ports={value}"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
        /// What it should be.
        value: String,
    },
    /// What was added could not be remembered, so it was not added.
    #[error("cannot remember in {path} which ports are reserved: {source}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What is remembered on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    boot: Boot,
    /// The inode of the network namespace: the setting is one for each.
    namespace: u64,
    added: Vec<PortRange>,
}

impl Reservation {
    /// Adds `wanted` to the setting; answers also with what others had reserved before. What a former life added and
    /// did not take back is taken over, or taken back when it is wanted no more.
    ///
    /// `record` is where it is remembered. On an error, what others have reserved is still told if it can be read.
    pub fn make(
        setting: &Path,
        record: &Path,
        boot: &Boot,
        wanted: &[PortRange],
    ) -> (Vec<PortRange>, Result<Self, ReserveError>) {
        let mut reservation = Self {
            setting: setting.to_owned(),
            record: record.to_owned(),
            boot: boot.clone(),
            wanted: wanted.to_vec(),
            added: Vec::new(),
        };
        let current = match reservation.read() {
            Ok(current) => current,
            Err(error) => return (Vec::new(), Err(error)),
        };
        let before = reservation.recall();
        let others = minus(&current, &before);
        reservation.added = minus(wanted, &others);
        let result = reservation.apply(&current, &others, &before).map(|()| reservation);
        (others, result)
    }

    /// Puts our ranges back when somebody has overwritten the setting. `true` when that was necessary.
    pub fn check(&mut self) -> Result<bool, ReserveError> {
        let current = self.read()?;
        if minus(&self.wanted, &current).is_empty() {
            return Ok(false);
        }
        let before = self.added.clone();
        let others = minus(&current, &before);
        self.added = minus(&self.wanted, &others);
        self.apply(&current, &others, &before).map(|()| true)
    }

    /// The same when an earlier process has made it and nobody has changed it since, with what others have reserved:
    /// looks, and writes nothing.
    pub fn look(
        setting: &Path,
        record: &Path,
        boot: &Boot,
        wanted: &[PortRange],
    ) -> Option<(Vec<PortRange>, Self)> {
        let mut reservation = Self {
            setting: setting.to_owned(),
            record: record.to_owned(),
            boot: boot.clone(),
            wanted: wanted.to_vec(),
            added: Vec::new(),
        };
        let current = reservation.read().ok()?;
        reservation.added = reservation.recall();
        let others = minus(&current, &reservation.added);
        let complete = minus(wanted, &current).is_empty() && minus(&reservation.added, wanted).is_empty();
        complete.then_some((others, reservation))
    }

    /// Has these ranges instead of those before; answers with what others have reserved.
    pub fn change(&mut self, wanted: &[PortRange]) -> Result<Vec<PortRange>, ReserveError> {
        let current = self.read()?;
        let before = std::mem::take(&mut self.added);
        let others = minus(&current, &before);
        self.wanted = wanted.to_vec();
        self.added = minus(wanted, &others);
        self.apply(&current, &others, &before)?;
        Ok(others)
    }

    /// Takes exactly our ranges out again.
    pub fn restore(self) -> Result<(), ReserveError> {
        let current = self.read()?;
        let rest = minus(&current, &self.added);
        if rest != current {
            self.write(&rest)?;
        }
        match fs::remove_file(&self.record) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ReserveError::Record { path: self.record, source })
            }
            _ => Ok(()),
        }
    }

    /// Makes the setting `others` and ours, and the record fit, in an order that a crash can interrupt anywhere.
    fn apply(
        &self,
        current: &[PortRange],
        others: &[PortRange],
        before: &[PortRange],
    ) -> Result<(), ReserveError> {
        let target = union(others, &self.added);
        if target != current {
            self.remember(&union(before, &self.added))?;
            self.write(&target)?;
        }
        self.remember(&self.added)
    }

    fn read(&self) -> Result<Vec<PortRange>, ReserveError> {
        let fail = |source| ReserveError::Read { path: self.setting.clone(), source };
        let text = read_at_once(&self.setting).map_err(fail)?;
        let ranges = text.split([',', '\n']).map(str::trim).filter(|part| !part.is_empty());
        let ranges: Result<Vec<PortRange>, _> = ranges.map(str::parse).collect();
        ranges
            .map(|ranges| union(&ranges, &[]))
            .map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidData, error)))
    }

    fn write(&self, ranges: &[PortRange]) -> Result<(), ReserveError> {
        let value = text(ranges);
        // The kernel takes a page at a time; what follows in the same open file is added (proc_do_large_bitmap).
        File::options()
            .write(true)
            .truncate(true)
            .open(&self.setting)
            .and_then(|mut file| file.write_all(format!("{value}\n").as_bytes()))
            .map_err(|source| ReserveError::Write { path: self.setting.clone(), source, value })
    }

    /// What a former life added, if it was in this boot and this network namespace.
    fn recall(&self) -> Vec<PortRange> {
        let record: Option<Record> =
            fs::read(&self.record).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let ours = record.filter(|r| r.boot == self.boot && r.namespace == namespace());
        ours.map(|record| record.added).unwrap_or_default()
    }

    fn remember(&self, added: &[PortRange]) -> Result<(), ReserveError> {
        let record = Record { boot: self.boot.clone(), namespace: namespace(), added: added.to_vec() };
        let new = self.record.with_extension("new");
        let written = serde_json::to_vec(&record).map_err(io::Error::from).and_then(|bytes| {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &self.record)
        });
        written.map_err(|source| ReserveError::Record { path: self.record.clone(), source })
    }
}

/// The file's text by one read: the kernel answers the first read(2) with as much as fits and every other with the
/// end of the file (proc_do_large_bitmap), so a reader that begins with a small buffer loses the rest of the list.
fn read_at_once(path: &Path) -> io::Result<String> {
    // Every second port reserved is 32,768 numbers of at most five digits with commas.
    let mut buffer = vec![0; 256 << 10];
    let length = File::open(path)?.read(&mut buffer)?;
    buffer.truncate(length);
    String::from_utf8(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map(|metadata| metadata.ino()).unwrap_or_default()
}

fn text(ranges: &[PortRange]) -> String {
    ranges.iter().map(PortRange::to_string).collect::<Vec<_>>().join(",")
}

/// The ports in either, as the fewest ranges.
fn union(one: &[PortRange], other: &[PortRange]) -> Vec<PortRange> {
    let mut set = Bitmap::new();
    one.iter().chain(other).for_each(|range| set.insert(*range));
    set.runs().collect()
}

/// The ports in the first and not in the second, as the fewest ranges.
fn minus(one: &[PortRange], other: &[PortRange]) -> Vec<PortRange> {
    let mut set = Bitmap::new();
    one.iter().for_each(|range| set.insert(*range));
    other.iter().for_each(|range| set.remove(*range));
    set.runs().collect()
}
