//! What processes that take turns leave for each other: where the journal has each lease, and what is taken, without
//! reading it.
//!
//! The journal stays the truth. The index says what it came to at some place in it; what was appended since is read
//! and done again. It is of one boot and one journal, is not synced to the disk, and one that does not fit is as good
//! as none.
//!
//! A file of fixed-width tables, little end first, which is searched as it was read:
//!
//! | table | row |
//! | --- | --- |
//! | taken | a bit for each port of each protocol |
//! | slots, by hash | instance and container as hashes, place in the journal, held |
//! | mappings | slot, protocol, host address, ports, instance addresses |
//! | addresses | taken ports that are on one address only |
//! | quarantine | protocol, ports, until when, hash of the former owner |
//! | memory, by hash | instance and port name as a hash, ports, last use |
//! | networks | those that instances' addresses are in |
//! | finds, by key | who is at an address, has a port or is a container: mapping or slot, ports |
//!
//! A key is a hash of what is searched for; of ports, those of a page of 32. So a search reads as much as it finds, and
//! a few steps of a bisection, however long the tables are.

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use portolan_model::{InstanceId, Mapping, PortRange, Protocol};

use crate::{bitmap::Bitmap, journal::Place, leases::octets};

#[cfg(test)]
mod tests;
mod write;

pub use write::Writer;

const MAGIC: u64 = u64::from_le_bytes(*b"ptlnidx2");
/// The tables, by number, and how wide their rows are.
const TAKEN: usize = 0;
const SLOTS: usize = 1;
const MAPPINGS: usize = 2;
const ADDRESSES: usize = 3;
const QUARANTINE: usize = 4;
const MEMORIES: usize = 5;
const NETWORKS: usize = 6;
const FINDS: usize = 7;
const TABLES: usize = 8;
const WIDTHS: [usize; TABLES] = [Bitmap::BYTES, 32, 48, 20, 24, 24, 18, 16];
/// How many rows are read at once at the end of a bisection: a page of memory of them.
const NEAR: usize = 256;
/// Magic, checksum of the header, journal, journal's length; then for each table how many rows, and a checksum.
const COUNTS: usize = 32;
const SUMS: usize = COUNTS + 8 * TABLES;
const HEADER: usize = SUMS + 8 * TABLES;

/// An index. Its tables are read when they are asked for, and searched in the file where that is enough.
#[derive(Debug)]
pub struct Index {
    file: File,
    header: [u8; HEADER],
    /// Where each table begins, and its end.
    starts: [u64; TABLES + 1],
    tables: [OnceLock<Vec<u8>>; TABLES],
    damaged: AtomicBool,
}

/// A lease, as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Of the instance.
    pub instance: u64,
    /// Of the container; 0 without.
    pub container: u64,
    /// Where the journal has it.
    pub place: Place,
    /// Whether its ports are to be held.
    pub held: bool,
}

/// A range in quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The protocol.
    pub protocol: Protocol,
    /// The ports.
    pub range: PortRange,
    /// Until when.
    pub until: Duration,
    /// Of the instance that had it; 0 when that is a foreign process.
    pub owner: u64,
}

/// The same words have the same hash in every process and version: FNV-1a, 64 bits. Never 0.
pub fn hash(words: &[&str]) -> u64 {
    let bytes = words.iter().flat_map(|word| word.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.max(1)
}

/// What is searched for in the table of finds, as a number.
#[derive(Clone, Copy, Debug)]
enum Key {
    Address(IpAddr),
    Page(Protocol, u16),
    Container(u64),
}

impl Key {
    /// Ports in a page.
    const PAGE: u16 = 32;

    /// The pages that a range has a part in.
    fn pages(protocol: Protocol, range: PortRange) -> impl Iterator<Item = Self> {
        (range.first() / Self::PAGE..=range.last() / Self::PAGE).map(move |page| Self::Page(protocol, page))
    }

    /// The same in every process and version. Others may have it too: what is found has to be compared.
    fn hash(self) -> u64 {
        let (kind, words) = match self {
            Self::Address(address) => {
                let octets = u128::from_be_bytes(octets(address));
                (1, [octets as u64, (octets >> 64) as u64])
            }
            Self::Page(protocol, page) => (2, [protocol as u64, page.into()]),
            Self::Container(hash) => (3, [hash, 0]),
        };
        // The end of murmur3: each bit of the words changes half of those of the result.
        words.into_iter().fold(kind, |hash: u64, word| {
            let mixed = (hash.rotate_left(29) ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
            (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53)
        })
    }
}

/// Enough to find a file that is not what was written; nobody is to be kept from forging it.
fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    words
        .fold(bytes.len() as u64, |sum, word| (sum.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

impl Index {
    /// Opens the index at `path` if it is whole and says something of this journal up to a length that it has.
    pub fn open(path: &Path, journal: u64, length: u64) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut header = [0; HEADER];
        let size = file.metadata()?.len();
        if size < HEADER as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let number = |at: usize| number(&header, at);
        let sound = number(0) == MAGIC
            && number(8) == checksum(&header[16..])
            && number(16) == journal
            && number(24) <= length;
        let Some(starts) = starts(&header).filter(|starts| sound && starts[TABLES] == size) else {
            return Ok(None);
        };
        let (tables, damaged) = (Default::default(), AtomicBool::new(false));
        Ok(Some(Self { file, header, starts, tables, damaged }))
    }

    /// How far into the journal it says everything.
    pub fn upto(&self) -> u64 {
        number(&self.header, 24)
    }

    /// How long the file is.
    pub const fn size(&self) -> u64 {
        self.starts[TABLES]
    }

    /// Whether a table could not be read, or was not what was written. Then what was said of it is not to be trusted.
    pub fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// A whole table; an empty one when it is damaged.
    fn table(&self, table: usize) -> &[u8] {
        self.tables[table].get_or_init(|| {
            let mut bytes = vec![0; (self.starts[table + 1] - self.starts[table]) as usize];
            let read = self.file.read_exact_at(&mut bytes, self.starts[table]);
            if read.is_err() || checksum(&bytes) != number(&self.header, SUMS + 8 * table) {
                tracing::error!(
                    table,
                    "the index of leases is damaged; the next process looks at everything"
                );
                self.damaged.store(true, Ordering::Relaxed);
                bytes.clear();
            }
            bytes
        })
    }

    /// One row, from the table if it was read and from the file if not.
    fn row<const N: usize>(&self, table: usize, row: usize) -> [u8; N] {
        let mut bytes = [0; N];
        match self.tables[table].get() {
            Some(all) => bytes.copy_from_slice(&all[row * N..][..N]),
            None => {
                if self.file.read_exact_at(&mut bytes, self.starts[table] + (row * N) as u64).is_err() {
                    self.damaged.store(true, Ordering::Relaxed);
                }
            }
        }
        bytes
    }

    fn rows(&self, table: usize) -> usize {
        ((self.starts[table + 1] - self.starts[table]) / WIDTHS[table] as u64) as usize
    }

    /// Reads all slots, for many searches.
    pub fn read_slots(&self) {
        self.table(SLOTS);
    }

    /// How many leases.
    pub fn len(&self) -> usize {
        self.rows(SLOTS)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ports of a protocol that are taken on any address.
    pub fn taken(&self, protocol: Protocol) -> Bitmap {
        let bits = self.table(TAKEN).chunks_exact(Bitmap::BYTES).nth(protocol as usize);
        bits.map(Bitmap::from_bytes).unwrap_or_default()
    }

    /// A lease.
    pub fn slot(&self, row: usize) -> Slot {
        slot(&self.row::<{ WIDTHS[SLOTS] }>(SLOTS, row))
    }

    /// The leases that may be this instance's: their hash is the same.
    pub fn of_instance(&self, instance: &InstanceId) -> impl Iterator<Item = usize> {
        let wanted = hash(&[instance.as_str()]);
        let first = self.first::<{ WIDTHS[SLOTS] }>(SLOTS, wanted);
        (first..self.len()).take_while(move |&row| self.slot(row).instance == wanted)
    }

    /// The leases that may be this container's.
    pub fn of_container(&self, container: &str) -> impl Iterator<Item = usize> {
        let wanted = hash(&[container]);
        let found = self.find(Key::Container(wanted)).into_iter().map(|found| found.row);
        found.filter(move |&row| row < self.len() && self.slot(row).container == wanted)
    }

    /// All mappings, with the slot of the lease.
    pub fn mappings(&self) -> impl Iterator<Item = (usize, Mapping)> {
        self.table(MAPPINGS).chunks_exact(WIDTHS[MAPPINGS]).filter_map(mapping)
    }

    /// The mappings that lead to one of these addresses, or share a port with one of these.
    pub fn concerned(
        &self,
        v4: &[Ipv4Addr],
        v6: &[Ipv6Addr],
        ports: &[(Protocol, PortRange)],
    ) -> impl Iterator<Item = (usize, Mapping)> {
        let addresses = v4.iter().copied().map(IpAddr::V4).chain(v6.iter().copied().map(IpAddr::V6));
        let mut found: BTreeSet<usize> =
            addresses.flat_map(|address| self.find(Key::Address(address))).map(|found| found.row).collect();
        for &(protocol, range) in ports {
            let on_pages = Key::pages(protocol, range).flat_map(|page| self.find(page));
            found.extend(
                on_pages.filter(|one| one.range.is_some_and(|own| own.overlaps(range))).map(|one| one.row),
            );
        }
        let concerned = move |mapping: &Mapping| {
            mapping.v4.is_some_and(|own| v4.contains(&own))
                || mapping.v6.is_some_and(|own| v6.contains(&own))
                || ports
                    .iter()
                    .any(|(protocol, range)| mapping.protocol == *protocol && range.overlaps(mapping.host))
        };
        let rows = found.into_iter().filter(|row| *row < self.rows(MAPPINGS));
        let mappings = rows.filter_map(|row| mapping(&self.row::<{ WIDTHS[MAPPINGS] }>(MAPPINGS, row)));
        mappings.filter(move |(_, mapping)| concerned(mapping))
    }

    /// What the table of finds has under a key.
    fn find(&self, key: Key) -> Vec<Found> {
        const WIDTH: usize = WIDTHS[FINDS];
        let (wanted, rows) = (key.hash(), self.rows(FINDS));
        let mut row = self.first::<WIDTH>(FINDS, wanted);
        let mut found = Vec::new();
        while row < rows {
            let some = self.some(FINDS, row, NEAR.min(rows - row));
            for one in some.chunks_exact(WIDTH) {
                if number(one, 0) != wanted {
                    return found;
                }
                found.push(Found { row: half(one, 8) as usize, range: range(one, 12) });
            }
            row += NEAR;
        }
        found
    }

    /// Ports that are taken on one address, once for each who has it.
    pub fn addresses(&self) -> impl Iterator<Item = (Protocol, u16, IpAddr)> {
        self.table(ADDRESSES)
            .chunks_exact(WIDTHS[ADDRESSES])
            .filter_map(|row| Some((protocol_of(row[0])?, quarter(row, 2), address(row, 4, row[1]))))
    }

    /// What is in quarantine.
    pub fn quarantine(&self) -> impl Iterator<Item = Kept> {
        self.table(QUARANTINE).chunks_exact(WIDTHS[QUARANTINE]).filter_map(|row| {
            Some(Kept {
                protocol: protocol_of(row[0])?,
                range: range(row, 2)?,
                until: Duration::from_millis(number(row, 8)),
                owner: number(row, 16),
            })
        })
    }

    /// What an instance had last under a port name, by the hash of both: ports, and last use.
    pub fn memory(&self, wanted: u64) -> Option<(PortRange, Duration)> {
        let row = self.first::<{ WIDTHS[MEMORIES] }>(MEMORIES, wanted);
        let row = (row < self.rows(MEMORIES)).then(|| self.row::<{ WIDTHS[MEMORIES] }>(MEMORIES, row))?;
        memory(&row).filter(|(hash, ..)| *hash == wanted).map(|(_, range, used)| (range, used))
    }

    /// All of that, in the order of the hashes.
    pub fn memories(&self) -> impl Iterator<Item = (u64, PortRange, Duration)> {
        self.table(MEMORIES).chunks_exact(WIDTHS[MEMORIES]).filter_map(memory)
    }

    /// The networks that instances' addresses are in.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        self.table(NETWORKS)
            .chunks_exact(WIDTHS[NETWORKS])
            .filter_map(|row| IpNet::new(address(row, 2, row[0]), row[1]).ok())
    }

    /// Some rows of a table, from the table if it was read and from the file if not.
    fn some(&self, table: usize, row: usize, count: usize) -> Vec<u8> {
        let (from, length) = (row * WIDTHS[table], count * WIDTHS[table]);
        if let Some(all) = self.tables[table].get() {
            return all[from..][..length].to_vec();
        }
        let mut bytes = vec![0; length];
        if self.file.read_exact_at(&mut bytes, self.starts[table] + from as u64).is_err() {
            self.damaged.store(true, Ordering::Relaxed);
        }
        bytes
    }

    /// The first row of a table, ordered by the hash that it begins with, whose hash is not lower.
    fn first<const N: usize>(&self, table: usize, wanted: u64) -> usize {
        let (mut low, mut high) = (0, self.rows(table));
        while high - low > NEAR {
            let middle = usize::midpoint(low, high);
            if number(&self.row::<N>(table, middle), 0) < wanted { low = middle + 1 } else { high = middle }
        }
        let near = self.some(table, low, high - low);
        let lower = |row: &&[u8]| number(row, 0) < wanted;
        low + near.chunks_exact(N).take_while(lower).count()
    }
}

/// A row of the table of finds.
#[derive(Clone, Copy, Debug)]
struct Found {
    row: usize,
    /// The ports of a mapping.
    range: Option<PortRange>,
}

/// Where the tables begin and the last one ends, by the counts in the header.
fn starts(header: &[u8; HEADER]) -> Option<[u64; TABLES + 1]> {
    let mut starts = [HEADER as u64; TABLES + 1];
    for table in 0..TABLES {
        let size = number(header, COUNTS + 8 * table).checked_mul(WIDTHS[table] as u64)?;
        starts[table + 1] = starts[table].checked_add(size)?;
    }
    Some(starts)
}

fn slot(row: &[u8]) -> Slot {
    Slot {
        instance: number(row, 0),
        container: number(row, 8),
        place: Place { offset: number(row, 16), length: half(row, 24) },
        held: half(row, 28) != 0,
    }
}

fn mapping(row: &[u8]) -> Option<(usize, Mapping)> {
    let has = row[5];
    let v6 = |at| Ipv6Addr::from(u128::from_le_bytes(array(row, at)));
    let mapping = Mapping {
        protocol: protocol_of(row[4])?,
        address: (has & 1 != 0).then(|| IpAddr::V6(v6(12)).to_canonical()),
        host: range(row, 6)?,
        container: quarter(row, 10),
        v4: (has & 2 != 0).then(|| Ipv4Addr::from(half(row, 28))),
        v6: (has & 4 != 0).then(|| v6(32)),
    };
    Some((half(row, 0) as usize, mapping))
}

fn memory(row: &[u8]) -> Option<(u64, PortRange, Duration)> {
    Some((number(row, 0), range(row, 8)?, Duration::from_millis(number(row, 16))))
}

fn range(row: &[u8], at: usize) -> Option<PortRange> {
    PortRange::new(quarter(row, at), quarter(row, at + 2)).ok()
}

fn address(row: &[u8], at: usize, family: u8) -> IpAddr {
    let address = IpAddr::V6(Ipv6Addr::from(u128::from_le_bytes(array(row, at))));
    if family == 4 { address.to_canonical() } else { address }
}

fn array<const N: usize>(row: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&row[at..at + N]);
    array
}

fn number(row: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(row, at))
}

fn half(row: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(row, at))
}

fn quarter(row: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(row, at))
}

fn protocol_of(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| *protocol as u8 == number)
}
