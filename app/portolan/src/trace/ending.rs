//! What may become of a packet: the outcomes of the rules, equal ones told once.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use portolan_nft::{
    NatKind, Reject,
    evaluate::{Fate, Outcome, What},
};
use serde::Serialize;

use super::question::Question;

/// One thing that may become of the packet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Ending {
    /// sent, delivered, rejected, dropped, unroutable.
    pub(super) what: &'static str,
    /// Who did it, or why.
    pub(super) by: Option<String>,
    /// As it left.
    pub(super) source: Option<IpAddr>,
    pub(super) destination: Option<SocketAddr>,
    pub(super) interface: Option<String>,
    /// Another destination than the one that was asked for.
    pub(super) translated: bool,
    pub(super) masqueraded: bool,
    /// Of all packets, how many; all are 1.
    pub(super) share: f64,
}

/// Equal ones counted together, the most frequent first.
pub(super) fn endings(outcomes: &[Outcome], question: &Question) -> Vec<Ending> {
    let mut counted: BTreeMap<String, (Ending, usize)> = BTreeMap::new();
    for outcome in outcomes {
        let ending = ending(outcome, question);
        counted.entry(format!("{ending:?}")).or_insert((ending, 0)).1 += 1;
    }
    let all = outcomes.len().max(1) as f64;
    let shared = counted.into_values().map(|(ending, count)| Ending { share: count as f64 / all, ..ending });
    let mut endings: Vec<Ending> = shared.collect();
    endings.sort_by(|one, other| {
        other.share.total_cmp(&one.share).then(one.destination.cmp(&other.destination))
    });
    endings
}

fn ending(outcome: &Outcome, question: &Question) -> Ending {
    let packet = &outcome.packet;
    let (what, by) = match &outcome.fate {
        Fate::Sent { .. } => ("sent", None),
        Fate::Delivered => ("delivered", None),
        Fate::Dropped { place } => ("dropped", Some(place.to_string())),
        Fate::Rejected { how, place } => ("rejected", Some(format!("{place}, {}", told(*how)))),
        Fate::Unroutable => ("unroutable", Some("no route leads there".to_owned())),
    };
    let left = matches!(outcome.fate, Fate::Sent { .. } | Fate::Delivered);
    let decided = |step: &portolan_nft::evaluate::Step| {
        matches!(step.what, What::Decided { kind: NatKind::Destination, .. })
    };
    Ending {
        what,
        by,
        source: left.then_some(packet.source.ip()),
        destination: left.then_some(packet.destination),
        interface: match &outcome.fate {
            Fate::Sent { interface } => interface.clone(),
            _ => None,
        },
        translated: outcome.steps.iter().any(decided) || packet.destination != question.destination,
        masqueraded: outcome.is_masqueraded(),
        share: 0.0,
    }
}

fn told(how: Reject) -> &'static str {
    match how {
        Reject::TcpReset => "the client gets a reset",
        Reject::Icmp(_) | Reject::Icmpx(_) => "the client is told that nobody listens there",
    }
}
