//! What a rule looks at, in nft's words, and how it gets into registers: one selector, or several side by side.

use std::fmt;

use crate::{
    Ct, CtDirection, CtKey, DataType, Expression, Fib, FibFlags, FibResult, Hash, HashKind, MetaKey, Numgen,
    NumgenKind, Payload, PayloadBase, Register,
};

/// Something a rule can look at. In the inet family, guard those of one IP version by
/// [`crate::matches::ipv4`] or [`crate::matches::ipv6`], as nft does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Selector {
    /// `ip saddr`.
    IpSource,
    /// `ip daddr`.
    IpDestination,
    /// `ip6 saddr`.
    Ip6Source,
    /// `ip6 daddr`.
    Ip6Destination,
    /// `meta l4proto`.
    L4Proto,
    /// `meta nfproto`.
    NfProto,
    /// `th sport`.
    SourcePort,
    /// `th dport`.
    DestinationPort,
    /// `meta mark`.
    Mark,
    /// `iifname`.
    InputInterface,
    /// `oifname`.
    OutputInterface,
    /// `ct mark`.
    CtMark,
    /// `ct state`.
    CtState,
    /// `ct status`.
    CtStatus,
    /// `ct direction`.
    CtDirection,
    /// `ct original ip daddr` and the like: an IPv4 or IPv6 address, or a port, of one direction.
    CtTuple(CtKey, CtDirection),
    /// `fib daddr type`.
    DestinationType,
    /// `fib saddr type`.
    SourceType,
    /// `numgen random mod N`.
    NumgenRandom(u32),
    /// `numgen inc mod N`.
    NumgenIncremental(u32),
    /// `jhash ip saddr mod N`, with a seed that lasts.
    HashIpSource(u32, Option<u32>),
    /// `jhash ip6 saddr mod N`, with a seed that lasts.
    HashIp6Source(u32, Option<u32>),
    /// `symhash mod N`.
    SymmetricHash(u32),
}

impl Selector {
    /// Those without a parameter.
    pub(crate) const PLAIN: [Self; 17] = [
        Self::IpSource,
        Self::IpDestination,
        Self::Ip6Source,
        Self::Ip6Destination,
        Self::L4Proto,
        Self::NfProto,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Mark,
        Self::InputInterface,
        Self::OutputInterface,
        Self::CtMark,
        Self::CtState,
        Self::CtStatus,
        Self::CtDirection,
        Self::DestinationType,
        Self::SourceType,
    ];

    /// The type of what it gives.
    pub const fn data_type(&self) -> DataType {
        match self {
            Self::IpSource | Self::IpDestination => DataType::Ipv4Addr,
            Self::Ip6Source | Self::Ip6Destination => DataType::Ipv6Addr,
            Self::L4Proto => DataType::InetProto,
            Self::NfProto => DataType::NfProto,
            Self::SourcePort | Self::DestinationPort => DataType::InetService,
            Self::Mark | Self::CtMark => DataType::Mark,
            Self::InputInterface | Self::OutputInterface => DataType::InterfaceName,
            Self::CtState => DataType::CtState,
            Self::CtStatus => DataType::CtStatus,
            Self::CtDirection => DataType::CtDirection,
            Self::CtTuple(key, _) => match key {
                CtKey::SourceIpv4 | CtKey::DestinationIpv4 => DataType::Ipv4Addr,
                CtKey::SourceIpv6 | CtKey::DestinationIpv6 => DataType::Ipv6Addr,
                CtKey::Protocol => DataType::InetProto,
                _ => DataType::InetService,
            },
            Self::DestinationType | Self::SourceType => DataType::FibAddrType,
            Self::NumgenRandom(_)
            | Self::NumgenIncremental(_)
            | Self::HashIpSource(..)
            | Self::HashIp6Source(..)
            | Self::SymmetricHash(_) => DataType::Integer,
        }
    }

    /// The expressions that put it into `to`.
    pub fn load(self, to: Register) -> Vec<Expression> {
        let network = |offset, length| Payload { base: PayloadBase::Network, offset, length, to };
        let transport = |offset| Payload { base: PayloadBase::Transport, offset, length: 2, to };
        let meta = |key| Expression::Meta { key, to };
        let ct = |key, direction| Expression::Ct(Ct { key, direction, to });
        let fib = |flags| Expression::Fib(Fib { flags, result: FibResult::AddressType, to });
        let numgen = |kind, modulus| Expression::Numgen(Numgen { kind, modulus, offset: 0, to });
        vec![match self {
            // Offsets: RFC 791 section 3.1, RFC 8200 section 3; ports are the first words of TCP, UDP and SCTP.
            Self::IpSource => Expression::Payload(network(12, 4)),
            Self::IpDestination => Expression::Payload(network(16, 4)),
            Self::Ip6Source => Expression::Payload(network(8, 16)),
            Self::Ip6Destination => Expression::Payload(network(24, 16)),
            Self::SourcePort => Expression::Payload(transport(0)),
            Self::DestinationPort => Expression::Payload(transport(2)),
            Self::L4Proto => meta(MetaKey::L4Proto),
            Self::NfProto => meta(MetaKey::NfProto),
            Self::Mark => meta(MetaKey::Mark),
            Self::InputInterface => meta(MetaKey::InputInterfaceName),
            Self::OutputInterface => meta(MetaKey::OutputInterfaceName),
            Self::CtMark => ct(CtKey::Mark, None),
            Self::CtState => ct(CtKey::State, None),
            Self::CtStatus => ct(CtKey::Status, None),
            Self::CtDirection => ct(CtKey::Direction, None),
            Self::CtTuple(key, direction) => ct(key, Some(direction)),
            Self::DestinationType => fib(FibFlags::DADDR),
            Self::SourceType => fib(FibFlags::SADDR),
            Self::NumgenRandom(modulus) => numgen(NumgenKind::Random, modulus),
            Self::NumgenIncremental(modulus) => numgen(NumgenKind::Incremental, modulus),
            Self::HashIpSource(modulus, seed) => return jenkins(Self::IpSource, modulus, seed, to),
            Self::HashIp6Source(modulus, seed) => return jenkins(Self::Ip6Source, modulus, seed, to),
            Self::SymmetricHash(modulus) => {
                Expression::Hash(Hash { kind: HashKind::Symmetric, modulus, offset: 0, to })
            }
        }]
    }
}

/// Loads what is hashed behind the result's place, as nft does, then hashes.
fn jenkins(what: Selector, modulus: u32, seed: Option<u32>, to: Register) -> Vec<Expression> {
    // nft reserves the result's word and takes the next 16-byte block: linearize in src/netlink_linearize.c, 1.0.6.
    let from = Register::word(
        to.first_word().next_multiple_of(4) + if to.first_word().is_multiple_of(4) { 4 } else { 0 },
    );
    let length = what.data_type().length() as u32;
    let mut expressions = what.load(from);
    expressions.push(Expression::Hash(Hash {
        kind: HashKind::Jenkins { from, length, seed },
        modulus,
        offset: 0,
        to,
    }));
    expressions
}

/// Loads these side by side from `to` on, as the key of a concatenated set.
pub fn load(selectors: &[Selector], to: Register) -> Vec<Expression> {
    let mut at = to;
    let mut expressions = Vec::with_capacity(selectors.len());
    for selector in selectors {
        expressions.extend(selector.load(at));
        at = at.after(selector.data_type().length());
    }
    expressions
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = |f: &mut fmt::Formatter<'_>, seed: &Option<u32>| match seed {
            Some(seed) => write!(f, " seed {seed:#x}"),
            None => Ok(()),
        };
        match self {
            Self::IpSource => f.write_str("ip saddr"),
            Self::IpDestination => f.write_str("ip daddr"),
            Self::Ip6Source => f.write_str("ip6 saddr"),
            Self::Ip6Destination => f.write_str("ip6 daddr"),
            Self::L4Proto => f.write_str("meta l4proto"),
            Self::NfProto => f.write_str("meta nfproto"),
            Self::SourcePort => f.write_str("th sport"),
            Self::DestinationPort => f.write_str("th dport"),
            Self::Mark => f.write_str("meta mark"),
            Self::InputInterface => f.write_str("iifname"),
            Self::OutputInterface => f.write_str("oifname"),
            Self::CtMark => f.write_str("ct mark"),
            Self::CtState => f.write_str("ct state"),
            Self::CtStatus => f.write_str("ct status"),
            Self::CtDirection => f.write_str("ct direction"),
            Self::CtTuple(key, direction) => {
                let way = if *direction == CtDirection::Original { "original" } else { "reply" };
                let what = match key {
                    CtKey::SourceIpv4 => "ip saddr",
                    CtKey::DestinationIpv4 => "ip daddr",
                    CtKey::SourceIpv6 => "ip6 saddr",
                    CtKey::DestinationIpv6 => "ip6 daddr",
                    CtKey::SourcePort => "proto-src",
                    CtKey::DestinationPort => "proto-dst",
                    other => other.as_str(),
                };
                write!(f, "ct {way} {what}")
            }
            Self::DestinationType => f.write_str("fib daddr type"),
            Self::SourceType => f.write_str("fib saddr type"),
            Self::NumgenRandom(modulus) => write!(f, "numgen random mod {modulus}"),
            Self::NumgenIncremental(modulus) => write!(f, "numgen inc mod {modulus}"),
            Self::HashIpSource(modulus, with) => {
                write!(f, "jhash ip saddr mod {modulus}")?;
                seed(f, with)
            }
            Self::HashIp6Source(modulus, with) => {
                write!(f, "jhash ip6 saddr mod {modulus}")?;
                seed(f, with)
            }
            Self::SymmetricHash(modulus) => write!(f, "symhash mod {modulus}"),
        }
    }
}
