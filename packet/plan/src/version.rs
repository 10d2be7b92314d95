//! IP versions: most maps and rules exist once for each, since addresses of different length cannot share one.

use std::net::IpAddr;

use portolan_nft::{CtDirection, CtKey, DataType, Expression, Family, Selector, matches};

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// RFC 791.
    V4,
    /// RFC 8200.
    V6,
}

impl Version {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The version of an address.
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// What names of sets and chains end with.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        }
    }

    /// The family that `nat` expressions name, in a table of both.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 => Family::Ip,
            Self::V6 => Family::Ip6,
        }
    }

    /// The type of its addresses in sets.
    pub const fn address(self) -> DataType {
        match self {
            Self::V4 => DataType::Ipv4Addr,
            Self::V6 => DataType::Ipv6Addr,
        }
    }

    /// Bytes of its addresses.
    pub const fn bytes(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }

    /// `ip saddr`.
    pub const fn source(self) -> Selector {
        match self {
            Self::V4 => Selector::IpSource,
            Self::V6 => Selector::Ip6Source,
        }
    }

    /// `ip daddr`.
    pub const fn destination(self) -> Selector {
        match self {
            Self::V4 => Selector::IpDestination,
            Self::V6 => Selector::Ip6Destination,
        }
    }

    /// `ct original ip daddr`: the address that the client used, before it was rewritten.
    pub const fn original_destination(self) -> Selector {
        let key = match self {
            Self::V4 => CtKey::DestinationIpv4,
            Self::V6 => CtKey::DestinationIpv6,
        };
        Selector::CtTuple(key, CtDirection::Original)
    }

    /// `meta nfproto`, without which a rule in a table of both versions would read the wrong bytes.
    pub fn guard(self) -> Vec<Expression> {
        match self {
            Self::V4 => matches::ipv4(),
            Self::V6 => matches::ipv6(),
        }
    }
}
