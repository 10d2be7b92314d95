//! Connections to endpoints that are gone, of Services that ask to have them ended.
//!
//! Whoever applies the changes waits for the time that the Service gives, and then puts what connections had asked for,
//! with the endpoint they were led to, into `drained4` and its like for a while. What clients send is answered by a TCP
//! reset; what endpoints send is not, since a reset to them would close the tracked connection before its client hears of
//! it. The chains are there only while some Service drains: they see every
//! packet of rewritten connections.

use std::time::Duration;

use portolan_model::{ObjectName, Protocol};
use portolan_nft::{
    ChainKind, CtDirection, CtKey, Data, Element, FilledChain, Hook, Rule, Selector, matches,
    matches::ct_status, priority, statement,
};
use portolan_plan::Version;

use crate::{
    Front, SetId, SetKind, Space, Target,
    chains::{base, chain},
};

/// An endpoint that left a Service, or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// The Service.
    pub service: ObjectName,
    /// What connections to it had asked for.
    pub fronts: Vec<Front>,
    /// The endpoint.
    pub target: Target,
    /// How long connections are left alone.
    pub after: Duration,
}

impl Gone {
    /// The elements that end its connections while they are there.
    pub fn elements(&self) -> Vec<(SetId, Element)> {
        let element = |front: &Front| {
            let space = match front.space() {
                Space::Span => Space::Address,
                space => space,
            };
            let Target { address, port } = self.target;
            let key = match *front {
                Front::Port { address: asked, protocol, port: asked_port } => {
                    Data::new().protocol(protocol.number()).port(asked_port).ip(asked).ip(address).port(port)
                }
                Front::Node { protocol, port: asked_port, .. } => {
                    Data::new().protocol(protocol.number()).port(asked_port).ip(address).port(port)
                }
                Front::Span { address: asked, .. } | Front::Address(asked) => {
                    Data::new().ip(asked).ip(address)
                }
            };
            (SetId::new(SetKind::Drained(space), front.version()), Element::new(key))
        };
        self.fronts.iter().map(element).collect()
    }
}

const HOOKS: [(&str, Hook); 3] =
    [("drain_input", Hook::Input), ("drain_forward", Hook::Forward), ("drain_output", Hook::Output)];

pub(crate) fn chains() -> Vec<FilledChain> {
    let mut chains = Vec::new();
    for (name, hook) in HOOKS {
        let rule = |version: Version| {
            Rule::new(name)
                .then(matches::ct_direction(CtDirection::Original))
                .then(matches::ct_status_any(ct_status::DNAT))
                .then(version.guard())
                .then(matches::protocol(Protocol::Tcp.number()))
                .goto(chain("drain", version))
        };
        chains.push(base(name, ChainKind::Filter, hook, priority::FILTER, Version::ALL.map(rule).to_vec()));
    }
    for version in Version::ALL {
        let name = &chain("drain", version);
        let source = match version {
            Version::V4 => CtKey::SourceIpv4,
            Version::V6 => CtKey::SourceIpv6,
        };
        // Who answers is who the connection was led to.
        let answers = Selector::CtTuple(source, CtDirection::Reply);
        let answers_port = Selector::CtTuple(CtKey::SourcePort, CtDirection::Reply);
        let asked = version.original_destination();
        let asked_port = Selector::CtTuple(CtKey::DestinationPort, CtDirection::Original);
        let rules = [
            (Space::Port, vec![Selector::L4Proto, asked_port, asked, answers, answers_port]),
            (Space::Node, vec![Selector::L4Proto, asked_port, answers, answers_port]),
            (Space::Address, vec![asked, answers]),
        ]
        .map(|(space, key)| {
            let set = SetId::new(SetKind::Drained(space), version).name();
            Rule::new(name)
                .then(version.guard())
                .then(matches::protocol(Protocol::Tcp.number()))
                .then(matches::in_set(&key, set))
                .then(statement::reject_with_reset())
        });
        chains.push(FilledChain { chain: portolan_nft::Chain::regular(name), rules: rules.to_vec() });
    }
    chains
}
