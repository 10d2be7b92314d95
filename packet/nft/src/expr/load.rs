//! Expressions that read: the packet, its properties, its connection, the routing table.

use std::ops::BitOr;

use crate::Register;

/// Where a payload's offset counts from: `enum nft_payload_bases`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum PayloadBase {
    /// The link layer's header.
    Link = 0,
    /// The IP header.
    Network = 1,
    /// The header above IP: TCP, UDP, SCTP.
    Transport = 2,
    /// What comes after that.
    Inner = 3,
}

impl PayloadBase {
    /// By the kernel's number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Link, Self::Network, Self::Transport, Self::Inner]
            .into_iter()
            .find(|base| *base as u32 == number)
    }
}

/// Bytes of the packet into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    /// Where the offset counts from.
    pub base: PayloadBase,
    /// In bytes.
    pub offset: u32,
    /// In bytes.
    pub length: u32,
    /// Where to.
    pub to: Register,
}

macro_rules! keys {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $variant:ident = $number:literal $word:literal,)* }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$inner])* $variant = $number,)* }

        impl $name {
            /// By the kernel's number; `None` for those this project has no use for.
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The word `nft --debug=netlink` uses.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

keys! {
    /// Properties of a packet: `enum nft_meta_keys`.
    MetaKey {
        /// Length in bytes.
        Length = 0 "len",
        /// Ethertype.
        Protocol = 1 "protocol",
        /// The mark.
        Mark = 3 "mark",
        /// Index of the interface it came in by.
        InputInterface = 4 "iif",
        /// Index of the interface it goes out by.
        OutputInterface = 5 "oif",
        /// Name of the interface it came in by, 16 bytes.
        InputInterfaceName = 6 "iifname",
        /// Name of the interface it goes out by, 16 bytes.
        OutputInterfaceName = 7 "oifname",
        /// User who owns the local socket.
        SocketUser = 10 "skuid",
        /// Group that owns the local socket.
        SocketGroup = 11 "skgid",
        /// Whether nftrace follows it.
        Trace = 12 "nftrace",
        /// 2 for IPv4, 10 for IPv6.
        NfProto = 15 "nfproto",
        /// Protocol above IP, extension headers skipped.
        L4Proto = 16 "l4proto",
        /// To this host, broadcast, multicast, to others.
        PacketType = 19 "pkttype",
        /// Which processor handles it.
        Cpu = 20 "cpu",
        /// A random number for each packet.
        Random = 24 "prandom",
    }
}

keys! {
    /// Properties of a connection: `enum nft_ct_keys`.
    CtKey {
        /// new, established, related, ...: bits 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
        State = 0 "state",
        /// 0 original, 1 reply.
        Direction = 1 "direction",
        /// `IPS_*` bits: 0x10 source rewritten, 0x20 destination rewritten.
        Status = 2 "status",
        /// The connection's mark.
        Mark = 3 "mark",
        /// Network protocol.
        L3Proto = 7 "l3protocol",
        /// Protocol above IP.
        Protocol = 10 "protocol",
        /// Source port, in the direction given.
        SourcePort = 11 "proto_src",
        /// Destination port, in the direction given.
        DestinationPort = 12 "proto_dst",
        /// Packets so far.
        Packets = 14 "packets",
        /// Bytes so far.
        Bytes = 15 "bytes",
        /// The zone.
        Zone = 17 "zone",
        /// IPv4 source, in the direction given.
        SourceIpv4 = 19 "src_ip",
        /// IPv4 destination, in the direction given.
        DestinationIpv4 = 20 "dst_ip",
        /// IPv6 source, in the direction given.
        SourceIpv6 = 21 "src_ip6",
        /// IPv6 destination, in the direction given.
        DestinationIpv6 = 22 "dst_ip6",
        /// The connection's id.
        Id = 23 "id",
    }
}

/// A direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum CtDirection {
    /// As its first packet went: before any rewriting.
    Original = 0,
    /// As answers go.
    Reply = 1,
}

/// A property of the connection into a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ct {
    /// Which.
    pub key: CtKey,
    /// For addresses and ports: of which direction.
    pub direction: Option<CtDirection>,
    /// Where to.
    pub to: Register,
}

/// What a fib question is asked about: `enum nft_fib_flags`, joined by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibFlags(pub u32);

impl FibFlags {
    /// The source address.
    pub const SADDR: Self = Self(1);
    /// The destination address.
    pub const DADDR: Self = Self(1 << 1);
    /// With the packet's mark.
    pub const MARK: Self = Self(1 << 2);
    /// Restricted to the interface it came in by.
    pub const IIF: Self = Self(1 << 3);
    /// Restricted to the interface it goes out by.
    pub const OIF: Self = Self(1 << 4);
    /// Only whether there is an answer.
    pub const PRESENT: Self = Self(1 << 5);

    /// Whether all of `other`'s bits are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for FibFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What a fib question asks: `enum nft_fib_result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum FibResult {
    /// Index of the outgoing interface.
    OutputInterface = 1,
    /// Its name.
    OutputInterfaceName = 2,
    /// What kind of address: 1 unicast, 2 local, 3 broadcast, 5 multicast (`RTN_*`).
    AddressType = 3,
}

impl FibResult {
    /// By the kernel's number.
    pub fn from_number(number: u32) -> Option<Self> {
        [Self::OutputInterface, Self::OutputInterfaceName, Self::AddressType]
            .into_iter()
            .find(|result| *result as u32 == number)
    }
}

/// A question to the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fib {
    /// About what.
    pub flags: FibFlags,
    /// Which property of the answer.
    pub result: FibResult,
    /// Where to.
    pub to: Register,
}
