//! Between the reference's words and the compiler's: a world becomes [`Services`] and a [`Machine`] that runs their rules,
//! and what the machine does becomes an [`Answer`].
#![allow(dead_code, unreachable_pub, reason = "each test takes what it needs")]

use std::{collections::BTreeSet, net::IpAddr};

use portolan_nft::{
    NatKind, Ruleset,
    evaluate::{EvaluateError, Fate, Host, Machine, Origin, Outcome, Packet, What},
};
use portolan_services::{LocalDetector, NodePortAddresses, Services, ServicesConfig};

use crate::reference::{Answer, Asked, Pods, World, cases};

/// Bits that somebody else set in the packet mark; they stay.
const FOREIGN_MARK: u32 = 0x8001;

pub fn config(world: &World) -> ServicesConfig {
    ServicesConfig {
        node: world.node.clone(),
        detector: match &world.pods {
            Pods::Unknown => LocalDetector::None,
            Pods::Networks(networks) => LocalDetector::Networks(networks.clone()),
            Pods::Interface(name) => LocalDetector::Interface(name.clone()),
            Pods::Prefix(prefix) => LocalDetector::InterfacePrefix(prefix.clone()),
        },
        masquerade_all: world.masquerade_all,
        node_ports: match &world.node_ports {
            None => NodePortAddresses::All,
            Some(only) => NodePortAddresses::Only(only.clone()),
        },
        service_networks: world.networks.clone(),
        ..ServicesConfig::default()
    }
}

pub fn services(world: &World) -> Services {
    Services::load(config(world), world.services.clone(), world.slices.clone()).unwrap()
}

/// The node's addresses on the uplink, which also is the way to everywhere.
pub fn host(world: &World) -> Host {
    let mut host = Host::new().interface(cases::UPLINK, &world.own);
    for everything in ["0.0.0.0/0", "::/0"] {
        let network: ipnet::IpNet = everything.parse().unwrap();
        let of_family = |address: &&IpAddr| address.is_ipv4() == network.addr().is_ipv4();
        if let Some(own) = world.own.iter().find(of_family) {
            host = host.route(network, cases::UPLINK, *own);
        }
    }
    host
}

pub fn machine(world: &World, ruleset: &Ruleset) -> Machine {
    Machine::new(host(world)).with(ruleset)
}

pub fn packet(asked: &Asked) -> (Packet, Origin) {
    // IANA's numbers.
    let protocol = asked.protocol.number();
    let packet = Packet::new(protocol, (asked.source, 40_000).into(), asked.destination).mark(FOREIGN_MARK);
    let origin = asked.interface.clone().map_or(Origin::Here, Origin::Interface);
    (packet, origin)
}

/// All that the rules may do to a packet.
pub fn answers(machine: &Machine, asked: &Asked) -> Result<BTreeSet<Answer>, EvaluateError> {
    let (packet, origin) = packet(asked);
    let outcomes = machine.outcomes(&packet, &origin)?;
    Ok(outcomes.iter().map(|outcome| answer(outcome, asked)).collect())
}

/// What an outcome is in the reference's words; panics on what may never happen.
pub fn answer(outcome: &Outcome, asked: &Asked) -> Answer {
    let steps = || outcome.steps.iter().map(|step| format!("\n  {step}")).collect::<String>();
    match &outcome.fate {
        Fate::Dropped { .. } => return Answer::Dropped,
        Fate::Rejected { .. } => return Answer::Rejected,
        Fate::Unroutable => panic!("there is a way to everywhere: {asked:?}{}", steps()),
        Fate::Delivered | Fate::Sent { .. } => {}
    }
    // On the way to a socket of the node there is no place that clears ours.
    let ours =
        if matches!(outcome.fate, Fate::Delivered) { ServicesConfig::default().masquerade_mark } else { 0 };
    let mark = outcome.packet.mark & !ours;
    assert_eq!(
        mark,
        FOREIGN_MARK,
        "the mark is cleared and nobody else's bits are changed: {asked:?}{}",
        steps()
    );
    let masqueraded = outcome.is_masqueraded();
    let kept = outcome.packet.source.ip() == asked.source;
    assert!(masqueraded || kept, "only masquerading changes the source: {asked:?}{}", steps());
    let chosen = |step: &portolan_nft::evaluate::Step| {
        matches!(step.what, What::Decided { kind: NatKind::Destination, .. })
    };
    if outcome.steps.iter().any(chosen) {
        return Answer::To { endpoint: outcome.packet.destination, masqueraded };
    }
    assert!(!masqueraded, "what has no Service is not masqueraded: {asked:?}{}", steps());
    Answer::Untouched
}
