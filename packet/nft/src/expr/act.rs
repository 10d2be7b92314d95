//! Expressions that count, bound, tell and refuse.

/// Packets and bytes that came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// How many.
    pub packets: u64,
    /// How many, network headers included.
    pub bytes: u64,
}

/// What a rate limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum LimitUnit {
    /// Packets.
    Packets = 0,
    /// Bytes.
    Bytes = 1,
}

/// On with the rule up to a rate, or over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    /// How many in each period.
    pub rate: u64,
    /// The period in seconds: 1, 60, 3600, 86400, 604800.
    pub period: u64,
    /// How many at once; nft's default is 5 packets, or 5 for bytes over the rate.
    pub burst: u32,
    /// What is counted.
    pub unit: LimitUnit,
    /// `true`: on only over the rate.
    pub over: bool,
}

/// On with the rule up to an amount, or over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quota {
    /// How much.
    pub bytes: u64,
    /// How much of it is gone.
    pub consumed: u64,
    /// `true`: on only over it.
    pub over: bool,
}

/// On with the rule up to a number of connections, or over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionLimit {
    /// How many.
    pub count: u32,
    /// `true`: on only over it.
    pub over: bool,
}

/// Who gets the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogTarget {
    /// The kernel's log, with a syslog level from 0 (emergency) to 7 (debug).
    Kernel {
        /// 4 is a warning, nft's default.
        level: u32,
    },
    /// Listeners of an nflog group.
    Group {
        /// Which.
        group: u16,
        /// Bytes of the packet to pass on; 0 means all.
        snap_length: u32,
    },
}

/// A line in the log or to a listener.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Log {
    /// Put before the line; at most 127 bytes. Empty means none.
    pub prefix: String,
    /// Who gets it.
    pub target: LogTarget,
}

/// Thrown away, and the sender is told. The packet's own kind decides what ICMPX codes become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reject {
    /// `icmp`/`icmpv6` destination unreachable with this code of the packet's own family.
    Icmp(u8),
    /// A TCP reset. Only after a match on TCP.
    TcpReset,
    /// `icmpx`: 0 no route, 1 port unreachable, 2 host unreachable, 3 administratively prohibited.
    Icmpx(u8),
}

impl Reject {
    /// "Nobody listens here": what a closed UDP port answers; a TCP client sees "connection refused".
    pub const PORT_UNREACHABLE: Self = Self::Icmpx(1);
    /// "Not allowed".
    pub const ADMIN_PROHIBITED: Self = Self::Icmpx(3);
}

/// An expression of a foreign table that this crate has no type for, with its attributes as they came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unknown {
    /// The kernel's name of it.
    pub name: String,
    /// `NFTA_EXPR_DATA`'s content.
    pub attributes: Vec<u8>,
}
