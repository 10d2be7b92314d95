//! Expressions that rewrite addresses and ports. Only in chains of kind nat.

use crate::{Family, Register};

/// Source or destination: `enum nft_nat_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum NatKind {
    /// Rewrites where packets come from (postrouting, input).
    Source = 0,
    /// Rewrites where packets go (prerouting, output).
    Destination = 1,
}

/// How the port is chosen: `NF_NAT_RANGE_*`. Which registers are given says the rest of those bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatFlags {
    /// `random`: mixed with a hash of the flow.
    pub random: bool,
    /// `fully-random`: by a random number.
    pub fully_random: bool,
    /// `persistent`: one client gets the same address for all its connections.
    pub persistent: bool,
    /// Addresses are mapped prefix to prefix.
    pub prefix: bool,
}

impl NatFlags {
    /// No flag.
    pub const NONE: Self = Self { random: false, fully_random: false, persistent: false, prefix: false };
    /// `fully-random` alone.
    pub const FULLY_RANDOM: Self = Self { fully_random: true, ..Self::NONE };
    /// `random` alone.
    pub const RANDOM: Self = Self { random: true, ..Self::NONE };
}

/// Another source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Nat {
    /// Which of the two.
    pub kind: NatKind,
    /// `Ip` or `Ip6`: packets of the other are left alone.
    pub family: Family,
    /// Where the address is, or the first of a range.
    pub address: Option<Register>,
    /// Where the range's last address is.
    pub address_last: Option<Register>,
    /// Where the port is, or the first of a range.
    pub port: Option<Register>,
    /// Where the range's last port is.
    pub port_last: Option<Register>,
    /// How to choose.
    pub flags: NatFlags,
}

/// The outgoing interface's address as source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Masquerade {
    /// Where the port is, or the first of a range.
    pub port: Option<Register>,
    /// Where the range's last port is.
    pub port_last: Option<Register>,
    /// How to choose.
    pub flags: NatFlags,
}

/// The incoming interface's address (prerouting) or loopback (output) as destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// Where the port is, or the first of a range.
    pub port: Option<Register>,
    /// Where the range's last port is.
    pub port_last: Option<Register>,
    /// How to choose.
    pub flags: NatFlags,
}
