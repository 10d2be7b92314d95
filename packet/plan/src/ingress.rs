//! In: a packet to a published port of this machine is sent to the instance.
//!
//! Taken by the chains `prerouting` (from elsewhere) and `output` (from this machine), which hand packets to local
//! addresses to the chain `ports`. The source address is kept: the instance sees its client.
//!
//! - Only local destinations (`fib daddr type local`). A packet that merely passes through this machine to the same
//!   port number elsewhere is not ours (CVE-2025-67499 was this check missing in the CNI portmap plugin).
//! - Not loopback. An answer from an instance to 127.0.0.1 would be dropped as a martian unless `route_localnet` is
//!   set, which exposes the machine's own loopback services to the network (CVE-2020-8558); `::1` cannot be
//!   forwarded at all. Not `fe80::/10` either: a link-local source is never routed (RFC 4291 section 2.5.6). What this
//!   machine itself sends to 127.0.0.0/8 from another of its addresses has none of these troubles, and on a node of
//!   Kubernetes must be rewritten: kubelet drops it otherwise ("block incoming localnet connections", chain
//!   KUBE-FIREWALL). From loopback to loopback a relay serves (`packet/relay`).
//! - A mapping of one address wins over one of all addresses.
//!
//! These are chains of kind `nat`, so only the first packet of a connection is looked up. Next: [`crate::hairpin`]
//! for what came from an instance, otherwise the packet leaves to the instance as it is.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use portolan_model::{Mapping, PortRange, Protocol};
use portolan_nft::{
    BaseChain, Chain, ChainKind, Data, Element, ElementValue, FilledChain, Hook, Policy, Rule, Selector,
    matches, statement,
};

use crate::{Placement, PlanConfig, SetId, SetKind, Version};

/// The chain in which packets to local addresses are sorted.
pub const PORTS: &str = "ports";
/// The chain in which published ports are looked up.
const LOOK_UP: &str = "look_up";
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

/// `prerouting`, `output`, `ports` and `look_up`.
pub(crate) fn chains(config: &PlanConfig) -> Vec<FilledChain> {
    let entrance = |name: &str, hook| FilledChain {
        chain: Chain {
            name: name.to_owned(),
            base: Some(BaseChain {
                kind: ChainKind::Nat,
                hook,
                priority: config.destination_priority(),
                policy: Policy::Accept,
            }),
            comment: None,
        },
        rules: vec![Rule::new(name).then(matches::destination_is_local()).jump(PORTS)],
    };
    let mut output = entrance("output", Hook::Output);
    if config.placement == Placement::Any {
        let stranger = Rule::new("output")
            .then(matches::destination_in(LOOPBACK))
            .then(matches::source_not_in(LOOPBACK))
            .jump(LOOK_UP);
        output.rules.insert(0, stranger);
    }
    vec![
        entrance("prerouting", Hook::Prerouting),
        output,
        FilledChain { chain: Chain::regular(PORTS), rules: ports() },
        FilledChain { chain: Chain::regular(LOOK_UP), rules: look_up() },
    ]
}

fn ports() -> Vec<Rule> {
    const LOOPBACK6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
    const LINK_LOCAL6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let rule = || Rule::new(PORTS);
    vec![
        rule().then(matches::destination_in(LOOPBACK)).returns(),
        rule().then(matches::destination_in(LOOPBACK6)).returns(),
        rule().then(matches::destination_in(LINK_LOCAL6)).returns(),
        rule().goto(LOOK_UP),
    ]
}

fn look_up() -> Vec<Rule> {
    let rule = || Rule::new(LOOK_UP);
    let mut rules = Vec::new();
    for version in Version::ALL {
        let map = |kind| SetId::new(kind, version).name();
        let (rule, family) = (|| rule().then(version.guard()), version.family());
        let at = [version.destination(), Selector::L4Proto, Selector::DestinationPort];
        let any = [Selector::L4Proto, Selector::DestinationPort];
        rules.push(rule().then(statement::dnat_map(family, &at, map(SetKind::HostAt))));
        rules.push(rule().then(statement::dnat_address_map(family, &at, map(SetKind::BlockAt))));
        rules.push(rule().then(statement::dnat_map(family, &any, map(SetKind::Host))));
        rules.extend(Protocol::ALL.map(|protocol| {
            rule().then(matches::protocol(protocol.number())).then(statement::dnat_address_map(
                family,
                &[Selector::DestinationPort],
                map(SetKind::Block(protocol)),
            ))
        }));
    }
    rules
}

/// The elements by which a mapping is found: one for each version of IP in which the instance is reached.
pub(crate) fn elements(mapping: &Mapping) -> impl Iterator<Item = (SetId, Element)> {
    targets(mapping).map(|instance| {
        let version = Version::of(instance);
        let (protocol, host) = (mapping.protocol.number(), mapping.host);
        let key = |port| match mapping.address {
            Some(address) => Data::new().ip(address).protocol(protocol).port(port),
            None if host.is_single() => Data::new().protocol(protocol).port(port),
            None => Data::new().port(port),
        };
        let kind = match (mapping.address, host.is_single()) {
            (Some(_), true) => SetKind::HostAt,
            (Some(_), false) => SetKind::BlockAt,
            (None, true) => SetKind::Host,
            (None, false) => SetKind::Block(mapping.protocol),
        };
        let element = if host.is_single() {
            Element::new(key(host.first())).value(Data::new().ip(instance).port(mapping.container))
        } else {
            Element::interval(key(host.first()), key(host.last())).value(instance.into())
        };
        (SetId::new(kind, version), element)
    })
}

/// The instance's addresses that the mapping leads to: of the version of its host address, or of both.
pub(crate) fn targets(mapping: &Mapping) -> impl Iterator<Item = IpAddr> + use<> {
    let wanted = mapping.address.map(Version::of);
    [mapping.v4.map(IpAddr::V4), mapping.v6.map(IpAddr::V6)]
        .into_iter()
        .flatten()
        .filter(move |&address| wanted.is_none_or(|version| version == Version::of(address)))
}

/// The mapping that an element of a forwarding set stands for, with the instance's address of that version alone.
pub(crate) fn mapping(set: SetId, element: &Element) -> Option<Mapping> {
    let (key, last) = (element.key.as_bytes(), element.last().as_bytes());
    let (at, protocol) = match set.kind {
        SetKind::Host => (0, None),
        SetKind::Block(protocol) => (0, Some(protocol)),
        SetKind::HostAt | SetKind::BlockAt => (set.version.bytes(), None),
        _ => return None,
    };
    let address = if at == 0 { None } else { Some(address(set.version, key)?) };
    let number = |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    // Fields of several begin at multiples of four bytes.
    let (protocol, port) = match protocol {
        Some(protocol) => (protocol, 0),
        None => (Protocol::ALL.into_iter().find(|one| Some(&one.number()) == key.get(at))?, at + 4),
    };
    let host = PortRange::new(number(key, port)?, number(last, port)?).ok()?;
    let Some(ElementValue::Data(value)) = &element.value else { return None };
    let container = match set.kind {
        SetKind::Host | SetKind::HostAt => number(value.as_bytes(), set.version.bytes())?,
        _ => host.first(),
    };
    let (v4, v6) = match self::address(set.version, value.as_bytes())? {
        IpAddr::V4(instance) => (Some(instance), None),
        IpAddr::V6(instance) => (None, Some(instance)),
    };
    Some(Mapping { protocol, address, host, container, v4, v6 })
}

fn address(version: Version, bytes: &[u8]) -> Option<IpAddr> {
    match version {
        Version::V4 => Some(IpAddr::from(*bytes.first_chunk::<4>()?)),
        Version::V6 => Some(IpAddr::from(*bytes.first_chunk::<16>()?)),
    }
}
