//! The chains that are always there: where packets enter, are refused, and leave.
//!
//! Others rely on the hooks and priorities: destinations are rewritten at `dstnat`, sources at `srcnat`, refusals are at
//! `filter`, and source ranges ten before `dstnat` (`pkg/proxy/nftables/README.md` of Kubernetes, "hook contract"). All
//! of them but the ways out look at a connection's first packet only.

use portolan_nft::{
    BaseChain, Chain, ChainKind, Expression, FilledChain, Hook, Lookup, LookupResult, NatFlags, Policy,
    Register, Rule, load, matches,
    matches::{ct_state, ct_status},
    priority, statement,
};
use portolan_plan::Version;

use crate::{
    NodePortAddresses, ServicesConfig, SetId, SetKind, Space,
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
    let before = priority::DSTNAT - 10;
    for (name, hook) in [("source_prerouting", Hook::Prerouting), ("source_output", Hook::Output)] {
        chains.push(base(name, ChainKind::Filter, hook, before, by_version(name, "source", true)));
    }
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
    let mut chains = Vec::new();
    // Where a packet is looked up: of all addresses the most precise first, then the node's ports.
    for (name, wide, kind) in [
        ("source", "source_wide", SetKind::Firewalls as fn(Space) -> SetKind),
        ("services", "wide", SetKind::Entrances as fn(Space) -> SetKind),
    ] {
        let counted = name == "services";
        let mut rules = vec![into(config, &chain(name, version), kind, Space::Port, version, counted)];
        rules.push(to_wide(&chain(name, version), &chain(wide, version), version));
        rules.push(at_node(config, &chain(name, version), kind, version, counted));
        chains.push(regular(chain(name, version), rules));
        let rules = [Space::Span, Space::Address]
            .map(|space| into(config, &chain(wide, version), kind, space, version, counted));
        chains.push(regular(chain(wide, version), rules.to_vec()));
    }
    for name in ["refuse_input", "refuse"] {
        let name = &chain(name, version);
        let kind = SetKind::Refusals;
        let mut rules = vec![
            into(config, name, kind, Space::Port, version, false),
            to_wide(name, &chain("refuse_wide", version), version),
        ];
        if name.starts_with("refuse_input") {
            rules.push(at_node(config, name, kind, version, false));
        } else {
            let set = |kind| SetId::new(kind, version).name();
            let to = |kind| {
                Rule::new(name)
                    .then(version.guard())
                    .then(matches::in_set(&[version.destination()], set(kind)))
            };
            rules.push(to(SetKind::ClusterAddresses).goto(REJECT));
            rules.push(to(SetKind::ServiceNetworks).drop());
        }
        chains.push(regular(name, rules));
    }
    let wide = chain("refuse_wide", version);
    let rules = [Space::Span, Space::Address]
        .map(|space| into(config, &wide, SetKind::Refusals, space, version, false));
    chains.push(regular(wide, rules.to_vec()));
    chains
}

/// The verdict that a map of this kind has for what was asked for; on with the next rule when it has none.
fn into(
    config: &ServicesConfig,
    name: &str,
    kind: fn(Space) -> SetKind,
    space: Space,
    version: Version,
    counted: bool,
) -> Rule {
    Rule::new(name).then(version.guard()).then(verdict(config, kind, space, version, counted))
}

fn verdict(
    config: &ServicesConfig,
    kind: fn(Space) -> SetKind,
    space: Space,
    version: Version,
    counted: bool,
) -> Vec<Expression> {
    let mut expressions = load(&asked(space, version), Register::R1);
    let mut look = |kind, result| {
        let set = SetId::new(kind, version).name();
        expressions.push(Expression::Lookup(Lookup { set, key: Register::R1, result }));
    };
    if counted && config.is_counting() {
        look(SetKind::Connections(space), LookupResult::Found);
    }
    look(kind(space), LookupResult::Verdict);
    expressions
}

/// One look into a small set keeps packets away from maps of intervals, which nearly nobody uses.
fn to_wide(name: &str, wide: &str, version: Version) -> Rule {
    let set = SetId::new(SetKind::Wide, version).name();
    Rule::new(name).then(version.guard()).then(matches::in_set(&[version.destination()], set)).jump(wide)
}

/// The same as [`into`] for ports of the node.
fn at_node(
    config: &ServicesConfig,
    name: &str,
    kind: fn(Space) -> SetKind,
    version: Version,
    counted: bool,
) -> Rule {
    let rule = Rule::new(name).then(version.guard());
    let rule = match &config.node_ports {
        NodePortAddresses::All => {
            let loopback = match version {
                Version::V4 => "127.0.0.0/8",
                Version::V6 => "::1/128",
            };
            let loopback: ipnet::IpNet = loopback.parse().unwrap_or_else(|_| unreachable!("it is a network"));
            rule.then(matches::destination_is_local()).then(matches::destination_not_in(loopback))
        }
        NodePortAddresses::Only(_) => {
            let set = SetId::new(SetKind::NodeAddresses, version).name();
            rule.then(matches::in_set(&[version.destination()], set))
        }
    };
    rule.then(verdict(config, kind, Space::Node, version, counted))
}

fn postrouting(config: &ServicesConfig) -> FilledChain {
    let name = "nat_postrouting";
    let mark = config.masquerade_mark;
    let mut rules =
        vec![Rule::new(name).then(matches::any_bit(portolan_nft::Selector::Mark, mark)).goto(MASQUERADE)];
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
