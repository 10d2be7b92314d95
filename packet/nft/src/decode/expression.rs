//! What rules hold.

use std::time::Duration;

use portolan_netlink::attribute::Attribute;

use super::{Reader, verdict};
use crate::{
    Bitwise, Byteorder, ByteorderDirection, Compare, ComparisonOperator, ConnectionLimit, Counter, Ct,
    CtDirection, CtKey, Dynset, DynsetOperation, Error, Expression, Family, Fib, FibFlags, FibResult, Hash,
    HashKind, Limit, LimitUnit, Log, LogTarget, Lookup, LookupResult, Masquerade, MetaKey, Nat, NatFlags,
    NatKind, Numgen, NumgenKind, Payload, PayloadBase, Quota, Range, Redirect, Reject, Unknown,
    wire::{self, attribute as a, nat_flag},
};

/// Reads one expression (an attribute with a name and data). One whose values have no type here comes as unknown.
pub(super) fn read(attribute: Attribute<'_>) -> Result<Expression, Error> {
    let outer = Reader::new("an expression", attribute.nested());
    let name = outer.string(a::expr::NAME)?;
    // Expressions without attributes (notrack) have no data.
    let bytes = outer.find(a::expr::DATA).map(|data| data.payload).unwrap_or_default();
    let reader = Reader::new("an expression", portolan_netlink::attribute::attributes(bytes));
    Ok(match known(&name, &reader)? {
        Some(expression) => expression,
        None => Expression::Unknown(Unknown { name, attributes: bytes.to_vec() }),
    })
}

/// All items of a list of expressions.
pub(super) fn list(attribute: Attribute<'_>) -> Result<Vec<Expression>, Error> {
    attribute.nested().map(read).collect()
}

/// Only of counters: what elements have.
pub(super) fn counter_of(attribute: Attribute<'_>) -> Option<Counter> {
    match read(attribute) {
        Ok(Expression::Counter(counter)) => Some(counter),
        _ => None,
    }
}

fn known(name: &str, from: &Reader<'_>) -> Result<Option<Expression>, Error> {
    Ok(Some(match name {
        // With a source register it writes into the packet, which this crate does not do.
        "payload" if from.find(a::payload::DREG).is_some() => {
            let Some(base) = PayloadBase::from_number(from.be32(a::payload::BASE)?) else { return Ok(None) };
            Expression::Payload(Payload {
                base,
                offset: from.be32(a::payload::OFFSET)?,
                length: from.be32(a::payload::LEN)?,
                to: from.register(a::payload::DREG)?,
            })
        }
        "meta" => {
            let Some(key) = MetaKey::from_number(from.be32(a::meta::KEY)?) else { return Ok(None) };
            match from.optional_register(a::meta::SREG)? {
                Some(from) => Expression::MetaSet { key, from },
                None => Expression::Meta { key, to: from.register(a::meta::DREG)? },
            }
        }
        "ct" => {
            let Some(key) = CtKey::from_number(from.be32(a::ct::KEY)?) else { return Ok(None) };
            let direction = from.find(a::ct::DIRECTION).and_then(|direction| direction.u8());
            let direction =
                direction.map(|number| if number == 0 { CtDirection::Original } else { CtDirection::Reply });
            match from.optional_register(a::ct::SREG)? {
                Some(from) => Expression::CtSet { key, from },
                None => Expression::Ct(Ct { key, direction, to: from.register(a::ct::DREG)? }),
            }
        }
        "fib" => {
            let Some(result) = FibResult::from_number(from.be32(a::fib::RESULT)?) else { return Ok(None) };
            let flags = FibFlags(from.be32(a::fib::FLAGS)?);
            Expression::Fib(Fib { flags, result, to: from.register(a::fib::DREG)? })
        }
        "cmp" => {
            let Some(operator) = ComparisonOperator::from_number(from.be32(a::cmp::OP)?) else {
                return Ok(None);
            };
            let (register, value) = (from.register(a::cmp::SREG)?, from.value(a::cmp::DATA)?);
            Expression::Compare(Compare { operator, register, value })
        }
        "range" => Expression::Range(Range {
            invert: from.be32(a::range::OP)? != 0,
            register: from.register(a::range::SREG)?,
            first: from.value(a::range::FROM_DATA)?,
            last: from.value(a::range::TO_DATA)?,
        }),
        // Operation 0 is mask and xor; shifts have no type here.
        "bitwise" if from.be32_or_0(a::bitwise::OP) == 0 => Expression::Bitwise(Bitwise {
            from: from.register(a::bitwise::SREG)?,
            to: from.register(a::bitwise::DREG)?,
            mask: from.value(a::bitwise::MASK)?,
            xor: from.value(a::bitwise::XOR)?,
        }),
        "byteorder" => Expression::Byteorder(Byteorder {
            from: from.register(a::byteorder::SREG)?,
            to: from.register(a::byteorder::DREG)?,
            direction: match from.be32(a::byteorder::OP)? {
                0 => ByteorderDirection::ToHost,
                _ => ByteorderDirection::ToNetwork,
            },
            length: from.be32(a::byteorder::LEN)?,
            size: from.be32(a::byteorder::SIZE)?,
        }),
        "numgen" => Expression::Numgen(Numgen {
            kind: if from.be32(a::numgen::TYPE)? == 0 { NumgenKind::Incremental } else { NumgenKind::Random },
            modulus: from.be32(a::numgen::MODULUS)?,
            offset: from.be32_or_0(a::numgen::OFFSET),
            to: from.register(a::numgen::DREG)?,
        }),
        "hash" => Expression::Hash(hash(from)?),
        "lookup" => Expression::Lookup(lookup(from)?),
        "dynset" => Expression::Dynset(dynset(from)?),
        "immediate" => {
            if from.be32(a::immediate::DREG)? == wire::REGISTER_VERDICT {
                // A verdict of a newer kernel, or to userspace (queue): nothing this crate could write again.
                return Ok(from.find(a::immediate::DATA).and_then(verdict).map(Expression::Verdict));
            }
            let (to, data) = (from.register(a::immediate::DREG)?, from.value(a::immediate::DATA)?);
            Expression::Immediate { to, data }
        }
        "nat" => {
            let number = u8::try_from(from.be32(a::nat::FAMILY)?).unwrap_or(0);
            let Some(family) = Family::from_number(number) else { return Ok(None) };
            Expression::Nat(Nat {
                kind: if from.be32(a::nat::TYPE)? == 0 { NatKind::Source } else { NatKind::Destination },
                family,
                address: from.optional_register(a::nat::REG_ADDR_MIN)?,
                address_last: range_end(from, a::nat::REG_ADDR_MIN, a::nat::REG_ADDR_MAX)?,
                port: from.optional_register(a::nat::REG_PROTO_MIN)?,
                port_last: range_end(from, a::nat::REG_PROTO_MIN, a::nat::REG_PROTO_MAX)?,
                flags: flags(from.be32_or_0(a::nat::FLAGS)),
            })
        }
        "masq" => Expression::Masquerade(Masquerade {
            port: from.optional_register(a::masq::REG_PROTO_MIN)?,
            port_last: range_end(from, a::masq::REG_PROTO_MIN, a::masq::REG_PROTO_MAX)?,
            flags: flags(from.be32_or_0(a::masq::FLAGS)),
        }),
        "redir" => Expression::Redirect(Redirect {
            port: from.optional_register(a::redir::REG_PROTO_MIN)?,
            port_last: range_end(from, a::redir::REG_PROTO_MIN, a::redir::REG_PROTO_MAX)?,
            flags: flags(from.be32_or_0(a::redir::FLAGS)),
        }),
        "counter" => Expression::Counter(Counter {
            packets: from.be64(a::counter::PACKETS)?,
            bytes: from.be64(a::counter::BYTES)?,
        }),
        "limit" => Expression::Limit(Limit {
            rate: from.be64(a::limit::RATE)?,
            period: from.be64(a::limit::UNIT)?,
            burst: from.be32_or_0(a::limit::BURST),
            unit: if from.be32_or_0(a::limit::TYPE) == 0 { LimitUnit::Packets } else { LimitUnit::Bytes },
            over: from.be32_or_0(a::limit::FLAGS) & wire::INVERT != 0,
        }),
        "quota" => Expression::Quota(Quota {
            bytes: from.be64(a::quota::BYTES)?,
            consumed: from.be64(a::quota::CONSUMED).unwrap_or(0),
            over: from.be32_or_0(a::quota::FLAGS) & wire::INVERT != 0,
        }),
        "connlimit" => Expression::ConnectionLimit(ConnectionLimit {
            count: from.be32(a::connlimit::COUNT)?,
            over: from.be32_or_0(a::connlimit::FLAGS) & wire::INVERT != 0,
        }),
        "log" => Expression::Log(log(from)?),
        "reject" => {
            let code = from.find(a::reject::ICMP_CODE).and_then(|code| code.u8()).unwrap_or(0);
            Expression::Reject(match from.be32(a::reject::TYPE)? {
                0 => Reject::Icmp(code),
                1 => Reject::TcpReset,
                _ => Reject::Icmpx(code),
            })
        }
        "notrack" => Expression::Notrack,
        _ => return Ok(None),
    }))
}

/// Where a range's last value is. The kernel always dumps one and repeats the first where none was given.
fn range_end(from: &Reader<'_>, first: u16, last: u16) -> Result<Option<crate::Register>, Error> {
    let (first, last) = (from.optional_register(first)?, from.optional_register(last)?);
    Ok(last.filter(|_| last != first))
}

fn flags(bits: u32) -> NatFlags {
    NatFlags {
        random: bits & nat_flag::RANDOM != 0,
        fully_random: bits & nat_flag::FULLY_RANDOM != 0,
        persistent: bits & nat_flag::PERSISTENT != 0,
        prefix: bits & nat_flag::PREFIX != 0,
    }
}

fn hash(from: &Reader<'_>) -> Result<Hash, Error> {
    let kind = if from.be32_or_0(a::hash::TYPE) == 0 {
        HashKind::Jenkins {
            from: from.register(a::hash::SREG)?,
            length: from.be32(a::hash::LEN)?,
            // Only there when it was given; a random one stays the kernel's secret.
            seed: from.find(a::hash::SEED).and_then(|seed| seed.be32()),
        }
    } else {
        HashKind::Symmetric
    };
    let (modulus, offset) = (from.be32(a::hash::MODULUS)?, from.be32_or_0(a::hash::OFFSET));
    Ok(Hash { kind, modulus, offset, to: from.register(a::hash::DREG)? })
}

fn lookup(from: &Reader<'_>) -> Result<Lookup, Error> {
    let result = match from.find(a::lookup::DREG).and_then(|register| register.be32()) {
        Some(wire::REGISTER_VERDICT) => LookupResult::Verdict,
        Some(_) => LookupResult::Data(from.register(a::lookup::DREG)?),
        None if from.be32_or_0(a::lookup::FLAGS) & wire::INVERT != 0 => LookupResult::NotFound,
        None => LookupResult::Found,
    };
    Ok(Lookup { set: from.string(a::lookup::SET)?, key: from.register(a::lookup::SREG)?, result })
}

fn dynset(from: &Reader<'_>) -> Result<Dynset, Error> {
    let expressions = match (from.find(a::dynset::EXPR), from.find(a::dynset::EXPRESSIONS)) {
        (Some(only), _) => vec![read(only)?],
        (None, Some(several)) => list(several)?,
        (None, None) => Vec::new(),
    };
    let timeout =
        from.find(a::dynset::TIMEOUT).and_then(|timeout| timeout.be64()).filter(|&timeout| timeout != 0);
    Ok(Dynset {
        operation: match from.be32(a::dynset::OP)? {
            0 => DynsetOperation::Add,
            1 => DynsetOperation::Update,
            _ => DynsetOperation::Delete,
        },
        set: from.string(a::dynset::SET_NAME)?,
        key: from.register(a::dynset::SREG_KEY)?,
        value: from.optional_register(a::dynset::SREG_DATA)?,
        timeout: timeout.map(Duration::from_millis),
        expressions,
    })
}

fn log(from: &Reader<'_>) -> Result<Log, Error> {
    let target = match from.find(a::log::GROUP).and_then(|group| group.be16()) {
        Some(group) => LogTarget::Group { group, snap_length: from.be32_or_0(a::log::SNAPLEN) },
        None => LogTarget::Kernel { level: from.be32(a::log::LEVEL).unwrap_or(4) },
    };
    let prefix = from.find(a::log::PREFIX).map(|_| from.string(a::log::PREFIX)).transpose()?;
    Ok(Log { prefix: prefix.unwrap_or_default(), target })
}
