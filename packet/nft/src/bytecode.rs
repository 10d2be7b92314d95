//! Expressions as `nft --debug=netlink` prints them (libnftnl's `*_snprintf`), for logs and to compare with it.

use std::fmt;

use crate::{
    ByteorderDirection, Data, DynsetOperation, Expression, Family, FibFlags, FibResult, HashKind, LimitUnit,
    Log, LogTarget, LookupResult, NatFlags, NatKind, NumgenKind, PayloadBase, Register, Reject, Verdict,
    encode, wire::nat_flag,
};

/// The words of a value, in the machine's order as libnftnl shows them.
struct Words<'a>(&'a Data);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, chunk) in self.0.as_bytes().chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            write!(f, "{}{:#010x}", if at > 0 { " " } else { "" }, u32::from_ne_bytes(word))?;
        }
        Ok(())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(load) => {
                let base = match load.base {
                    PayloadBase::Link => "link",
                    PayloadBase::Network => "network",
                    PayloadBase::Transport => "transport",
                    PayloadBase::Inner => "inner",
                };
                write!(f, "payload load {}b @ {base} header + {} => {}", load.length, load.offset, load.to)
            }
            Self::Meta { key, to } => write!(f, "meta load {} => {to}", key.as_str()),
            Self::MetaSet { key, from } => write!(f, "meta set {} with {from}", key.as_str()),
            Self::Ct(ct) => {
                write!(f, "ct load {} => {}", ct.key.as_str(), ct.to)?;
                match ct.direction {
                    None => Ok(()),
                    Some(crate::CtDirection::Original) => f.write_str(" , dir original"),
                    Some(crate::CtDirection::Reply) => f.write_str(" , dir reply"),
                }
            }
            Self::CtSet { key, from } => write!(f, "ct set {} with {from}", key.as_str()),
            Self::Fib(fib) => {
                let names = [
                    (FibFlags::SADDR, "saddr"),
                    (FibFlags::DADDR, "daddr"),
                    (FibFlags::MARK, "mark"),
                    (FibFlags::IIF, "iif"),
                    (FibFlags::OIF, "oif"),
                ];
                let asked: Vec<_> = names
                    .iter()
                    .filter(|(flag, _)| fib.flags.contains(*flag))
                    .map(|(_, name)| *name)
                    .collect();
                let result = match fib.result {
                    FibResult::OutputInterface => "oif",
                    FibResult::OutputInterfaceName => "oifname",
                    FibResult::AddressType => "type",
                };
                let present = if fib.flags.contains(FibFlags::PRESENT) { " present" } else { "" };
                write!(f, "fib {} {result}{present} => {}", asked.join(" . "), fib.to)
            }
            Self::Compare(one) => {
                write!(f, "cmp {} {} {}", one.operator.as_str(), one.register, Words(&one.value))
            }
            Self::Range(range) => {
                let operator = if range.invert { "neq" } else { "eq" };
                write!(
                    f,
                    "range {operator} {} {} {}",
                    range.register,
                    Words(&range.first),
                    Words(&range.last)
                )
            }
            Self::Bitwise(one) => {
                write!(
                    f,
                    "bitwise {} = ( {} & {} ) ^ {}",
                    one.to,
                    one.from,
                    Words(&one.mask),
                    Words(&one.xor)
                )
            }
            Self::Byteorder(one) => {
                let function = match one.direction {
                    ByteorderDirection::ToHost => "ntoh",
                    ByteorderDirection::ToNetwork => "hton",
                };
                write!(f, "byteorder {} = {function}({}, {}, {})", one.to, one.from, one.size, one.length)
            }
            Self::Numgen(one) => {
                let kind = match one.kind {
                    NumgenKind::Incremental => "inc",
                    NumgenKind::Random => "random",
                };
                write!(f, "numgen {} = {kind} mod {}", one.to, one.modulus)?;
                offset(f, one.offset)
            }
            Self::Hash(one) => {
                match one.kind {
                    HashKind::Jenkins { from, length, seed } => write!(
                        f,
                        "hash {} = jhash({from}, {length}, {:#x}) % mod {}",
                        one.to,
                        seed.unwrap_or(0),
                        one.modulus
                    )?,
                    HashKind::Symmetric => write!(f, "hash {} = symhash() % mod {}", one.to, one.modulus)?,
                }
                offset(f, one.offset)
            }
            Self::Lookup(one) => {
                write!(f, "lookup {} set {}", one.key, one.set)?;
                match one.result {
                    LookupResult::Found => Ok(()),
                    LookupResult::NotFound => f.write_str(" 0x1"),
                    LookupResult::Data(to) => write!(f, " dreg {}", to.number()),
                    LookupResult::Verdict => f.write_str(" dreg 0"),
                }
            }
            Self::Dynset(one) => {
                let operation = match one.operation {
                    DynsetOperation::Add => "add",
                    DynsetOperation::Update => "update",
                    DynsetOperation::Delete => "delete",
                };
                write!(f, "dynset {operation} reg_key {} set {}", one.key.number(), one.set)?;
                if let Some(value) = one.value {
                    write!(f, " sreg_data {}", value.number())?;
                }
                if let Some(timeout) = one.timeout {
                    write!(f, " timeout {}ms", timeout.as_millis())?;
                }
                one.expressions.iter().try_for_each(|each| write!(f, " expr [ {each} ]"))
            }
            Self::Immediate { to, data } => write!(f, "immediate {to} {}", Words(data)),
            Self::Verdict(Verdict::Jump(chain)) => write!(f, "immediate reg 0 jump -> {chain}"),
            Self::Verdict(Verdict::Goto(chain)) => write!(f, "immediate reg 0 goto -> {chain}"),
            Self::Verdict(verdict) => write!(f, "immediate reg 0 {verdict}"),
            Self::Nat(nat) => {
                let kind = if nat.kind == NatKind::Source { "snat" } else { "dnat" };
                let family = if nat.family == Family::Ip6 { "ip6" } else { "ip" };
                write!(f, "nat {kind} {family}")?;
                register(f, "addr_min", nat.address)?;
                register(f, "addr_max", nat.address_last)?;
                ports(f, nat.port, nat.port_last)?;
                flags(f, nat.flags, nat.port)
            }
            Self::Masquerade(masq) => {
                f.write_str("masq")?;
                ports(f, masq.port, masq.port_last)?;
                flags(f, masq.flags, masq.port)
            }
            Self::Redirect(redirect) => {
                f.write_str("redir")?;
                ports(f, redirect.port, redirect.port_last)?;
                flags(f, redirect.flags, redirect.port)
            }
            Self::Counter(counter) => write!(f, "counter pkts {} bytes {}", counter.packets, counter.bytes),
            Self::Limit(limit) => {
                let unit = match limit.unit {
                    LimitUnit::Packets => "packets",
                    LimitUnit::Bytes => "bytes",
                };
                let period = match limit.period {
                    1 => "second",
                    60 => "minute",
                    3_600 => "hour",
                    86_400 => "day",
                    _ => "week",
                };
                let over = u8::from(limit.over);
                write!(
                    f,
                    "limit rate {}/{period} burst {} type {unit} flags {over:#x}",
                    limit.rate, limit.burst
                )
            }
            Self::Quota(quota) => {
                write!(
                    f,
                    "quota bytes {} consumed {} flags {}",
                    quota.bytes,
                    quota.consumed,
                    u8::from(quota.over)
                )
            }
            Self::ConnectionLimit(one) => {
                write!(f, "connlimit count {} flags {:x}", one.count, u8::from(one.over))
            }
            Self::Log(one) => log(f, one),
            Self::Reject(one) => {
                let (kind, code) = match *one {
                    Reject::Icmp(code) => (0, code),
                    Reject::TcpReset => (1, 0),
                    Reject::Icmpx(code) => (2, code),
                };
                write!(f, "reject type {kind} code {code}")
            }
            Self::Notrack => f.write_str("notrack"),
            Self::Unknown(_) => write!(f, "{} ?", encode::expression_name(self)),
        }
    }
}

fn offset(f: &mut fmt::Formatter<'_>, offset: u32) -> fmt::Result {
    if offset == 0 { Ok(()) } else { write!(f, " offset {offset}") }
}

fn register(f: &mut fmt::Formatter<'_>, name: &str, register: Option<Register>) -> fmt::Result {
    register.map_or(Ok(()), |register| write!(f, " {name} {register}"))
}

fn ports(f: &mut fmt::Formatter<'_>, port: Option<Register>, last: Option<Register>) -> fmt::Result {
    register(f, "proto_min", port)?;
    register(f, "proto_max", last)
}

fn flags(f: &mut fmt::Formatter<'_>, flags: NatFlags, port: Option<Register>) -> fmt::Result {
    let flag = |on: bool, bit: u32| if on { bit } else { 0 };
    let bits = flag(flags.random, nat_flag::RANDOM)
        | flag(flags.persistent, nat_flag::PERSISTENT)
        | flag(flags.fully_random, nat_flag::FULLY_RANDOM)
        | flag(flags.prefix, nat_flag::PREFIX)
        | flag(port.is_some(), nat_flag::PORT);
    if bits == 0 { Ok(()) } else { write!(f, " flags {bits:#x}") }
}

fn log(f: &mut fmt::Formatter<'_>, log: &Log) -> fmt::Result {
    f.write_str("log")?;
    if !log.prefix.is_empty() {
        write!(f, " prefix {}", log.prefix)?;
    }
    match log.target {
        LogTarget::Kernel { level } => write!(f, " level {level}"),
        LogTarget::Group { group, snap_length } => {
            write!(f, " group {group} snaplen {snap_length} qthreshold 0")
        }
    }
}
