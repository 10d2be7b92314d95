//! An append-only log of JSON records that survives kills, power cuts, full disks and bad sectors.
//!
//! One record is one line: length, CRC-32 of the JSON, the JSON. A line that was cut off is dropped, one that does
//! not fit its checksum is skipped, and every other is used: records are self-contained, and JSON has no line breaks
//! to lose the way at. A record counts when it is on the disk (fdatasync), not before. What the records mean is
//! [`crate::replay`]'s business.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};

mod crc;
#[cfg(test)]
mod tests;

/// Below this no journal is worth rewriting.
const SMALL: u64 = 1 << 20;

/// An open journal. The caller sees to it that there is one for a file ([`crate::ports`] locks the folder).
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    /// Where the last whole record ends.
    length: u64,
    /// The length after the last compaction.
    compacted: u64,
    /// A write failed and could not be taken back: the end of the file is not known to be sound.
    doubtful: bool,
    /// Whether a record counts only when it is on the disk.
    durable: bool,
}

/// A journal that is gone on with.
#[derive(Debug)]
pub struct Resumed<R> {
    /// The journal.
    pub journal: Journal,
    /// Its last records.
    pub records: Vec<(Place, R)>,
}

/// Where a record is in its journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where its JSON begins.
    pub offset: u64,
    /// How long that is.
    pub length: u32,
}

/// Reads single records of a journal that is as it was when their places were noted.
#[derive(Debug)]
pub struct Reader(File);

impl Reader {
    /// The record at a place.
    pub fn record<R: DeserializeOwned>(&self, place: Place) -> io::Result<R> {
        let mut json = vec![0; place.length as usize];
        self.0.read_exact_at(&mut json, place.offset)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

/// What is wrong with a journal that was read. None of it keeps it from being used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The last record was not written to its end: it was never acknowledged. The bytes are cut off.
    Torn {
        /// How many.
        bytes: u64,
    },
    /// Records in the middle do not fit their checksums. They are skipped; the file as it was is kept.
    Corrupt {
        /// How many lines.
        lines: usize,
        /// The copy of the file.
        copy: PathBuf,
    },
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Torn { bytes } => {
                write!(f, "the journal of leases ended in the middle of a record; {bytes} bytes were cut off")
            }
            Self::Corrupt { lines, copy } => write!(
                f,
                "{lines} records of the journal of leases were damaged and are left out; the file as it was is {}",
                copy.display()
            ),
        }
    }
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It could not be opened or read.
    #[error("cannot read the journal of leases {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record could not be written; none of it is in the journal.
    #[error("cannot write the journal of leases {path}: {source}{}", hint(.source))]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; nothing was changed: make room on that disk"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; nothing was changed: use a data folder that can be written",
        _ => "; nothing was changed",
    }
}

impl Journal {
    /// Opens or makes the journal and reads all that is sound of it. An end that was cut off is removed from the file;
    /// after damage in the middle the file is copied aside first and the caller should [`Journal::rewrite`] it.
    pub fn open<R: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<R>, Vec<Damage>), JournalError> {
        let fail = |source| JournalError::Read { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(fail)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(fail)?;
        // What follows the last line break was not written to its end, and so was never acknowledged.
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let (whole, torn) = bytes.split_at(end);
        let mut records = Vec::new();
        let (mut bad, mut last_bad, mut sound_end, mut at) = (0, None, 0, 0);
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            at += line.len();
            match parse(&line[..line.len() - 1]) {
                Some(record) => {
                    records.push(record);
                    (sound_end, last_bad) = (at, None);
                }
                None => {
                    bad += 1;
                    last_bad = Some(line.len());
                }
            }
        }
        let mut damage = Vec::new();
        // A power cut can also leave a last line of the right length with wrong bytes: that is torn, not corrupt.
        let torn = match last_bad {
            Some(length) if torn.is_empty() => {
                bad -= 1;
                length
            }
            _ => torn.len(),
        };
        if bad > 0 {
            let copy = aside(path);
            fs::copy(path, &copy).map_err(fail)?;
            damage.push(Damage::Corrupt { lines: bad, copy });
        }
        if torn > 0 {
            damage.push(Damage::Torn { bytes: torn as u64 });
        }
        let length = sound_end as u64;
        if sound_end < bytes.len() {
            file.set_len(length).and_then(|()| file.sync_all()).map_err(fail)?;
        }
        file.seek(SeekFrom::Start(length)).map_err(fail)?;
        let path = path.to_owned();
        let journal = Self { path, file, length, compacted: length, doubtful: false, durable: true };
        Ok((journal, records, damage))
    }

    /// Opens a journal that another process left whole, `length` bytes long, and reads what follows `from` in it.
    /// `None` when it is not so.
    pub fn resume<R: DeserializeOwned>(
        path: &Path,
        length: u64,
        from: u64,
        compacted: u64,
    ) -> io::Result<Option<Resumed<R>>> {
        let mut file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() != length || from > length {
            return Ok(None);
        }
        let mut tail = vec![0; usize::try_from(length - from).unwrap_or_default()];
        file.read_exact_at(&mut tail, from)?;
        let mut records = Vec::new();
        let mut at = from;
        for line in tail.split_inclusive(|&byte| byte == b'\n') {
            let Some(record) = line.strip_suffix(b"\n").and_then(parse) else { return Ok(None) };
            records.push((place(at, line), record));
            at += line.len() as u64;
        }
        file.seek(SeekFrom::Start(length))?;
        let path = path.to_owned();
        let journal = Self { path, file, length, compacted, doubtful: false, durable: true };
        Ok(Some(Resumed { journal, records }))
    }

    /// The first record, which says whose journal it is.
    pub fn first<R: DeserializeOwned>(path: &Path) -> Option<R> {
        let mut start = [0; 512];
        let length = File::open(path).and_then(|mut file| file.read(&mut start)).ok()?;
        parse(start[..length].split(|&byte| byte == b'\n').next()?)
    }

    /// Whether a record counts only when it is on the disk, or as soon as the kernel has it: then the kill of a process
    /// loses none, and a power cut may lose the last ones.
    pub const fn set_durable(&mut self, durable: bool) {
        self.durable = durable;
    }

    /// Waits until all of it is on the disk.
    pub fn sync(&self) -> Result<(), JournalError> {
        let fail = |source| JournalError::Write { path: self.path.clone(), source };
        self.file.sync_data().map_err(fail)
    }

    /// How long it is, and how long it was when it was last rewritten.
    pub const fn lengths(&self) -> (u64, u64) {
        (self.length, self.compacted)
    }

    /// For single records.
    pub fn reader(&self) -> io::Result<Reader> {
        self.file.try_clone().map(Reader)
    }

    /// Writes records, and waits until they are on the disk if it is [durable](Journal::set_durable). Says where they
    /// are. On an error none of them is in the journal.
    pub fn append<R: Serialize>(&mut self, records: &[R]) -> Result<Vec<Place>, JournalError> {
        let written = self.repair().and_then(|()| {
            let mut bytes = Vec::new();
            let mut places = Vec::with_capacity(records.len());
            for record in records {
                let start = bytes.len();
                write_line(&mut bytes, record)?;
                places.push(place(self.length + start as u64, &bytes[start..]));
            }
            self.file.write_all(&bytes)?;
            if self.durable {
                self.file.sync_data()?;
            }
            self.length += bytes.len() as u64;
            Ok(places)
        });
        written.map_err(|source| {
            // Perhaps a part of it was written: back to where the last whole record ends, now or before the next one.
            self.doubtful = true;
            let _ = self.repair();
            JournalError::Write { path: self.path.clone(), source }
        })
    }

    /// Whether it has grown so much since it was last rewritten that rewriting pays.
    pub const fn wants_rewrite(&self) -> bool {
        self.length > SMALL && self.length > 4 * self.compacted
    }

    /// Replaces all of it by `records`: a new file, then a rename, so that at every moment one of the two is there.
    /// On an error the old one stays in use. Says where the records are.
    pub fn rewrite<R: Serialize>(&mut self, records: &[R]) -> Result<Vec<Place>, JournalError> {
        let new = self.path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .mode(0o600)
                .open(&new)?;
            let mut bytes = Vec::new();
            let mut places = Vec::with_capacity(records.len());
            for record in records {
                let start = bytes.len();
                write_line(&mut bytes, record)?;
                places.push(place(start as u64, &bytes[start..]));
            }
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
            Ok((file, bytes.len() as u64, places))
        })();
        match written {
            Ok((file, length, places)) => {
                self.file = file;
                (self.length, self.compacted, self.doubtful) = (length, length, false);
                // The rename itself is on the disk only when the folder is.
                let folder = self.path.parent().map(File::open);
                let synced = folder.map_or(Ok(()), |folder| folder.and_then(|folder| folder.sync_all()));
                synced.map_err(|source| JournalError::Write { path: self.path.clone(), source })?;
                Ok(places)
            }
            Err(source) => {
                let _ = fs::remove_file(&new);
                Err(JournalError::Write { path: new, source })
            }
        }
    }

    fn repair(&mut self) -> io::Result<()> {
        if self.doubtful {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::Start(self.length))?;
            self.doubtful = false;
        }
        Ok(())
    }
}

/// `LENGTH CRC JSON`, both numbers in hexadecimal.
fn write_line(to: &mut Vec<u8>, record: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(record)?;
    write!(to, "{:x} {:08x} ", json.len(), crc::crc32(&json))?;
    to.extend(json);
    to.push(b'\n');
    Ok(())
}

/// Where the JSON of a line is.
fn place(start: u64, line: &[u8]) -> Place {
    let whole = line.len() - usize::from(line.ends_with(b"\n"));
    let before =
        line.iter().enumerate().filter(|(_, byte)| **byte == b' ').nth(1).map_or(0, |(at, _)| at + 1);
    Place { offset: start + before as u64, length: (whole - before) as u32 }
}

fn parse<R: DeserializeOwned>(line: &[u8]) -> Option<R> {
    let mut parts = line.splitn(3, |&byte| byte == b' ');
    let mut number = || u32::from_str_radix(std::str::from_utf8(parts.next()?).ok()?, 16).ok();
    let (length, sum) = (number()?, number()?);
    let json = parts.next()?;
    if json.len() != length as usize || crc::crc32(json) != sum {
        return None;
    }
    // A sound line of a kind that this version does not know is left out like a damaged one.
    serde_json::from_slice(json).ok()
}

/// A name for the copy of a damaged file that is not taken yet.
fn aside(path: &Path) -> PathBuf {
    let name = |n: u32| path.with_extension(format!("damaged-{n}"));
    (1..).map(name).find(|copy| !copy.exists()).unwrap_or_else(|| name(0))
}
