//! One tracked flow, as the kernel writes it and as it wants to be told which one is meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_model::Protocol;

use crate::{
    attribute::{Attribute, Attributes, Writer},
    message::{Message, MessageWriter},
};

/// `IPCTNL_MSG_CT_NEW` of the conntrack subsystem: an entry.
const ENTRY: u16 = 0x0100;

/// The size of `struct nfgenmsg`.
const FIXED: usize = 4;

// enum ctattr_type.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const FILTER: u16 = 25;

// enum ctattr_tuple, ctattr_ip and ctattr_l4proto.
const TUPLE_IP: u16 = 1;
const TUPLE_PROTOCOL: u16 = 2;
const TUPLE_ZONE: u16 = 3;
const V4_SOURCE: u16 = 1;
const V4_DESTINATION: u16 = 2;
const V6_SOURCE: u16 = 3;
const V6_DESTINATION: u16 = 4;
const NUMBER: u16 = 1;
const SOURCE_PORT: u16 = 2;
const DESTINATION_PORT: u16 = 3;

// enum ctattr_filter, and the flags CTA_FILTER_F_CTA_PROTO_* of the kernel's net/netfilter/nf_conntrack_netlink.c.
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

// enum ip_conntrack_status.
const SOURCE_REWRITTEN: u32 = 1 << 4;
const DESTINATION_REWRITTEN: u32 = 1 << 5;

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// `AF_INET` or `AF_INET6`.
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Who sends.
    pub source: SocketAddr,
    /// Where to.
    pub destination: SocketAddr,
}

impl Tuple {
    /// The family of both addresses.
    pub const fn family(&self) -> Family {
        Family::of(self.source.ip())
    }
}

/// A tracked flow of a protocol with ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its protocol.
    pub protocol: Protocol,
    /// The direction of the first packet, before any rewriting: from the client to the published address.
    pub original: Tuple,
    /// The direction of the answers, before any rewriting back: its source is where the packets really go.
    pub reply: Tuple,
    /// `IPS_*` bits.
    pub status: u32,
    /// The mark of the connection; 0 for none.
    pub mark: u32,
    /// How long the entry lives when no packet comes, in seconds; `None` when the kernel does not say.
    pub timeout: Option<u32>,
    /// What tells the entry from a later one with the same addresses.
    pub(super) id: Option<u32>,
    zone: Option<u16>,
    /// The zone of the original direction alone, where the two directions have different ones.
    original_zone: Option<u16>,
}

impl Flow {
    /// Whether a rule has rewritten the destination.
    pub const fn destination_rewritten(&self) -> bool {
        self.status & DESTINATION_REWRITTEN != 0
    }

    /// Whether a rule has rewritten the source.
    pub const fn source_rewritten(&self) -> bool {
        self.status & SOURCE_REWRITTEN != 0
    }

    /// Where the client's packets really go: the source of the answers.
    pub const fn backend(&self) -> SocketAddr {
        self.reply.source
    }
}

/// `struct nfgenmsg`; `None` is all families.
pub(super) fn fixed(family: Option<Family>) -> [u8; FIXED] {
    [family.map_or(0, Family::number), 0, 0, 0]
}

/// What the kernel shall sort out before it answers. A kernel that does not know the filter answers with everything.
pub(super) fn write_filter(writer: &mut MessageWriter, protocol: Protocol, port: Option<u16>) {
    let flags = BY_PROTOCOL | if port.is_some() { BY_DESTINATION_PORT } else { 0 };
    writer.nest(ORIGINAL, |w| {
        w.nest(TUPLE_PROTOCOL, |w| {
            w.u8(NUMBER, protocol.number());
            if let Some(port) = port {
                w.be16(DESTINATION_PORT, port);
            }
        });
    });
    writer.nest(FILTER, |w| {
        w.u32(FILTER_ORIGINAL, flags);
        w.u32(FILTER_REPLY, 0);
    });
}

/// Says which entry is meant. It always has a tuple: without one the kernel would delete all entries.
pub(super) fn write_key(writer: &mut MessageWriter, flow: &Flow) {
    writer.raw(&fixed(Some(flow.original.family())));
    writer.nest(ORIGINAL, |w| {
        w.nest(TUPLE_IP, |w| write_addresses(w, &flow.original));
        w.nest(TUPLE_PROTOCOL, |w| {
            w.u8(NUMBER, flow.protocol.number());
            w.be16(SOURCE_PORT, flow.original.source.port());
            w.be16(DESTINATION_PORT, flow.original.destination.port());
        });
        if let Some(zone) = flow.original_zone {
            w.be16(TUPLE_ZONE, zone);
        }
    });
    if let Some(zone) = flow.zone {
        writer.be16(ZONE, zone);
    }
    if let Some(id) = flow.id {
        writer.be32(ID, id);
    }
}

fn write_addresses(writer: &mut Writer, tuple: &Tuple) {
    let (source, destination) = match tuple.family() {
        Family::V4 => (V4_SOURCE, V4_DESTINATION),
        Family::V6 => (V6_SOURCE, V6_DESTINATION),
    };
    for (kind, address) in [(source, tuple.source.ip()), (destination, tuple.destination.ip())] {
        match address {
            IpAddr::V4(address) => writer.bytes(kind, &address.octets()),
            IpAddr::V6(address) => writer.bytes(kind, &address.octets()),
        }
    }
}

/// Reads an entry; `None` for one of a protocol without ports.
pub(super) fn parse(message: &Message<'_>) -> Option<Flow> {
    if message.kind != ENTRY {
        return None;
    }
    let attributes = message.attributes(FIXED);
    let (protocol, original) = parse_tuple(&attributes.find(ORIGINAL)?)?;
    let (_, reply) = parse_tuple(&attributes.find(REPLY)?)?;
    let number = |attributes: &Attributes<'_>, kind| attributes.find(kind).and_then(|a| a.be32());
    Some(Flow {
        protocol,
        original,
        reply,
        status: number(&attributes, STATUS).unwrap_or(0),
        mark: number(&attributes, MARK).unwrap_or(0),
        timeout: number(&attributes, TIMEOUT),
        id: number(&attributes, ID),
        zone: attributes.find(ZONE).and_then(|zone| zone.be16()),
        original_zone: attributes.find(ORIGINAL)?.nested().find(TUPLE_ZONE).and_then(|zone| zone.be16()),
    })
}

fn parse_tuple(attribute: &Attribute<'_>) -> Option<(Protocol, Tuple)> {
    let (mut source, mut destination) = (None, None);
    for address in attribute.nested().find(TUPLE_IP)?.nested() {
        let place = match address.kind {
            V4_SOURCE | V6_SOURCE => &mut source,
            V4_DESTINATION | V6_DESTINATION => &mut destination,
            _ => continue,
        };
        *place = match address.kind {
            V4_SOURCE | V4_DESTINATION => address.be32().map(|bits| Ipv4Addr::from_bits(bits).into()),
            _ => <[u8; 16]>::try_from(address.payload).ok().map(|octets| Ipv6Addr::from(octets).into()),
        };
    }
    let layer = attribute.nested().find(TUPLE_PROTOCOL)?.nested();
    let number = layer.find(NUMBER)?.u8()?;
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)?;
    let tuple = Tuple {
        source: SocketAddr::new(source?, layer.find(SOURCE_PORT)?.be16()?),
        destination: SocketAddr::new(destination?, layer.find(DESTINATION_PORT)?.be16()?),
    };
    Some((protocol, tuple))
}
