//! The chains that are always there: where packets enter, are refused, and leave; and those of source ranges, which are
//! there when some Service has any.
//!
//! Others rely on the hooks and priorities: destinations are rewritten at `dstnat`, sources at `srcnat`, refusals are at
//! `filter`, and source ranges ten before `dstnat` (`pkg/proxy/nftables/README.md` of Kubernetes, "hook contract"). All
//! of them but the ways out look at a connection's first packet only.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_nft::{
    BaseChain, Chain, ChainKind, Expression, FilledChain, Hook, Lookup, LookupResult, NatFlags, Policy,
    Register, Rule, Selector, load, matches,
    matches::{ct_state, ct_status},
    priority, statement,
};
use portolan_plan::Version;

use crate::{
    NodePortAddresses, ServicesConfig, SetId, SetKind, Space, counters,
    sets::{asked, suffix},
};

/// Tells the client that nobody serves this.
pub(crate) const REJECT: &str = "reject";
const MASQUERADE: &str = "masquerade";

pub(crate) fn base(name: &str, kind: ChainKind, hook: Hook, priority: i32, rules: Vec<Rule>) -> FilledChain {
    let base = BaseChain { kind, hook, priority, policy: Policy::Accept };
    FilledChain { chain: Chain { name: name.to_owned(), base: Some(base), comment: None }, rules }
}

fn regular(name: impl Into<String>, rules: Vec<Rule>) -> FilledChain {
    FilledChain { chain: Chain::regular(name), rules }
}

/// All of them.
pub(crate) fn fixed(config: &ServicesConfig) -> Vec<FilledChain> {
    let mut chains = Vec::new();
    for (name, hook) in [("nat_prerouting", Hook::Prerouting), ("nat_output", Hook::Output)] {
        chains.push(base(name, ChainKind::Nat, hook, priority::DSTNAT, by_version(name, "services", false)));
    }
    for (name, hook, next) in [
        ("filter_input", Hook::Input, "refuse_input"),
        ("filter_forward", Hook::Forward, "refuse"),
        ("filter_output", Hook::Output, "refuse"),
    ] {
        chains.push(base(name, ChainKind::Filter, hook, priority::FILTER, by_version(name, next, true)));
    }
    chains.push(postrouting(config));
    chains.push(regular(
        MASQUERADE,
        vec![
            Rule::new(MASQUERADE)
                .then(statement::mark_and(!config.masquerade_mark))
                .then(statement::masquerade(NatFlags::FULLY_RANDOM)),
        ],
    ));
    chains.push(regular(REJECT, vec![Rule::new(REJECT).then(statement::reject())]));
    for version in Version::ALL {
        chains.extend(of_version(config, version));
    }
    chains.extend(counters::chains(config));
    chains
}

/// Those that ask packets who sent them: there only while some Service has source ranges, since each new connection of
/// the machine passes them, and each finds out whether its destination is this node.
pub(crate) fn sources(config: &ServicesConfig) -> Vec<FilledChain> {
    let before = priority::DSTNAT - 10;
    let mut chains: Vec<_> = [("source_prerouting", Hook::Prerouting), ("source_output", Hook::Output)]
        .map(|(name, hook)| base(name, ChainKind::Filter, hook, before, by_version(name, "source", true)))
        .into();
    for version in Version::ALL {
        chains.extend(looking(config, version, ("source", "source_wide", Stage::Sources)));
    }
    chains
}

/// On to the chain of the packet's version.
fn by_version(name: &str, next: &str, only_new: bool) -> Vec<Rule> {
    let rule = |version: Version| {
        let rule = Rule::new(name);
        let rule = if only_new { rule.then(matches::ct_state_any(ct_state::NEW)) } else { rule };
        rule.then(version.guard()).goto(chain(next, version))
    };
    Version::ALL.map(rule).to_vec()
}

pub(crate) fn chain(name: &str, version: Version) -> String {
    format!("{name}{}", suffix(version))
}

fn of_version(config: &ServicesConfig, version: Version) -> Vec<FilledChain> {
    let stages = [
        ("services", "wide", Stage::Ways),
        ("refuse_input", "refuse_wide", Stage::Refusals),
        ("refuse", "", Stage::Refusals),
    ];
    stages.map(|stage| looking(config, version, stage)).concat()
}

/// The chain of a stage, and the one where addresses are looked for that are served with more than a port.
fn looking(
    config: &ServicesConfig,
    version: Version,
    (name, wide, stage): (&str, &str, Stage),
) -> Vec<FilledChain> {
    // Of all addresses the most precise first, then the node's ports.
    let own = chain(name, version);
    let mut rules = look(config, &own, stage, Space::Port, version);
    rules.push(to_wide(&own, &chain(if wide.is_empty() { "refuse_wide" } else { wide }, version), version));
    if name == "refuse" {
        let set = |kind| SetId::new(kind, version).name();
        let to = |kind| {
            Rule::new(&own).then(version.guard()).then(matches::in_set(&[version.destination()], set(kind)))
        };
        rules.push(to(SetKind::ClusterAddresses).goto(REJECT));
        rules.push(to(SetKind::ServiceNetworks).drop());
    } else {
        rules.extend(look(config, &own, stage, Space::Node, version));
    }
    let mut chains = vec![regular(own, rules)];
    if !wide.is_empty() {
        let wide = chain(wide, version);
        let rules = [Space::Span, Space::Address].map(|space| look(config, &wide, stage, space, version));
        chains.push(regular(wide, rules.concat()));
    }
    chains
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Sources,
    Ways,
    Refusals,
}

/// The rules that look what was asked for up; on with the next when it is not found.
fn look(config: &ServicesConfig, name: &str, stage: Stage, space: Space, version: Version) -> Vec<Rule> {
    let begin = || {
        let rule = Rule::new(name).then(version.guard());
        if space == Space::Node { at_node(config, rule, version) } else { rule }
    };
    let set = |kind| SetId::new(kind, version).name();
    let key = asked(space, version);
    let (names, chains) = match stage {
        Stage::Sources => (SetKind::Firewalls(space), SetKind::Sources),
        Stage::Ways => (SetKind::Entrances(space), SetKind::Ways(space)),
        Stage::Refusals => {
            return vec![
                begin().then(matches::in_set(&key, set(SetKind::Rejected(space)))).goto(REJECT),
                begin().then(matches::in_set(&key, set(SetKind::Dropped(space)))).drop(),
            ];
        }
    };
    let lookup = |kind, key, result| Expression::Lookup(Lookup { set: set(kind), key, result });
    // The name comes behind the first word of what is found. The interface's name is loaded for `nft` only, which has to
    // believe that something of that length is there, see `crate::way`.
    let (name_at, asked_at) = (Register::word(1), Register::word(5));
    let mut expressions = Selector::InputInterface.load(name_at);
    expressions.extend(load(&key, asked_at));
    if stage == Stage::Ways && config.is_counting() {
        expressions.push(lookup(SetKind::Connections(space), asked_at, LookupResult::Found));
    }
    expressions.push(lookup(names, asked_at, LookupResult::Data(Register::R1)));
    expressions.push(lookup(chains, name_at, LookupResult::Verdict));
    vec![begin().then(expressions).comment(format!("what was asked for is looked up in @{}", set(names)))]
}

/// One look into a small set keeps packets away from maps of intervals, which nearly nobody uses.
fn to_wide(name: &str, wide: &str, version: Version) -> Rule {
    let set = SetId::new(SetKind::Wide, version).name();
    Rule::new(name).then(version.guard()).then(matches::in_set(&[version.destination()], set)).jump(wide)
}

/// To an address of this node that serves node ports.
fn at_node(config: &ServicesConfig, rule: Rule, version: Version) -> Rule {
    match &config.node_ports {
        NodePortAddresses::All => {
            let loopback = match version {
                Version::V4 => IpNet::new_assert(Ipv4Addr::new(127, 0, 0, 0).into(), 8),
                Version::V6 => IpNet::new_assert(Ipv6Addr::LOCALHOST.into(), 128),
            };
            rule.then(matches::destination_not_in(loopback)).then(matches::destination_is_local())
        }
        NodePortAddresses::Only(_) => {
            let set = SetId::new(SetKind::NodeAddresses, version).name();
            rule.then(matches::in_set(&[version.destination()], set))
        }
    }
}

fn postrouting(config: &ServicesConfig) -> FilledChain {
    let name = "nat_postrouting";
    let mark = config.masquerade_mark;
    let mut rules = vec![Rule::new(name).then(matches::any_bit(Selector::Mark, mark)).goto(MASQUERADE)];
    for version in Version::ALL {
        // An endpoint that reaches itself would drop a packet from its own address, or answer itself directly.
        let pair = [version.source(), version.destination()];
        rules.push(
            Rule::new(name)
                .then(matches::ct_status_any(ct_status::DNAT))
                .then(version.guard())
                .then(matches::in_set(&pair, SetId::new(SetKind::Hairpin, version).name()))
                .goto(MASQUERADE),
        );
    }
    base(name, ChainKind::Nat, Hook::Postrouting, priority::SRCNAT, rules)
}
