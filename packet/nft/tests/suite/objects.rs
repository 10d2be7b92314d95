//! Objects that the promises are about.

use std::time::Duration;

use portolan_nft::{
    Chain, ChainKind, Data, DataType, Element, Family, Hook, NatFlags, Nft, Policy, Rule, Ruleset, Selector,
    Set, Table, Transaction, Verdict, matches, priority, statement,
};

pub(crate) fn table() -> Table {
    Table::new(Family::Inet, "portolan")
}

pub(crate) fn ports() -> Set {
    Set::map(
        "ports",
        [DataType::InetProto, DataType::InetService],
        [DataType::Ipv4Addr, DataType::InetService],
    )
}

pub(crate) fn port(number: u16) -> Element {
    let key = Data::new().protocol(6).port(number);
    Element::new(key).value(Data::new().ipv4([10, 213, 0, 2].into()).port(number))
}

pub(crate) fn blocks() -> Set {
    Set::map("blocks", [DataType::InetService], [DataType::Ipv4Addr]).interval()
}

pub(crate) fn block(first: u16, last: u16) -> Element {
    Element::interval(Data::new().port(first), Data::new().port(last))
        .value(Data::new().ipv4([10, 213, 0, 3].into()))
}

pub(crate) fn ranges() -> Set {
    Set::set_of([DataType::InetProto, DataType::InetService])
}

/// A shorthand for a concatenated interval set.
pub(crate) trait SetOf {
    fn set_of(key: [DataType; 2]) -> Set;
}

impl SetOf for Set {
    fn set_of(key: [DataType; 2]) -> Set {
        Set::new("ranges", key).interval()
    }
}

pub(crate) fn range(protocol: u8, first: u16, last: u16) -> Element {
    let key = |port| Data::new().protocol(protocol).port(port);
    Element::interval(key(first), key(last))
}

pub(crate) fn verdicts() -> Set {
    Set::verdict_map("verdicts", [DataType::Ipv4Addr])
}

pub(crate) fn leads(last: u8, verdict: Verdict) -> Element {
    Element::new(Data::new().ipv4([10, 0, 0, last].into())).verdict(verdict)
}

pub(crate) fn prerouting() -> Chain {
    Chain::base("prerouting", ChainKind::Nat, Hook::Prerouting, priority::DSTNAT)
}

pub(crate) fn postrouting() -> Chain {
    Chain::base("postrouting", ChainKind::Nat, Hook::Postrouting, priority::SRCNAT)
}

pub(crate) fn forward() -> Chain {
    Chain::base("forward", ChainKind::Filter, Hook::Forward, priority::FILTER)
}

/// Everything at once: each kind of set, chain and statement.
pub(crate) fn everything() -> Ruleset {
    let flow = [Selector::IpSource, Selector::L4Proto, Selector::SourcePort];
    let front = [Selector::L4Proto, Selector::DestinationPort];
    let seen = Set::new("seen", [DataType::Ipv4Addr, DataType::InetService])
        .timeout(Duration::from_secs(3600))
        .dynamic(65_535);
    let balanced = Set::map("balanced", [], [DataType::Ipv4Addr])
        .key_typeof([Selector::DestinationPort, Selector::NumgenRandom(3)])
        .comment("one of three");
    let targets = (0..3)
        .map(|at| Set::entry(Data::new().port(80).number(at), Data::new().ipv4([10, 0, 0, at as u8].into())));
    Ruleset::new(table().comment("made by a test"))
        .set(ports(), [port(20_000), port(20_001).comment("web of one")])
        .set(blocks(), [block(21_000, 21_099), block(21_100, 21_100)])
        .set(ranges(), [range(6, 1, 1023), range(17, 53, 53)])
        .set(
            verdicts().counter(),
            [leads(1, Verdict::Accept), leads(2, Verdict::jump("let")), leads(3, Verdict::goto("let"))],
        )
        .set(seen, [])
        .set(balanced, targets.collect::<Vec<_>>())
        .set(Set::new("v6", [DataType::Ipv6Addr]).size(10), [])
        .chain(
            prerouting(),
            [
                Rule::new("prerouting")
                    .then(matches::destination_is_local())
                    .jump("mapped")
                    .comment("to us only"),
                Rule::new("prerouting").then(statement::dnat_map(
                    Family::Ip,
                    &[Selector::DestinationPort, Selector::NumgenRandom(3)],
                    "balanced",
                )),
            ],
        )
        .chain(
            Chain::regular("mapped").comment("who gets what"),
            [
                Rule::new("mapped").then(statement::dnat_map(Family::Ip, &front, "ports")),
                Rule::new("mapped").then(statement::dnat_address_map(
                    Family::Ip,
                    &[Selector::DestinationPort],
                    "blocks",
                )),
            ],
        )
        .chain(
            postrouting(),
            [Rule::new("postrouting")
                .then(matches::ct_status_any(matches::ct_status::DNAT))
                .then(matches::source_in("10.213.0.0/16".parse::<ipnet::IpNet>().unwrap()))
                .then(statement::masquerade(NatFlags::FULLY_RANDOM))],
        )
        .chain(
            forward().policy(Policy::Drop),
            [
                Rule::new("forward")
                    .then(matches::ct_state_any(matches::ct_state::ESTABLISHED | matches::ct_state::RELATED))
                    .counter()
                    .accept(),
                Rule::new("forward").then(matches::in_set(&front, "ranges")).then(statement::reject()),
                Rule::new("forward").then(statement::verdict_map(&[Selector::IpDestination], "verdicts")),
                Rule::new("forward").then(statement::update_set(
                    "seen",
                    &[Selector::IpSource, Selector::DestinationPort],
                    Some(Duration::from_secs(60)),
                )),
                Rule::new("forward").then(matches::not_in_set(&flow[..1], "v4")).drop(),
            ],
        )
        .chain(Chain::regular("let"), [Rule::new("let").counter().accept()])
        .set(Set::new("v4", [DataType::Ipv4Addr]).timeouts(), [])
}

/// Runs a transaction about the test's table that the closure fills.
pub(crate) fn run(nft: &mut dyn Nft, fill: impl FnOnce(&mut Transaction)) -> Result<(), portolan_nft::Error> {
    let mut transaction = Transaction::new(table());
    fill(&mut transaction);
    nft.run(&transaction)
}

/// The table as it is, sorted; panics when there is none.
pub(crate) fn dump(nft: &mut dyn Nft) -> Ruleset {
    let mut ruleset = nft.dump(&table()).unwrap().unwrap();
    ruleset.sort();
    ruleset
}

/// Without what only the kernel or the fake gives: handles, counts, what is left of timeouts.
pub(crate) fn bare(mut ruleset: Ruleset) -> Ruleset {
    ruleset.sort();
    for element in ruleset.sets.iter_mut().flat_map(|filled| &mut filled.elements) {
        element.counter = None;
        element.expires = None;
    }
    for rule in ruleset.chains.iter_mut().flat_map(|filled| &mut filled.rules) {
        rule.handle = None;
    }
    ruleset
}

/// Compares meaning; shows the texts when they differ, and all there is when only the texts are the same.
#[track_caller]
pub(crate) fn assert_same(one: Ruleset, two: Ruleset) {
    let (one, two) = (bare(one), bare(two));
    if one != two {
        assert_eq!(one.to_string(), two.to_string());
        panic!("{one:#?}\nis not\n{two:#?}");
    }
}
