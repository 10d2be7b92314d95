//! What came by, for each frontend and each endpoint.
//!
//! New connections are counted in chains of kind `nat`, which see the first packet of each: by frontend before the choice,
//! by endpoint after it. Packets and bytes are counted behind everything that rewrites, by what connection tracking
//! remembers, in both directions. Counters are parts of elements (kernel 5.7) of sets that hold nothing else, so they live
//! as long as the frontend or endpoint, whatever else changes.

use std::net::IpAddr;

use portolan_model::{ObjectName, Protocol};
use portolan_nft::{
    ChainKind, CtDirection, CtKey, Data, Element, FilledChain, Hook, Rule, Selector, matches,
    matches::ct_status, priority,
};
use portolan_plan::{Counting, Version};

use crate::{
    Direction, Front, Identity, Services, ServicesConfig, SetId, SetKind, Space, Target,
    chains::{base, chain},
    claims::Claimed,
    identity::address_at_end,
    unit::Part,
};

/// What an element counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Counted {
    /// New connections to a frontend, whether they were led anywhere or not.
    Connections {
        /// Whose it is.
        service: ObjectName,
        /// The frontend.
        front: Front,
    },
    /// New connections of a Service port that were led to this endpoint. Add up what several sets have.
    Chosen {
        /// The Service.
        service: ObjectName,
        /// Its port; of ranges and whole addresses only the address means something, the port is 0.
        of: Identity,
        /// The endpoint; port 0 where it is known by address.
        target: Target,
    },
    /// Packets and bytes of a frontend.
    Traffic {
        /// Whose it is.
        service: ObjectName,
        /// The frontend.
        front: Front,
        /// Which way.
        direction: Direction,
    },
    /// Packets and bytes of an endpoint, for all Services that lead to it.
    Endpoint {
        /// The endpoint.
        target: Target,
        /// The protocol.
        protocol: Protocol,
        /// Which way.
        direction: Direction,
    },
}

impl Services {
    /// The sets whose elements count.
    pub fn counted_sets(&self) -> impl Iterator<Item = SetId> + '_ {
        SetId::all(&self.config).filter(|set| set.is_counted(&self.config))
    }

    /// What this element of that set counts; `None` when it is not one of those that are there.
    pub fn counted(&self, set: SetId, element: &Element) -> Option<Counted> {
        let version = set.version;
        let front = |space| {
            let front = Front::read(space, version, element)?;
            let claim = self.registry.winner(Claimed::Front(front))?;
            Some((ObjectName::clone(&claim.service), front))
        };
        match set.kind {
            SetKind::Connections(space) => {
                front(space).map(|(service, front)| Counted::Connections { service, front })
            }
            SetKind::FrontTraffic(space, direction) => {
                front(space).map(|(service, front)| Counted::Traffic { service, front, direction })
            }
            SetKind::BackendTraffic(direction) => {
                let (address, rest) = split_address(version, element.key.as_bytes())?;
                let (protocol, port) = protocol_and_port(rest)?;
                Some(Counted::Endpoint { target: Target { address, port }, protocol, direction })
            }
            SetKind::Members(_) | SetKind::Targets(_) => {
                let (address, rest) = split_address(version, element.key.as_bytes())?;
                let (port, rest) = match set.kind {
                    SetKind::Members(_) => {
                        (u16::from_be_bytes([*rest.first()?, *rest.get(1)?]), rest.get(4..)?)
                    }
                    _ => (0, rest),
                };
                let (protocol, own) = protocol_and_port(rest)?;
                let cluster = address_at_end(version, rest)?;
                let of = Identity { address: cluster, protocol, port: own };
                let known = Claimed::Front(Front::Port { address: cluster, protocol, port: own });
                let service = ObjectName::clone(&self.registry.winner(known)?.service);
                Some(Counted::Chosen { service, of, target: Target { address, port } })
            }
            SetKind::AddressMembers(_) => {
                let (address, rest) = split_address(version, element.key.as_bytes())?;
                let cluster = address_at_end(version, rest)?;
                let claim = self.registry.winner(Claimed::Wide(cluster))?;
                debug_assert_eq!(claim.unit.part, Part::Wide);
                let of = Identity { address: cluster, protocol: Protocol::Tcp, port: 0 };
                let service = ObjectName::clone(&claim.service);
                Some(Counted::Chosen { service, of, target: Target { address, port: 0 } })
            }
            _ => None,
        }
    }
}

fn split_address(version: Version, bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (first, rest) = bytes.split_at_checked(version.bytes())?;
    Some((address_at_end(version, first)?, rest))
}

fn protocol_and_port(bytes: &[u8]) -> Option<(Protocol, u16)> {
    let protocol = Protocol::ALL.into_iter().find(|one| bytes.first() == Some(&one.number()))?;
    Some((protocol, u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?])))
}

/// The chains that count packets; none unless packets are counted.
pub(crate) fn chains(config: &ServicesConfig) -> Vec<FilledChain> {
    if config.counting != Counting::Traffic {
        return Vec::new();
    }
    let mut chains = Vec::new();
    for (name, hook) in [("traffic_prerouting", Hook::Prerouting), ("traffic_output", Hook::Output)] {
        let rule = |version: Version| {
            let rule = Rule::new(name).then(matches::ct_status_any(ct_status::DNAT)).then(version.guard());
            // What this node sends to itself comes by twice.
            let rule = if hook == Hook::Prerouting {
                rule.then(matches::input_interface_is_not("lo"))
            } else {
                rule
            };
            rule.goto(chain("traffic", version))
        };
        // Behind everything that rewrites destinations.
        let rules = Version::ALL.map(rule).to_vec();
        chains.push(base(name, ChainKind::Filter, hook, priority::DSTNAT + 10, rules));
    }
    for version in Version::ALL {
        let own = chain("traffic", version);
        let mut rules = Vec::new();
        for (direction, way) in
            [(Direction::Received, CtDirection::Original), (Direction::Sent, CtDirection::Reply)]
        {
            let next = chain(&format!("traffic_{}", direction.as_str()), version);
            rules.push(Rule::new(&own).then(matches::ct_direction(way)).goto(&next));
            chains.push(FilledChain {
                chain: portolan_nft::Chain::regular(&next),
                rules: of_direction(&next, direction, version),
            });
        }
        chains.push(FilledChain { chain: portolan_nft::Chain::regular(own), rules });
    }
    chains
}

fn of_direction(name: &str, direction: Direction, version: Version) -> Vec<Rule> {
    let source = match version {
        Version::V4 => CtKey::SourceIpv4,
        Version::V6 => CtKey::SourceIpv6,
    };
    // Who answers is who the connection was led to.
    let answers = Selector::CtTuple(source, CtDirection::Reply);
    let answers_port = Selector::CtTuple(CtKey::SourcePort, CtDirection::Reply);
    let asked = version.original_destination();
    let asked_port = Selector::CtTuple(CtKey::DestinationPort, CtDirection::Original);
    let find = |key: &[Selector], kind| {
        let set = SetId::new(kind, version).name();
        Rule::new(name).then(version.guard()).then(matches::in_set(key, set))
    };
    let front = |key: &[Selector], space| find(key, SetKind::FrontTraffic(space, direction)).returns();
    vec![
        find(&[answers, Selector::L4Proto, answers_port], SetKind::BackendTraffic(direction)),
        front(&[Selector::L4Proto, asked_port, asked], Space::Port),
        front(&[Selector::L4Proto, asked_port], Space::Node),
        front(&[Selector::L4Proto, asked_port, asked], Space::Span),
        front(&[asked], Space::Address),
    ]
}

/// The key of an endpoint's traffic.
pub(crate) fn endpoint_key(target: Target, protocol: Protocol) -> Data {
    Data::new().ip(target.address).protocol(protocol.number()).port(target.port)
}
