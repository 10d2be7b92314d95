//! The acting half of rules: rewriting, marks, limits, logs. Conditions come from [`crate::matches`].

use std::{net::SocketAddr, time::Duration};

use crate::{
    Bitwise, ConnectionLimit, Ct, CtKey, Data, Dynset, DynsetOperation, Expression, Family, Limit, LimitUnit,
    Log, LogTarget, LookupResult, Masquerade, MetaKey, Nat, NatFlags, NatKind, Redirect, Register, Reject,
    Selector, load, matches,
};

/// `KEY vmap @map`: the verdict the key leads to; on with the next rule when it is not in the map.
pub fn verdict_map(key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    matches::lookup(key, map, LookupResult::Verdict)
}

/// `dnat ip addr . port to KEY map @map`, the map's value being an address and a port. `family`: `Ip` or `Ip6`.
pub fn dnat_map(family: Family, key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    nat_map(NatKind::Destination, family, key, map, true)
}

/// `dnat ip to KEY map @map`, the map's value being an address; the port stays as it is.
pub fn dnat_address_map(family: Family, key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    nat_map(NatKind::Destination, family, key, map, false)
}

/// `snat ip addr . port to KEY map @map`, the map's value being an address and a port.
pub fn snat_map(family: Family, key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    nat_map(NatKind::Source, family, key, map, true)
}

/// `snat ip to KEY map @map`, the map's value being an address.
pub fn snat_address_map(family: Family, key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    nat_map(NatKind::Source, family, key, map, false)
}

fn nat_map(
    kind: NatKind,
    family: Family,
    key: &[Selector],
    map: impl Into<String>,
    with_port: bool,
) -> Vec<Expression> {
    let mut expressions = matches::lookup(key, map, LookupResult::Data(Register::R1));
    let address_length = if family == Family::Ip6 { 16 } else { 4 };
    let port = with_port.then(|| Register::R1.after(address_length));
    expressions.push(Expression::Nat(Nat {
        kind,
        family,
        address: Some(Register::R1),
        address_last: None,
        port,
        port_last: None,
        flags: NatFlags::NONE,
    }));
    expressions
}

/// `dnat ip to ADDRESS:PORT`; with port 0 the port stays as it is.
pub fn dnat_to(target: SocketAddr) -> Vec<Expression> {
    nat_to(NatKind::Destination, target)
}

/// `snat ip to ADDRESS:PORT`; with port 0 the kernel keeps the port if it can.
pub fn snat_to(source: SocketAddr) -> Vec<Expression> {
    nat_to(NatKind::Source, source)
}

fn nat_to(kind: NatKind, target: SocketAddr) -> Vec<Expression> {
    let mut expressions = vec![Expression::Immediate { to: Register::R1, data: target.ip().into() }];
    let port = (target.port() != 0).then_some(Register::R2);
    if let Some(to) = port {
        expressions.push(Expression::Immediate { to, data: Data::new().port(target.port()) });
    }
    expressions.push(Expression::Nat(Nat {
        kind,
        family: if target.is_ipv4() { Family::Ip } else { Family::Ip6 },
        address: Some(Register::R1),
        address_last: None,
        port,
        port_last: None,
        flags: NatFlags::NONE,
    }));
    expressions
}

/// `masquerade`, with flags.
pub fn masquerade(flags: NatFlags) -> Expression {
    Expression::Masquerade(Masquerade { port: None, port_last: None, flags })
}

/// `masquerade to :FIRST-LAST`: source ports only from there.
pub fn masquerade_to(first: u16, last: u16, flags: NatFlags) -> Vec<Expression> {
    let (one, two) = (Register::R1, Register::R2);
    let mut expressions = vec![Expression::Immediate { to: one, data: Data::new().port(first) }];
    let port_last = (last != first).then_some(two);
    if port_last.is_some() {
        expressions.push(Expression::Immediate { to: two, data: Data::new().port(last) });
    }
    expressions.push(Expression::Masquerade(Masquerade { port: Some(one), port_last, flags }));
    expressions
}

/// `masquerade to : KEY map @map`, the map's value being a port; on with the next rule when it is not in the map.
pub fn masquerade_map(key: &[Selector], map: impl Into<String>) -> Vec<Expression> {
    let mut expressions = matches::lookup(key, map, LookupResult::Data(Register::R1));
    expressions.push(Expression::Masquerade(Masquerade {
        port: Some(Register::R1),
        port_last: None,
        flags: NatFlags::NONE,
    }));
    expressions
}

/// `redirect to :PORT`.
pub fn redirect_to(port: u16) -> Vec<Expression> {
    let data = Data::new().port(port);
    let redirect = Redirect { port: Some(Register::R1), ..Redirect::default() };
    vec![Expression::Immediate { to: Register::R1, data }, Expression::Redirect(redirect)]
}

/// `meta mark set N`.
pub fn mark_set(mark: u32) -> Vec<Expression> {
    let data = Data::new().number(mark);
    vec![
        Expression::Immediate { to: Register::R1, data },
        Expression::MetaSet { key: MetaKey::Mark, from: Register::R1 },
    ]
}

/// `meta mark set meta mark or N`.
pub fn mark_or(bits: u32) -> Vec<Expression> {
    mark_bitwise(!bits, bits)
}

/// `meta mark set meta mark xor N`.
pub fn mark_xor(bits: u32) -> Vec<Expression> {
    mark_bitwise(u32::MAX, bits)
}

/// `meta mark set meta mark and N`.
pub fn mark_and(bits: u32) -> Vec<Expression> {
    mark_bitwise(bits, 0)
}

fn mark_bitwise(mask: u32, xor: u32) -> Vec<Expression> {
    let (mask, xor) = (Data::new().number(mask), Data::new().number(xor));
    let mut expressions = Selector::Mark.load(Register::R1);
    expressions.push(Expression::Bitwise(Bitwise { from: Register::R1, to: Register::R1, mask, xor }));
    expressions.push(Expression::MetaSet { key: MetaKey::Mark, from: Register::R1 });
    expressions
}

/// `ct mark set meta mark`: the connection remembers the packet's mark.
pub fn ct_mark_from_packet() -> Vec<Expression> {
    let mut expressions = Selector::Mark.load(Register::R1);
    expressions.push(Expression::CtSet { key: CtKey::Mark, from: Register::R1 });
    expressions
}

/// `meta mark set ct mark`: the packet gets the connection's mark.
pub fn mark_from_ct() -> Vec<Expression> {
    vec![
        Expression::Ct(Ct { key: CtKey::Mark, direction: None, to: Register::R1 }),
        Expression::MetaSet { key: MetaKey::Mark, from: Register::R1 },
    ]
}

/// `update @set { KEY timeout T }`: adds the key, or begins its timeout anew.
pub fn update_set(set: impl Into<String>, key: &[Selector], timeout: Option<Duration>) -> Vec<Expression> {
    dynset(DynsetOperation::Update, set, key, timeout, Vec::new())
}

/// `add @set { KEY timeout T STATEFUL }`: adds the key; `each` runs for each element with state of its own.
pub fn add_to_set(
    set: impl Into<String>,
    key: &[Selector],
    timeout: Option<Duration>,
    each: Vec<Expression>,
) -> Vec<Expression> {
    dynset(DynsetOperation::Add, set, key, timeout, each)
}

fn dynset(
    operation: DynsetOperation,
    set: impl Into<String>,
    key: &[Selector],
    timeout: Option<Duration>,
    expressions: Vec<Expression>,
) -> Vec<Expression> {
    let mut all = load(key, Register::R1);
    let dynset = Dynset { operation, set: set.into(), key: Register::R1, value: None, timeout, expressions };
    all.push(Expression::Dynset(dynset));
    all
}

/// `limit rate N/second burst B packets`; nft's own default burst is 5.
pub fn limit_per_second(rate: u64, burst: u32) -> Expression {
    Expression::Limit(Limit { rate, period: 1, burst, unit: LimitUnit::Packets, over: false })
}

/// `ct count over N`.
pub fn connections_over(count: u32) -> Expression {
    Expression::ConnectionLimit(ConnectionLimit { count, over: true })
}

/// `log prefix "TEXT" level warn`.
pub fn log(prefix: impl Into<String>) -> Expression {
    Expression::Log(Log { prefix: prefix.into(), target: LogTarget::Kernel { level: 4 } })
}

/// `reject with icmpx type port-unreachable`.
pub fn reject() -> Expression {
    Expression::Reject(Reject::PORT_UNREACHABLE)
}

/// `reject with tcp reset`. After a match on TCP.
pub fn reject_with_reset() -> Expression {
    Expression::Reject(Reject::TcpReset)
}

/// `notrack`.
pub fn notrack() -> Expression {
    Expression::Notrack
}
