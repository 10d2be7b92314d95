//! The types that sets are declared with. The kernel only knows lengths; the types are for `nft list` and people.

/// The type of one field of a set's key or value.
///
/// Numbers and names are those of nft (`include/datatype.h`, v1.0.6): they travel through the kernel untouched so
/// that any reader prints a set as its writer meant it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DataType {
    /// `nf_proto`: ipv4 or ipv6.
    NfProto,
    /// `integer` of 4 bytes in the machine's order: what `numgen` and `jhash` give.
    Integer,
    /// `ipv4_addr`.
    Ipv4Addr,
    /// `ipv6_addr`.
    Ipv6Addr,
    /// `ether_addr`.
    EtherAddr,
    /// `inet_proto`: tcp, udp, sctp, ...
    InetProto,
    /// `inet_service`: a port.
    InetService,
    /// `mark`.
    Mark,
    /// `iface_index`.
    InterfaceIndex,
    /// `ct_state`.
    CtState,
    /// `ct_dir`.
    CtDirection,
    /// `ct_status`.
    CtStatus,
    /// `fib_addrtype`.
    FibAddrType,
    /// `ifname`.
    InterfaceName,
    /// Some other type of nft, with its number and length in bytes: only met in dumps.
    Other(u8, u8),
}

impl DataType {
    /// All that have a name here.
    pub const KNOWN: [Self; 14] = [
        Self::NfProto,
        Self::Integer,
        Self::Ipv4Addr,
        Self::Ipv6Addr,
        Self::EtherAddr,
        Self::InetProto,
        Self::InetService,
        Self::Mark,
        Self::InterfaceIndex,
        Self::CtState,
        Self::CtDirection,
        Self::CtStatus,
        Self::FibAddrType,
        Self::InterfaceName,
    ];
    /// Bits a type's number takes in the number of a concatenation.
    pub const BITS: u32 = 6;

    /// nft's number.
    pub const fn number(self) -> u8 {
        match self {
            Self::NfProto => 2,
            Self::Integer => 4,
            Self::Ipv4Addr => 7,
            Self::Ipv6Addr => 8,
            Self::EtherAddr => 9,
            Self::InetProto => 12,
            Self::InetService => 13,
            Self::Mark => 19,
            Self::InterfaceIndex => 20,
            Self::CtState => 26,
            Self::CtDirection => 27,
            Self::CtStatus => 28,
            Self::FibAddrType => 38,
            Self::InterfaceName => 41,
            Self::Other(number, _) => number,
        }
    }

    /// Length in bytes, without padding.
    pub const fn length(self) -> usize {
        match self {
            Self::NfProto | Self::InetProto | Self::CtDirection => 1,
            Self::InetService => 2,
            Self::EtherAddr => 6,
            Self::Ipv6Addr | Self::InterfaceName => 16,
            Self::Other(_, length) => length as usize,
            _ => 4,
        }
    }

    /// nft's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NfProto => "nf_proto",
            Self::Integer => "integer",
            Self::Ipv4Addr => "ipv4_addr",
            Self::Ipv6Addr => "ipv6_addr",
            Self::EtherAddr => "ether_addr",
            Self::InetProto => "inet_proto",
            Self::InetService => "inet_service",
            Self::Mark => "mark",
            Self::InterfaceIndex => "iface_index",
            Self::CtState => "ct_state",
            Self::CtDirection => "ct_dir",
            Self::CtStatus => "ct_status",
            Self::FibAddrType => "fib_addrtype",
            Self::InterfaceName => "ifname",
            Self::Other(..) => "unknown",
        }
    }

    /// Whether its bytes are in the machine's order (numbers of the kernel's own) instead of the network's.
    pub const fn is_host_endian(self) -> bool {
        matches!(
            self,
            Self::NfProto
                | Self::Integer
                | Self::Mark
                | Self::InterfaceIndex
                | Self::CtState
                | Self::CtDirection
                | Self::CtStatus
                | Self::FibAddrType
                | Self::InterfaceName
        )
    }

    /// The number of a concatenation of these types: 6 bits each, the first in the highest place.
    pub fn concatenated(types: &[Self]) -> u32 {
        types.iter().fold(0, |number, field| number << Self::BITS | u32::from(field.number()))
    }

    /// The types in a concatenation's number. `length` (bytes in all) sizes what has no name here.
    pub fn split(number: u32, length: usize) -> Vec<Self> {
        let mut types = Vec::new();
        let mut rest = number;
        while rest != 0 {
            let one = (rest & ((1 << Self::BITS) - 1)) as u8;
            let known = Self::KNOWN.into_iter().find(|known| known.number() == one);
            types.push(known.unwrap_or(Self::Other(one, 0)));
            rest >>= Self::BITS;
        }
        types.reverse();
        let named: usize = types.iter().map(|field| field.length().next_multiple_of(4)).sum();
        let missing = u8::try_from(length.saturating_sub(named)).unwrap_or(u8::MAX);
        if let [only] = types.as_mut_slice() {
            if only.length() != length {
                *only = Self::Other(only.number(), u8::try_from(length).unwrap_or(u8::MAX));
            }
        } else if let Some(unknown) = types.iter_mut().find(|field| field.length() == 0) {
            *unknown = Self::Other(unknown.number(), missing);
        }
        types
    }
}
