//! What rules hold. Attributes in the order in which libnftnl writes them, so that captures can be compared.

use portolan_netlink::attribute::Writer;

use super::{value, verdict};
use crate::{
    Dynset, Expression, Hash, HashKind, Log, LogTarget, Lookup, LookupResult, Nat, NatFlags, Register,
    Reject,
    element::milliseconds,
    wire::{self, attribute as a, nat_flag},
};

/// Writes one expression into an attribute of type `kind`.
pub(super) fn write(to: &mut Writer, kind: u16, expression: &Expression) {
    to.nest(kind, |to| {
        to.str0(a::expr::NAME, name(expression));
        if let Expression::Unknown(unknown) = expression {
            to.nest(a::expr::DATA, |to| to.raw(&unknown.attributes));
        } else {
            to.nest(a::expr::DATA, |to| data(to, expression));
        }
    });
}

/// The kernel's name of the expression's type.
pub(crate) fn name(expression: &Expression) -> &str {
    match expression {
        Expression::Payload(_) => "payload",
        Expression::Meta { .. } | Expression::MetaSet { .. } => "meta",
        Expression::Ct(_) | Expression::CtSet { .. } => "ct",
        Expression::Fib(_) => "fib",
        Expression::Compare(_) => "cmp",
        Expression::Range(_) => "range",
        Expression::Bitwise(_) => "bitwise",
        Expression::Byteorder(_) => "byteorder",
        Expression::Numgen(_) => "numgen",
        Expression::Hash(_) => "hash",
        Expression::Lookup(_) => "lookup",
        Expression::Dynset(_) => "dynset",
        Expression::Immediate { .. } | Expression::Verdict(_) => "immediate",
        Expression::Nat(_) => "nat",
        Expression::Masquerade(_) => "masq",
        Expression::Redirect(_) => "redir",
        Expression::Counter(_) => "counter",
        Expression::Limit(_) => "limit",
        Expression::Quota(_) => "quota",
        Expression::ConnectionLimit(_) => "connlimit",
        Expression::Log(_) => "log",
        Expression::Reject(_) => "reject",
        Expression::Notrack => "notrack",
        Expression::Unknown(unknown) => &unknown.name,
    }
}

fn register(to: &mut Writer, kind: u16, register: Register) {
    to.be32(kind, register.number());
}

fn optional(to: &mut Writer, kind: u16, register: Option<Register>) {
    if let Some(register) = register {
        to.be32(kind, register.number());
    }
}

fn data(to: &mut Writer, expression: &Expression) {
    match expression {
        Expression::Payload(payload) => {
            register(to, a::payload::DREG, payload.to);
            to.be32(a::payload::BASE, payload.base as u32);
            to.be32(a::payload::OFFSET, payload.offset);
            to.be32(a::payload::LEN, payload.length);
        }
        Expression::Meta { key, to: into } => {
            to.be32(a::meta::KEY, *key as u32);
            register(to, a::meta::DREG, *into);
        }
        Expression::MetaSet { key, from } => {
            to.be32(a::meta::KEY, *key as u32);
            register(to, a::meta::SREG, *from);
        }
        Expression::Ct(ct) => {
            to.be32(a::ct::KEY, ct.key as u32);
            register(to, a::ct::DREG, ct.to);
            if let Some(direction) = ct.direction {
                to.u8(a::ct::DIRECTION, direction as u8);
            }
        }
        Expression::CtSet { key, from } => {
            to.be32(a::ct::KEY, *key as u32);
            register(to, a::ct::SREG, *from);
        }
        Expression::Fib(fib) => {
            to.be32(a::fib::FLAGS, fib.flags.0);
            to.be32(a::fib::RESULT, fib.result as u32);
            register(to, a::fib::DREG, fib.to);
        }
        Expression::Compare(compare) => {
            register(to, a::cmp::SREG, compare.register);
            to.be32(a::cmp::OP, compare.operator as u32);
            value(to, a::cmp::DATA, compare.value.as_bytes());
        }
        Expression::Range(range) => {
            register(to, a::range::SREG, range.register);
            to.be32(a::range::OP, u32::from(range.invert));
            value(to, a::range::FROM_DATA, range.first.as_bytes());
            value(to, a::range::TO_DATA, range.last.as_bytes());
        }
        Expression::Bitwise(bitwise) => {
            register(to, a::bitwise::SREG, bitwise.from);
            register(to, a::bitwise::DREG, bitwise.to);
            to.be32(a::bitwise::LEN, bitwise.mask.as_bytes().len() as u32);
            value(to, a::bitwise::MASK, bitwise.mask.as_bytes());
            value(to, a::bitwise::XOR, bitwise.xor.as_bytes());
        }
        Expression::Byteorder(byteorder) => {
            register(to, a::byteorder::SREG, byteorder.from);
            register(to, a::byteorder::DREG, byteorder.to);
            to.be32(a::byteorder::OP, byteorder.direction as u32);
            to.be32(a::byteorder::LEN, byteorder.length);
            to.be32(a::byteorder::SIZE, byteorder.size);
        }
        Expression::Numgen(numgen) => {
            register(to, a::numgen::DREG, numgen.to);
            to.be32(a::numgen::MODULUS, numgen.modulus);
            to.be32(a::numgen::TYPE, numgen.kind as u32);
            to.be32(a::numgen::OFFSET, numgen.offset);
        }
        Expression::Hash(one) => hash(to, one),
        Expression::Lookup(one) => lookup(to, one),
        Expression::Dynset(one) => dynset(to, one),
        Expression::Immediate { to: into, data } => {
            register(to, a::immediate::DREG, *into);
            value(to, a::immediate::DATA, data.as_bytes());
        }
        Expression::Verdict(one) => {
            to.be32(a::immediate::DREG, wire::REGISTER_VERDICT);
            verdict(to, a::immediate::DATA, one);
        }
        Expression::Nat(one) => nat(to, one),
        Expression::Masquerade(masq) => {
            flags(to, a::masq::FLAGS, masq.flags, masq.port);
            optional(to, a::masq::REG_PROTO_MIN, masq.port);
            optional(to, a::masq::REG_PROTO_MAX, masq.port_last);
        }
        Expression::Redirect(redirect) => {
            optional(to, a::redir::REG_PROTO_MIN, redirect.port);
            optional(to, a::redir::REG_PROTO_MAX, redirect.port_last);
            flags(to, a::redir::FLAGS, redirect.flags, redirect.port);
        }
        Expression::Counter(counter) => {
            to.be64(a::counter::BYTES, counter.bytes);
            to.be64(a::counter::PACKETS, counter.packets);
        }
        Expression::Limit(limit) => {
            to.be64(a::limit::RATE, limit.rate);
            to.be64(a::limit::UNIT, limit.period);
            to.be32(a::limit::BURST, limit.burst);
            to.be32(a::limit::TYPE, limit.unit as u32);
            to.be32(a::limit::FLAGS, if limit.over { wire::INVERT } else { 0 });
        }
        Expression::Quota(quota) => {
            to.be64(a::quota::BYTES, quota.bytes);
            to.be64(a::quota::CONSUMED, quota.consumed);
            to.be32(a::quota::FLAGS, if quota.over { wire::INVERT } else { 0 });
        }
        Expression::ConnectionLimit(limit) => {
            to.be32(a::connlimit::COUNT, limit.count);
            to.be32(a::connlimit::FLAGS, if limit.over { wire::INVERT } else { 0 });
        }
        Expression::Log(one) => log(to, one),
        Expression::Reject(one) => reject(to, *one),
        Expression::Notrack | Expression::Unknown(_) => {}
    }
}

fn hash(to: &mut Writer, hash: &Hash) {
    if let HashKind::Jenkins { from, .. } = hash.kind {
        register(to, a::hash::SREG, from);
    }
    register(to, a::hash::DREG, hash.to);
    if let HashKind::Jenkins { length, .. } = hash.kind {
        to.be32(a::hash::LEN, length);
    }
    to.be32(a::hash::MODULUS, hash.modulus);
    if let HashKind::Jenkins { seed: Some(seed), .. } = hash.kind {
        to.be32(a::hash::SEED, seed);
    }
    to.be32(a::hash::OFFSET, hash.offset);
    to.be32(a::hash::TYPE, u32::from(hash.kind == HashKind::Symmetric));
}

fn lookup(to: &mut Writer, lookup: &Lookup) {
    register(to, a::lookup::SREG, lookup.key);
    match lookup.result {
        LookupResult::Found => {}
        LookupResult::NotFound => to.be32(a::lookup::FLAGS, wire::INVERT),
        LookupResult::Data(into) => register(to, a::lookup::DREG, into),
        LookupResult::Verdict => to.be32(a::lookup::DREG, wire::REGISTER_VERDICT),
    }
    to.str0(a::lookup::SET, &lookup.set);
}

fn dynset(to: &mut Writer, dynset: &Dynset) {
    register(to, a::dynset::SREG_KEY, dynset.key);
    optional(to, a::dynset::SREG_DATA, dynset.value);
    to.be32(a::dynset::OP, dynset.operation as u32);
    if let Some(timeout) = dynset.timeout {
        to.be64(a::dynset::TIMEOUT, milliseconds(timeout));
    }
    to.str0(a::dynset::SET_NAME, &dynset.set);
    match dynset.expressions.as_slice() {
        [] => {}
        // Kernels before 5.11 know one only, under this attribute.
        [only] => write(to, a::dynset::EXPR, only),
        several => {
            to.be32(a::dynset::FLAGS, wire::DYNSET_EXPRESSIONS);
            to.nest(a::dynset::EXPRESSIONS, |to| {
                for one in several {
                    write(to, a::LIST_ELEM, one);
                }
            });
        }
    }
}

fn nat(to: &mut Writer, nat: &Nat) {
    to.be32(a::nat::TYPE, nat.kind as u32);
    to.be32(a::nat::FAMILY, u32::from(nat.family.number()));
    optional(to, a::nat::REG_ADDR_MIN, nat.address);
    optional(to, a::nat::REG_ADDR_MAX, nat.address_last);
    optional(to, a::nat::REG_PROTO_MIN, nat.port);
    optional(to, a::nat::REG_PROTO_MAX, nat.port_last);
    flags(to, a::nat::FLAGS, nat.flags, nat.port);
}

/// Whether a port is given is told twice, by its register and by a flag.
fn flags(to: &mut Writer, kind: u16, flags: NatFlags, port: Option<Register>) {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let bits = flag(port.is_some(), nat_flag::PORT)
        | flag(flags.random, nat_flag::RANDOM)
        | flag(flags.fully_random, nat_flag::FULLY_RANDOM)
        | flag(flags.persistent, nat_flag::PERSISTENT)
        | flag(flags.prefix, nat_flag::PREFIX);
    if bits != 0 {
        to.be32(kind, bits);
    }
}

fn log(to: &mut Writer, log: &Log) {
    if !log.prefix.is_empty() {
        to.str0(a::log::PREFIX, &log.prefix);
    }
    match log.target {
        LogTarget::Kernel { level } => to.be32(a::log::LEVEL, level),
        LogTarget::Group { group, snap_length } => {
            to.be16(a::log::GROUP, group);
            if snap_length != 0 {
                to.be32(a::log::SNAPLEN, snap_length);
            }
        }
    }
}

fn reject(to: &mut Writer, reject: Reject) {
    let (kind, code) = match reject {
        Reject::Icmp(code) => (0, code),
        Reject::TcpReset => (1, 0),
        Reject::Icmpx(code) => (2, code),
    };
    to.be32(a::reject::TYPE, kind);
    to.u8(a::reject::ICMP_CODE, code);
}
