//! Tables and the families of packets they see. A table holds chains ([`crate::Chain`]) and sets ([`crate::Set`]).

use std::fmt;

/// Which packets a table sees. The numbers are `NFPROTO_*` of `linux/netfilter.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// IPv4 only.
    Ip = 2,
    /// ARP.
    Arp = 3,
    /// What a device receives or sends, before any protocol.
    Netdev = 5,
    /// What crosses a bridge.
    Bridge = 7,
    /// IPv6 only.
    Ip6 = 10,
}

impl Family {
    /// All that the kernel knows.
    pub const ALL: [Self; 6] = [Self::Inet, Self::Ip, Self::Arp, Self::Netdev, Self::Bridge, Self::Ip6];

    /// The kernel's number (`NFPROTO_*`).
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The family with this number, `None` for one that came with a newer kernel.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.number() == number)
    }

    /// The word nft uses: `inet`, `ip`, `ip6`, `arp`, `bridge`, `netdev`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Bridge => "bridge",
            Self::Ip6 => "ip6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A table: the unit of ownership. Whoever made it writes all of it; nobody writes another's.
///
/// Two tables are the same when family and name are; see [`Table::is`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Table {
    /// Which packets its chains see.
    pub family: Family,
    /// Unique within the family, at most 255 bytes.
    pub name: String,
    /// Switched off: its base chains are not attached to their hooks.
    pub dormant: bool,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
}

impl Table {
    /// A table that is active and has no comment.
    pub fn new(family: Family, name: impl Into<String>) -> Self {
        Self { family, name: name.into(), dormant: false, comment: None }
    }

    /// With this comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Whether both name the same table of the kernel.
    pub fn is(&self, other: &Self) -> bool {
        self.family == other.family && self.name == other.name
    }
}

impl fmt::Display for Table {
    /// `inet portolan`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family, self.name)
    }
}
