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
//! | slots, by hash | instance and attachment as hashes, place in the journal, held |
//! | mappings | slot, protocol, host address, ports, instance addresses |
//! | addresses | taken ports that are on one address only |
//! | quarantine | protocol, ports, until when, hash of the former owner |
//! | memory, by hash | instance and port name as a hash, ports, last use |
//! | networks | those that instances' addresses are in |

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    time::Duration,
};

use ipnet::IpNet;
use portolan_model::{InstanceId, Mapping, PortRange, Protocol};

use crate::{bitmap::Bitmap, journal::Place};

mod write;

pub use write::Writer;

const MAGIC: u64 = u64::from_le_bytes(*b"ptlnidx1");
/// Magic, checksum, journal, journal's length, and a count for each table but the first.
const HEADER: usize = 8 * 4 + 8 * 6;
const BITS: usize = 3 * Bitmap::BYTES;
const SLOT: usize = 32;
const MAPPING: usize = 56;
const ADDRESS: usize = 20;
const KEPT: usize = 24;
const MEMORY: usize = 24;
const NETWORK: usize = 18;

/// An index, as it was read.
#[derive(Debug)]
pub struct Index {
    bytes: Vec<u8>,
    /// Where each table begins, and its end.
    starts: [usize; 8],
}

/// A lease, as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Of the instance.
    pub instance: u64,
    /// Of container and interface; 0 without.
    pub attachment: u64,
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
    /// Reads the index at `path` if it is whole and says something of this journal up to a length that it has.
    pub fn read(path: &Path, journal: u64, length: u64) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(starts) = starts(&bytes) else { return Ok(None) };
        let index = Self { bytes, starts };
        let sound = index.number(0) == MAGIC
            && index.number(8) == checksum(&index.bytes[16..])
            && index.number(16) == journal
            && index.upto() <= length;
        Ok(sound.then_some(index))
    }

    /// How far into the journal it says everything.
    pub fn upto(&self) -> u64 {
        self.number(24)
    }

    /// How long the file is.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// How many leases.
    pub fn len(&self) -> usize {
        self.rows(1, SLOT)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ports of a protocol that are taken on any address.
    pub fn taken(&self, protocol: Protocol) -> Bitmap {
        let start = self.starts[0] + protocol as usize * Bitmap::BYTES;
        Bitmap::from_bytes(&self.bytes[start..start + Bitmap::BYTES])
    }

    /// A lease.
    pub fn slot(&self, number: usize) -> Slot {
        let row = self.starts[1] + number * SLOT;
        Slot {
            instance: self.number(row),
            attachment: self.number(row + 8),
            place: Place { offset: self.number(row + 16), length: self.half(row + 24) },
            held: self.half(row + 28) != 0,
        }
    }

    /// The leases that may be this instance's: their hash is the same.
    pub fn of_instance(&self, instance: &InstanceId) -> impl Iterator<Item = usize> {
        let wanted = hash(&[instance.as_str()]);
        let first = self.first(1, SLOT, wanted);
        (first..self.len()).take_while(move |&slot| self.slot(slot).instance == wanted)
    }

    /// All mappings, with the slot of the lease.
    pub fn mappings(&self) -> impl Iterator<Item = (usize, Mapping)> {
        (0..self.rows(2, MAPPING)).filter_map(|row| self.mapping(self.starts[2] + row * MAPPING))
    }

    fn mapping(&self, at: usize) -> Option<(usize, Mapping)> {
        let [protocol, has, ..] = self.bytes[at + 4..] else { return None };
        let v6 = |at: usize| Ipv6Addr::from(u128::from_le_bytes(self.array(at)));
        let address = v6(at + 12);
        let mapping = Mapping {
            protocol: protocol_of(protocol)?,
            address: (has & 1 != 0).then(|| IpAddr::V6(address).to_canonical()),
            host: PortRange::new(self.quarter(at + 6), self.quarter(at + 8)).ok()?,
            container: self.quarter(at + 10),
            v4: (has & 2 != 0).then(|| Ipv4Addr::from(self.half(at + 28))),
            v6: (has & 4 != 0).then(|| v6(at + 32)),
        };
        Some((self.half(at) as usize, mapping))
    }

    /// Ports that are taken on one address, once for each who has it.
    pub fn addresses(&self) -> impl Iterator<Item = (Protocol, u16, IpAddr)> {
        (0..self.rows(3, ADDRESS)).filter_map(|row| {
            let at = self.starts[3] + row * ADDRESS;
            let address = Ipv6Addr::from(u128::from_le_bytes(self.array(at + 4)));
            let address =
                if self.bytes[at + 1] == 4 { IpAddr::V6(address).to_canonical() } else { address.into() };
            Some((protocol_of(self.bytes[at])?, self.quarter(at + 2), address))
        })
    }

    /// What is in quarantine.
    pub fn quarantine(&self) -> impl Iterator<Item = Kept> {
        (0..self.rows(4, KEPT)).filter_map(|row| {
            let at = self.starts[4] + row * KEPT;
            Some(Kept {
                protocol: protocol_of(self.bytes[at])?,
                range: PortRange::new(self.quarter(at + 2), self.quarter(at + 4)).ok()?,
                until: Duration::from_millis(self.number(at + 8)),
                owner: self.number(at + 16),
            })
        })
    }

    /// What instances had last, in the order of the hashes of instance and port name: ports, and last use.
    pub fn memories(&self) -> impl Iterator<Item = (u64, PortRange, Duration)> {
        (0..self.rows(5, MEMORY)).filter_map(|row| self.memory_at(row))
    }

    fn memory_at(&self, row: usize) -> Option<(u64, PortRange, Duration)> {
        let at = self.starts[5] + row * MEMORY;
        let range = PortRange::new(self.quarter(at + 8), self.quarter(at + 10)).ok()?;
        Some((self.number(at), range, Duration::from_millis(self.number(at + 16))))
    }

    /// The networks that instances' addresses are in.
    pub fn networks(&self) -> impl Iterator<Item = IpNet> {
        (0..self.rows(6, NETWORK)).filter_map(|row| {
            let at = self.starts[6] + row * NETWORK;
            let address = Ipv6Addr::from(u128::from_le_bytes(self.array(at + 2)));
            let address =
                if self.bytes[at] == 4 { IpAddr::V6(address).to_canonical() } else { address.into() };
            IpNet::new(address, self.bytes[at + 1]).ok()
        })
    }

    /// The first row of a table, ordered by the hash that it begins with, whose hash is not lower.
    fn first(&self, table: usize, width: usize, wanted: u64) -> usize {
        let (mut low, mut high) = (0, self.rows(table, width));
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.number(self.starts[table] + middle * width) < wanted {
                low = middle + 1
            } else {
                high = middle
            }
        }
        low
    }

    const fn rows(&self, table: usize, width: usize) -> usize {
        (self.starts[table + 1] - self.starts[table]) / width
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]);
        array
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn half(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn quarter(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.array(at))
    }
}

/// Where the tables begin, when the lengths in the header fit the file.
fn starts(bytes: &[u8]) -> Option<[usize; 8]> {
    let header = bytes.get(..HEADER)?;
    let mut starts = [HEADER; 8];
    starts[1] = HEADER + BITS;
    for (table, width) in [SLOT, MAPPING, ADDRESS, KEPT, MEMORY, NETWORK].into_iter().enumerate() {
        let count = u64::from_le_bytes(*header[32 + table * 8..].first_chunk()?);
        let size = usize::try_from(count).ok()?.checked_mul(width)?;
        starts[table + 2] = starts[table + 1].checked_add(size)?;
    }
    (starts[7] == bytes.len()).then_some(starts)
}

fn protocol_of(number: u8) -> Option<Protocol> {
    Protocol::ALL.into_iter().find(|protocol| *protocol as u8 == number)
}
