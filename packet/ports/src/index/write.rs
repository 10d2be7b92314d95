//! Making an index, from an older one and from what is known.

use std::{fs, io, net::IpAddr, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use ipnet::IpNet;
use portolan_model::{Mapping, PortRange, Protocol};

use super::{
    ADDRESSES, FINDS, HEADER, Kept, Key, MAGIC, MAPPINGS, MEMORIES, NETWORKS, QUARANTINE, SLOTS, Slot,
    TABLES, TAKEN, WIDTHS, checksum,
};
use crate::{bitmap::Bitmap, leases::octets};

/// The tables, as they grow.
#[derive(Debug, Default)]
pub struct Writer {
    bits: Vec<u8>,
    slots: Vec<(Slot, u32)>,
    mappings: Vec<(u32, Mapping)>,
    addresses: Vec<(Protocol, u16, IpAddr)>,
    quarantine: Vec<Kept>,
    memories: Vec<(u64, PortRange, Duration)>,
    networks: Vec<IpNet>,
}

impl Writer {
    /// The taken ports of the next protocol, in the order of their numbers.
    pub fn taken(&mut self, bits: &Bitmap) {
        bits.write(&mut self.bits);
    }

    /// A lease; says what its mappings call it.
    pub fn lease(&mut self, slot: Slot) -> u32 {
        let id = self.slots.len() as u32;
        self.slots.push((slot, id));
        id
    }

    /// A mapping of a lease.
    pub fn mapping(&mut self, lease: u32, mapping: Mapping) {
        self.mappings.push((lease, mapping));
    }

    /// A taken port that is on one address only.
    pub fn address(&mut self, protocol: Protocol, port: u16, address: IpAddr) {
        self.addresses.push((protocol, port, address));
    }

    /// A range in quarantine.
    pub fn kept(&mut self, kept: Kept) {
        self.quarantine.push(kept);
    }

    /// What somebody had.
    pub fn memory(&mut self, hash: u64, range: PortRange, used: Duration) {
        self.memories.push((hash, range, used));
    }

    /// A network of instances' addresses.
    pub fn network(&mut self, network: IpNet) {
        self.networks.push(network);
    }

    /// Puts it at `path`, whole or not at all; it says everything up to `upto` of `journal`.
    pub fn write(mut self, path: &Path, journal: u64, upto: u64) -> io::Result<()> {
        self.slots.sort_unstable_by_key(|(slot, _)| slot.instance);
        self.memories.sort_unstable_by_key(|(hash, ..)| *hash);
        self.networks.sort_unstable();
        self.networks.dedup();
        let mut places = vec![0; self.slots.len()];
        for (place, (_, id)) in self.slots.iter().enumerate() {
            places[*id as usize] = place as u32;
        }
        let mut tables: [Vec<u8>; TABLES] = Default::default();
        tables[TAKEN] = self.bits;
        for (slot, _) in &self.slots {
            let to = &mut tables[SLOTS];
            for number in [slot.instance, slot.container, slot.place.offset] {
                to.extend(number.to_le_bytes());
            }
            to.extend(slot.place.length.to_le_bytes());
            to.extend(u32::from(slot.held).to_le_bytes());
        }
        let mut finds: Vec<(u64, u32, Option<PortRange>)> = Vec::with_capacity(3 * self.mappings.len());
        for (row, (slot, _)) in self.slots.iter().enumerate().filter(|(_, (slot, _))| slot.container != 0) {
            finds.push((Key::Container(slot.container).hash(), row as u32, None));
        }
        for (row, (id, mapping)) in self.mappings.iter().enumerate() {
            put_mapping(&mut tables[MAPPINGS], places[*id as usize], mapping);
            let addresses = mapping.v4.map(IpAddr::V4).into_iter().chain(mapping.v6.map(IpAddr::V6));
            let keys = addresses.map(Key::Address).chain(Key::pages(mapping.protocol, mapping.host));
            finds.extend(keys.map(|key| (key.hash(), row as u32, Some(mapping.host))));
        }
        finds.sort_unstable_by_key(|(key, row, _)| (*key, *row));
        for (key, row, range) in finds {
            let to = &mut tables[FINDS];
            to.extend(key.to_le_bytes());
            to.extend(row.to_le_bytes());
            match range {
                Some(range) => put_ports(to, range),
                None => to.extend([0; 4]),
            }
        }
        for (protocol, port, address) in self.addresses {
            let to = &mut tables[ADDRESSES];
            to.extend([protocol as u8, family(address)]);
            to.extend(port.to_le_bytes());
            put_address(to, Some(address));
        }
        for kept in self.quarantine {
            let to = &mut tables[QUARANTINE];
            to.extend([kept.protocol as u8, 0]);
            put_ports(to, kept.range);
            to.extend([0; 2]);
            to.extend((kept.until.as_millis() as u64).to_le_bytes());
            to.extend(kept.owner.to_le_bytes());
        }
        for (hash, range, used) in self.memories {
            let to = &mut tables[MEMORIES];
            to.extend(hash.to_le_bytes());
            put_ports(to, range);
            to.extend([0; 4]);
            to.extend((used.as_millis() as u64).to_le_bytes());
        }
        for network in self.networks {
            let to = &mut tables[NETWORKS];
            to.extend([family(network.addr()), network.prefix_len()]);
            put_address(to, Some(network.addr()));
        }
        let counts = tables.iter().zip(WIDTHS).map(|(table, width)| (table.len() / width) as u64);
        let sums = tables.iter().map(|table| checksum(table));
        let mut bytes = Vec::with_capacity(HEADER + tables.iter().map(Vec::len).sum::<usize>());
        for number in [MAGIC, 0, journal, upto].into_iter().chain(counts).chain(sums) {
            bytes.extend(number.to_le_bytes());
        }
        let sum = checksum(&bytes[16..HEADER]);
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        tables.iter().for_each(|table| bytes.extend(table));
        let new = path.with_extension("index-new");
        let mut options = fs::OpenOptions::new();
        let file = options.create(true).truncate(true).write(true).mode(0o600).open(&new);
        let written = file.and_then(|mut file| io::Write::write_all(&mut file, &bytes));
        written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| drop(fs::remove_file(&new)))
    }
}

fn put_mapping(bytes: &mut Vec<u8>, slot: u32, mapping: &Mapping) {
    let has = u8::from(mapping.address.is_some())
        | u8::from(mapping.v4.is_some()) << 1
        | u8::from(mapping.v6.is_some()) << 2;
    bytes.extend(slot.to_le_bytes());
    bytes.extend([mapping.protocol as u8, has]);
    put_ports(bytes, mapping.host);
    bytes.extend(mapping.container.to_le_bytes());
    put_address(bytes, mapping.address);
    bytes.extend(mapping.v4.map_or(0, u32::from).to_le_bytes());
    put_address(bytes, mapping.v6.map(IpAddr::V6));
}

fn put_ports(bytes: &mut Vec<u8>, range: PortRange) {
    bytes.extend(range.first().to_le_bytes());
    bytes.extend(range.last().to_le_bytes());
}

/// As IPv6, with IPv4 mapped into it (RFC 4291 section 2.5.5.2).
fn put_address(bytes: &mut Vec<u8>, address: Option<IpAddr>) {
    let octets = address.map_or([0; 16], octets);
    bytes.extend(u128::from_be_bytes(octets).to_le_bytes());
}

const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}
