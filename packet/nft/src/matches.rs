//! The matching half of rules: each gives the expressions of one condition, as nft would for the text beside it.
//!
//! A rule is conditions and then a [`crate::statement`] or verdict:
//! `Rule::new("prerouting").then(matches::destination_is_local()).jump("mapped")`.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    Bitwise, Compare, ComparisonOperator as Is, CtDirection, CtKey, Data, Expression, Lookup, LookupResult,
    Payload, PayloadBase, Range, Register, Selector, load,
};

/// `ct state`'s bits: `NF_CT_STATE_*` of `linux/netfilter/nf_conntrack_common.h`; join them by `|`.
pub mod ct_state {
    /// Belongs to no connection and begins none.
    pub const INVALID: u32 = 1;
    /// Of a connection that was answered.
    pub const ESTABLISHED: u32 = 2;
    /// Begins a connection which another announced, or is an ICMP error about one.
    pub const RELATED: u32 = 4;
    /// Begins a connection.
    pub const NEW: u32 = 8;
    /// Not tracked.
    pub const UNTRACKED: u32 = 64;
}

/// `ct status`'s bits: `IPS_*` of `linux/netfilter/nf_conntrack_common.h`.
pub mod ct_status {
    /// The source was rewritten.
    pub const SNAT: u32 = 1 << 4;
    /// The destination was rewritten.
    pub const DNAT: u32 = 1 << 5;
}

/// `RTN_LOCAL` of `linux/rtnetlink.h`: an address of this machine.
const RTN_LOCAL: u32 = 2;

/// `selector operator value`.
pub fn compare(selector: Selector, operator: Is, value: Data) -> Vec<Expression> {
    let mut expressions = selector.load(Register::R1);
    expressions.push(Expression::Compare(Compare { operator, register: Register::R1, value }));
    expressions
}

/// `selector value`.
pub fn is(selector: Selector, value: Data) -> Vec<Expression> {
    compare(selector, Is::Equal, value)
}

/// `selector != value`.
pub fn is_not(selector: Selector, value: Data) -> Vec<Expression> {
    compare(selector, Is::NotEqual, value)
}

/// `selector & mask != 0`: any of these bits. The form nft gives `ct state new,related`.
pub fn any_bit(selector: Selector, mask: u32) -> Vec<Expression> {
    masked(selector, mask, Is::NotEqual, 0)
}

/// `selector & mask == value`.
pub fn masked_is(selector: Selector, mask: u32, value: u32) -> Vec<Expression> {
    masked(selector, mask, Is::Equal, value)
}

fn masked(selector: Selector, mask: u32, operator: Is, value: u32) -> Vec<Expression> {
    let mut expressions = selector.load(Register::R1);
    expressions.push(and(Data::new().number(mask)));
    expressions.push(Expression::Compare(Compare {
        operator,
        register: Register::R1,
        value: Data::new().number(value),
    }));
    expressions
}

fn and(mask: Data) -> Expression {
    let xor = Data::new().field(&vec![0; mask.as_bytes().len()]);
    Expression::Bitwise(Bitwise { from: Register::R1, to: Register::R1, mask, xor })
}

/// `meta nfproto ipv4`: what nft adds by itself before anything of IPv4 in the inet family.
pub fn ipv4() -> Vec<Expression> {
    is(Selector::NfProto, Data::new().field(&[2]))
}

/// `meta nfproto ipv6`.
pub fn ipv6() -> Vec<Expression> {
    is(Selector::NfProto, Data::new().field(&[10]))
}

/// `meta nfproto` of the address's family.
pub fn family_of(address: IpAddr) -> Vec<Expression> {
    if address.is_ipv4() { ipv4() } else { ipv6() }
}

/// `meta l4proto P`: 6 TCP, 17 UDP, 132 SCTP.
pub fn protocol(number: u8) -> Vec<Expression> {
    is(Selector::L4Proto, Data::new().protocol(number))
}

/// `th dport N`. After a match on the protocol.
pub fn destination_port(port: u16) -> Vec<Expression> {
    is(Selector::DestinationPort, Data::new().port(port))
}

/// `th dport N-M`, both included.
pub fn destination_port_between(first: u16, last: u16) -> Vec<Expression> {
    between(Selector::DestinationPort, Data::new().port(first), Data::new().port(last))
}

/// `selector first-last`, both included, as two comparisons. The form nft gives.
pub fn between(selector: Selector, first: Data, last: Data) -> Vec<Expression> {
    let mut expressions = selector.load(Register::R1);
    for (operator, value) in [(Is::GreaterOrEqual, first), (Is::LessOrEqual, last)] {
        expressions.push(Expression::Compare(Compare { operator, register: Register::R1, value }));
    }
    expressions
}

/// `selector != first-last`.
pub fn not_between(selector: Selector, first: Data, last: Data) -> Vec<Expression> {
    let mut expressions = selector.load(Register::R1);
    expressions.push(Expression::Range(Range { invert: true, register: Register::R1, first, last }));
    expressions
}

/// `fib daddr type local`: to an address of this machine.
pub fn destination_is_local() -> Vec<Expression> {
    is(Selector::DestinationType, Data::new().number(RTN_LOCAL))
}

/// `fib daddr type != local`: to somewhere else.
pub fn destination_is_not_local() -> Vec<Expression> {
    is_not(Selector::DestinationType, Data::new().number(RTN_LOCAL))
}

/// `fib saddr type local`: from an address of this machine.
pub fn source_is_local() -> Vec<Expression> {
    is(Selector::SourceType, Data::new().number(RTN_LOCAL))
}

/// `ct state a,b`: any of [`ct_state`]'s bits.
pub fn ct_state_any(bits: u32) -> Vec<Expression> {
    any_bit(Selector::CtState, bits)
}

/// `ct status a`: any of [`ct_status`]'s bits.
pub fn ct_status_any(bits: u32) -> Vec<Expression> {
    any_bit(Selector::CtStatus, bits)
}

/// `ct direction original` or `reply`.
pub fn ct_direction(direction: CtDirection) -> Vec<Expression> {
    is(Selector::CtDirection, Data::new().field(&[direction as u8]))
}

/// `ct original proto-dst N`: the port the client asked for, before any rewriting.
pub fn ct_original_port(port: u16) -> Vec<Expression> {
    let selector = Selector::CtTuple(CtKey::DestinationPort, CtDirection::Original);
    is(selector, Data::new().port(port))
}

/// `iifname "NAME"`; with a trailing `*` all interfaces that begin so.
pub fn input_interface(name: &str) -> Vec<Expression> {
    is(Selector::InputInterface, interface(name))
}

/// `oifname "NAME"`; with a trailing `*` all interfaces that begin so.
pub fn output_interface(name: &str) -> Vec<Expression> {
    is(Selector::OutputInterface, interface(name))
}

/// `iifname != "NAME"`.
pub fn input_interface_is_not(name: &str) -> Vec<Expression> {
    is_not(Selector::InputInterface, interface(name))
}

/// `oifname != "NAME"`.
pub fn output_interface_is_not(name: &str) -> Vec<Expression> {
    is_not(Selector::OutputInterface, interface(name))
}

/// A name as all its 16 bytes, a prefix as only the bytes that matter.
fn interface(name: &str) -> Data {
    match name.strip_suffix('*') {
        Some(prefix) => Data::new().field(prefix.as_bytes()),
        None => Data::new().interface(name),
    }
}

/// `ip saddr NET` or `ip6 saddr NET`, the family's guard included.
pub fn source_in(net: impl Into<IpNet>) -> Vec<Expression> {
    let net = net.into();
    network(net, if net.addr().is_ipv4() { 12 } else { 8 }, Is::Equal)
}

/// `ip daddr NET` or `ip6 daddr NET`, the family's guard included.
pub fn destination_in(net: impl Into<IpNet>) -> Vec<Expression> {
    let net = net.into();
    network(net, if net.addr().is_ipv4() { 16 } else { 24 }, Is::Equal)
}

/// `ip saddr != NET` or `ip6 saddr != NET`. Packets of the other family do not match.
pub fn source_not_in(net: impl Into<IpNet>) -> Vec<Expression> {
    let net = net.into();
    network(net, if net.addr().is_ipv4() { 12 } else { 8 }, Is::NotEqual)
}

/// `ip daddr != NET` or `ip6 daddr != NET`. Packets of the other family do not match.
pub fn destination_not_in(net: impl Into<IpNet>) -> Vec<Expression> {
    let net = net.into();
    network(net, if net.addr().is_ipv4() { 16 } else { 24 }, Is::NotEqual)
}

/// Whole bytes of prefix are compared as they are, other prefixes through a mask: as nft does.
fn network(net: IpNet, offset: u32, operator: Is) -> Vec<Expression> {
    let mut expressions = family_of(net.addr());
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let (network, mask) = (octets(net.network()), octets(net.netmask()));
    let prefix = usize::from(net.prefix_len());
    let whole_bytes = prefix > 0 && prefix.is_multiple_of(8);
    let length = if whole_bytes { prefix / 8 } else { network.len() };
    expressions.push(Expression::Payload(Payload {
        base: PayloadBase::Network,
        offset,
        length: length as u32,
        to: Register::R1,
    }));
    if !whole_bytes {
        expressions.push(and(Data::new().field(&mask)));
    }
    let value = Data::new().field(&network[..length]);
    expressions.push(Expression::Compare(Compare { operator, register: Register::R1, value }));
    expressions
}

/// `a . b . c @set`.
pub fn in_set(selectors: &[Selector], set: impl Into<String>) -> Vec<Expression> {
    lookup(selectors, set, LookupResult::Found)
}

/// `a . b . c != @set`.
pub fn not_in_set(selectors: &[Selector], set: impl Into<String>) -> Vec<Expression> {
    lookup(selectors, set, LookupResult::NotFound)
}

pub(crate) fn lookup(
    selectors: &[Selector],
    set: impl Into<String>,
    result: LookupResult,
) -> Vec<Expression> {
    let mut expressions = load(selectors, Register::R1);
    expressions.push(Expression::Lookup(Lookup { set: set.into(), key: Register::R1, result }));
    expressions
}
