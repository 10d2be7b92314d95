//! Out: what an instance sends to the world leaves with an address of this machine.
//!
//! Taken by `postrouting`, which hands packets from the instances' networks to `outbound_v4` or `outbound_v6`. The
//! first rule that fits decides:
//!
//! 1. to an instance through a published port: [`crate::hairpin`]; to an instance directly: left as it is;
//! 2. from a mapped port: the published port, [`crate::reverse`];
//! 3. from any other port of TCP, UDP or SCTP: a port of [`crate::PlanConfig::outbound_ports`], the same one if it is
//!    in that range and free. Without the range the kernel would keep any free number (`nf_nat_core.c`,
//!    `get_unique_tuple`), among them numbers that are published for somebody else;
//! 4. anything else (ICMP): `masquerade`.
//!
//! With [`Placement::Any`] others decide how instances reach the world, and only step 2 is ours:
//!
//! 1. to an instance with published ports, rewritten: chains `rewritten_v4` and `rewritten_v6` of [`crate::hairpin`];
//! 2. from such an instance to the cluster's own networks and to this machine's instances: left as it is;
//! 3. from a mapped port of it: the published port. We come first, so a CNI plugin's `masquerade` is not asked;
//! 4. everything else is left to others.
//!
//! `masquerade` is the address of the interface by which the packet leaves. When that address goes away, the kernel
//! forgets the connections that used it.
//!
//! `nft` reads `masquerade to :PORT` only after a match on one transport protocol, so those rules exist once for each:
//! what `nft list` prints of this table can be loaded again, as machines that save their rules at shutdown do.

use portolan_model::Protocol;
use portolan_nft::{
    BaseChain, Chain, ChainKind, FilledChain, Hook, NatFlags, Policy, Rule, matches, matches::ct_status,
    statement,
};

use crate::{Placement, PlanConfig, SetId, SetKind, Version, hairpin, reverse};

const POSTROUTING: &str = "postrouting";

/// The chain for what instances send in this version of IP.
pub fn chain_name(version: Version) -> String {
    format!("outbound_{}", version.suffix())
}

/// `postrouting` and one chain for each version.
pub(crate) fn chains(config: &PlanConfig) -> Vec<FilledChain> {
    let base = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: config.source_priority(),
        policy: Policy::Accept,
    };
    let postrouting = Chain { name: POSTROUTING.to_owned(), base: Some(base), comment: None };
    let any = config.placement == Placement::Any;
    let entrances = Version::ALL.map(if any { to_and_from_any } else { from_own }).concat();
    let mut chains = vec![FilledChain { chain: postrouting, rules: entrances }];
    chains.extend(Version::ALL.map(|version| FilledChain {
        chain: Chain::regular(chain_name(version)),
        rules: if any { mapped_alone(version) } else { everything(config, version) },
    }));
    chains
}

fn from_own(version: Version) -> Vec<Rule> {
    let instances = SetId::new(SetKind::Instances, version).name();
    let rule = Rule::new(POSTROUTING).then(version.guard());
    vec![rule.then(matches::in_set(&[version.source()], instances)).goto(chain_name(version))]
}

fn to_and_from_any(version: Version) -> Vec<Rule> {
    let mapped = |address| matches::in_set(&[address], SetId::new(SetKind::Mapped, version).name());
    let rule = || Rule::new(POSTROUTING).then(version.guard());
    vec![
        rule()
            .then(mapped(version.destination()))
            .then(matches::ct_status_any(ct_status::DNAT))
            .jump(hairpin::rewritten_name(version)),
        rule().then(mapped(version.source())).goto(chain_name(version)),
    ]
}

/// Where instances have networks of others: only what leaves from a mapped port, to where the published one means
/// something.
fn mapped_alone(version: Version) -> Vec<Rule> {
    let to = |kind| {
        let networks = SetId::new(kind, version).name();
        Rule::new(chain_name(version))
            .then(version.guard())
            .then(matches::in_set(&[version.destination()], networks))
            .returns()
    };
    let mut rules = vec![to(SetKind::Direct), to(SetKind::Local)];
    rules.extend(reverse::to_outside(version));
    rules
}

fn everything(config: &PlanConfig, version: Version) -> Vec<Rule> {
    let rule = || Rule::new(chain_name(version));
    let to_instance = || {
        [
            version.guard(),
            matches::in_set(&[version.destination()], SetId::new(SetKind::Instances, version).name()),
        ]
        .concat()
    };
    let mut rules = vec![
        rule()
            .then(matches::ct_status_any(ct_status::DNAT))
            .then(to_instance())
            .goto(hairpin::chain_name(version)),
        rule().then(to_instance()).returns(),
    ];
    rules.extend(reverse::to_outside(version));
    let ports = config.outbound_ports;
    rules.extend(Protocol::ALL.map(|protocol| {
        rule().then(matches::protocol(protocol.number())).then(statement::masquerade_to(
            ports.first(),
            ports.last(),
            NatFlags::NONE,
        ))
    }));
    rules.push(rule().then(statement::masquerade(NatFlags::NONE)));
    rules
}
