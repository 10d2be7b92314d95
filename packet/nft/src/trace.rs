//! What the kernel tells of packets that are followed (`meta nftrace set 1`): one event for each rule that a packet
//! matched, each chain that it left, each policy that it met.
//!
//! A [`Tracer`] hears all followed packets of its network namespace, whoever's rule marked them (nft(8), `monitor
//! trace`); [`rules_to_follow`] is a table that marks some. [`crate::evaluate`] is the same without a kernel.

use std::{
    mem,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use portolan_netlink::{
    Bus, Socket,
    message::{Message, messages},
};

use crate::{
    Chain, ChainKind, Data, Error, Expression, Family, Hook, MetaKey, Register, Rule, Ruleset, Selector,
    Table, Verdict, decode, matches,
    wire::{self, attribute::trace as a},
};

/// `NFNLGRP_NFTRACE`.
const GROUP: u32 = 9;
/// `NFT_MSG_TRACE`, with its subsystem.
const MESSAGE: u16 = 10 << 8 | 17;
/// Room for the events of many packets.
const BUFFER: usize = 4 << 20;
/// Before everything else but defragmentation (`NF_IP_PRI_RAW_BEFORE_DEFRAG` is -450).
const PRIORITY: i32 = -399;

/// Why there is an event: `enum nft_trace_types`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceKind {
    /// The policy of a base chain.
    Policy,
    /// The end of a chain, or a return.
    Return,
    /// A rule.
    Rule,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Events of one packet have one number.
    pub id: u32,
    /// Why there is an event.
    pub kind: TraceKind,
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle.
    pub rule: Option<u64>,
    /// What the rule, chain or policy said.
    pub verdict: Option<Verdict>,
    /// The packet's mark.
    pub mark: u32,
    /// The packet's addresses and, of TCP, UDP and SCTP, ports as they were. Only in the first event of each hook.
    pub packet: Option<(SocketAddr, SocketAddr)>,
}

impl Traced {
    /// Whether it is of the packet that these are of. A packet that this machine sends to itself gets another number on
    /// its way in: the interface it comes by is part of it (`trace_fill_id` in `net/netfilter/nf_tables_trace.c`).
    pub fn is_of(&self, before: &[Self]) -> bool {
        let was_sent = before.first().is_some_and(|first| first.chain == Hook::Output.as_str());
        let went = before.iter().rev().find_map(|event| event.packet).map(|(_, to)| to);
        let came = self.packet.map(|(_, to)| to);
        before.iter().any(|event| event.id == self.id) || (was_sent && came.is_some() && came == went)
    }
}

/// The ear.
#[derive(Debug)]
pub struct Tracer {
    socket: Socket,
    buffer: Vec<u8>,
    waiting: Vec<Traced>,
}

impl Tracer {
    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// When the socket cannot be opened, or the process lacks CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(Bus::Netfilter).map_err(failed)?;
        socket.force_buffers(BUFFER).map_err(failed)?;
        socket.join(GROUP).map_err(failed)?;
        Ok(Self { socket, buffer: Vec::new(), waiting: Vec::new() })
    }

    /// The next event; `None` when none came within `wait`.
    ///
    /// # Errors
    /// When events were lost or cannot be read.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Traced>, Error> {
        let until = Instant::now() + wait;
        while self.waiting.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let mut buffer = mem::take(&mut self.buffer);
            let received = self.socket.receive(&mut buffer, Some(left));
            if matches!(received, Ok(true)) {
                let traces = messages(&buffer).filter(|message| message.kind == MESSAGE);
                self.waiting.extend(traces.filter_map(|message| event(&message)));
            }
            self.buffer = buffer;
            if !received.map_err(failed)? {
                return Ok(None);
            }
        }
        Ok(Some(self.waiting.remove(0)))
    }
}

fn failed(error: portolan_netlink::NetlinkError) -> Error {
    Error::Socket(error.to_string())
}

/// `None` for what has no type here.
fn event(message: &Message<'_>) -> Option<Traced> {
    let attributes = message.attributes(wire::FIXED);
    let number = |kind| attributes.find(kind).and_then(|attribute| attribute.be32());
    let text = |kind| attributes.find(kind).and_then(|attribute| attribute.str().map(str::to_owned));
    let kind = match number(a::TYPE)? {
        1 => TraceKind::Policy,
        2 => TraceKind::Return,
        // Of no rule: the end of a chain.
        3 if attributes.find(a::RULE_HANDLE).is_none() => TraceKind::Return,
        3 => TraceKind::Rule,
        _ => return None,
    };
    let verdict = match kind {
        TraceKind::Policy => number(a::POLICY).and_then(|code| Verdict::from_code(code as i32, None)),
        _ => attributes.find(a::VERDICT).and_then(|verdict| {
            let code = verdict.nested().find(wire::attribute::verdict::CODE)?.be32()?;
            let chain = verdict.nested().find(wire::attribute::verdict::CHAIN);
            Verdict::from_code(code as i32, chain.and_then(|chain| chain.str().map(str::to_owned)))
        }),
    };
    let bytes = |kind| attributes.find(kind).map(|attribute| attribute.payload);
    Some(Traced {
        id: number(a::ID)?,
        kind,
        family: decode::family(message)?,
        table: text(a::TABLE)?,
        chain: text(a::CHAIN).unwrap_or_default(),
        rule: attributes.find(a::RULE_HANDLE).and_then(|handle| handle.be64()),
        verdict,
        mark: number(a::MARK).unwrap_or(0),
        packet: bytes(a::NETWORK_HEADER)
            .and_then(|ip| ends(ip, bytes(a::TRANSPORT_HEADER).unwrap_or_default())),
    })
}

/// From whom to whom. The headers are those of RFC 791 and RFC 8200, and ports come first in what is above.
fn ends(ip: &[u8], above: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let address = |from: usize, length: usize| -> Option<IpAddr> {
        let bytes = ip.get(from..from + length)?;
        match length {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    };
    let port =
        |from: usize| above.get(from..from + 2).map_or(0, |bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    let (source, destination) = match ip.first()? >> 4 {
        4 => (address(12, 4)?, address(16, 4)?),
        _ => (address(8, 16)?, address(24, 16)?),
    };
    Some((SocketAddr::new(source, port(0)), SocketAddr::new(destination, port(2))))
}

/// A table that has the kernel follow packets of this protocol from an address to an address and port, as they come in
/// and as this machine sends them, and changes nothing else.
pub fn rules_to_follow(table: &str, protocol: u8, source: IpAddr, destination: SocketAddr) -> Ruleset {
    let (from, to) = match destination.ip() {
        IpAddr::V4(_) => (Selector::IpSource, Selector::IpDestination),
        IpAddr::V6(_) => (Selector::Ip6Source, Selector::Ip6Destination),
    };
    let mut ruleset = Ruleset::new(Table::new(Family::Inet, table));
    for hook in [Hook::Prerouting, Hook::Output] {
        let rule = Rule::new(hook.as_str())
            .then(matches::family_of(destination.ip()))
            .then(matches::is(from, source.into()))
            .then(matches::is(to, destination.ip().into()))
            .then(matches::protocol(protocol))
            .then(matches::destination_port(destination.port()))
            .then(Expression::Immediate { to: Register::R1, data: Data::new().field(&[1]) })
            .then(Expression::MetaSet { key: MetaKey::Trace, from: Register::R1 });
        ruleset = ruleset.chain(Chain::base(hook.as_str(), ChainKind::Filter, hook, PRIORITY), [rule]);
    }
    ruleset
}
