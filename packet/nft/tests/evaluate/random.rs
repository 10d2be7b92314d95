//! Random rulesets of everything that the evaluator runs, for a router between two links.

use std::{net::SocketAddr, time::Duration};

use portolan_nft::{
    Chain, ChainKind, ComparisonOperator, CtKey, Data, DataType, Element, Expression, Family, Hook, NatFlags,
    Register, Reject, Rule, Ruleset, Selector, Set, Table, Verdict,
    evaluate::{Origin, Packet},
    load,
    matches::{self, ct_state, ct_status},
    statement,
};
use proptest::{collection::vec, prelude::*, sample::select};

pub const CLIENT_LINK: &str = "eth0";
pub const FAR_LINK: &str = "eth1";

/// One rule: conditions and what it does, by number.
#[derive(Clone, Debug)]
pub struct Recipe {
    conditions: Vec<usize>,
    action: usize,
}

/// What a chain may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Refusing,
    Destination,
    Source,
}

/// Name, kind, hook, priority, what it may hold, and the chains that it may lead to.
type Base = (&'static str, ChainKind, Hook, i32, Kind, [&'static str; 2]);

const BASES: [Base; 11] = [
    ("early", ChainKind::Filter, Hook::Prerouting, -290, Kind::Plain, ["plain1", "plain2"]),
    ("mangle", ChainKind::Filter, Hook::Prerouting, -150, Kind::Plain, ["plain1", "plain2"]),
    ("in_first", ChainKind::Nat, Hook::Prerouting, -105, Kind::Destination, ["destination1", "destination2"]),
    (
        "in_second",
        ChainKind::Nat,
        Hook::Prerouting,
        -100,
        Kind::Destination,
        ["destination1", "destination2"],
    ),
    ("input", ChainKind::Filter, Hook::Input, 0, Kind::Refusing, ["refusing1", "refusing2"]),
    ("forward", ChainKind::Filter, Hook::Forward, 0, Kind::Refusing, ["refusing1", "refusing2"]),
    ("output", ChainKind::Filter, Hook::Output, 0, Kind::Refusing, ["refusing1", "refusing2"]),
    ("out_nat", ChainKind::Nat, Hook::Output, -100, Kind::Destination, ["destination1", "destination2"]),
    ("leave", ChainKind::Filter, Hook::Postrouting, 0, Kind::Plain, ["plain1", "plain2"]),
    ("source", ChainKind::Nat, Hook::Postrouting, 100, Kind::Source, ["source1", "source2"]),
    ("late", ChainKind::Filter, Hook::Postrouting, 200, Kind::Plain, ["plain1", "plain2"]),
];

const REGULAR: [(&str, Kind, &str); 8] = [
    ("plain1", Kind::Plain, "plain2"),
    ("plain2", Kind::Plain, ""),
    ("refusing1", Kind::Refusing, "refusing2"),
    ("refusing2", Kind::Refusing, ""),
    ("destination1", Kind::Destination, "destination2"),
    ("destination2", Kind::Destination, ""),
    ("source1", Kind::Source, "source2"),
    ("source2", Kind::Source, ""),
];

/// Recipes of each chain: first of the bases, then of the regular ones.
pub fn recipes() -> impl Strategy<Value = Vec<Vec<Recipe>>> {
    let recipe =
        (vec(0..CONDITIONS, 0..3), 0..ACTIONS).prop_map(|(conditions, action)| Recipe { conditions, action });
    let chains = BASES.len() + REGULAR.len();
    vec(vec(recipe, 0..4), chains..=chains)
}

pub fn ruleset(recipes: &[Vec<Recipe>]) -> Ruleset {
    let mut ruleset = Ruleset::new(Table::new(Family::Inet, "subject"));
    for set in sets() {
        ruleset = ruleset.set(set.0, set.1);
    }
    let mut recipes = recipes.iter();
    for (name, kind, hook, priority, holds, leads) in BASES {
        let mut rules = Vec::new();
        if name == "mangle" {
            // What is remembered depends on nothing random, so both sides remember the same.
            for (guard, source, set) in RECENT {
                let update = statement::update_set(set, &[source], Some(Duration::from_secs(60)));
                rules.push(
                    Rule::new(name).then(guard()).then(matches::input_interface(CLIENT_LINK)).then(update),
                );
            }
        }
        let made = recipes.next().unwrap().iter().map(|recipe| rule(name, holds, &leads, recipe));
        rules.extend(made);
        ruleset = ruleset.chain(Chain::base(name, kind, hook, priority), rules);
    }
    for (name, holds, lead) in REGULAR {
        let leads: &[&str] = if lead.is_empty() { &[] } else { &[lead] };
        let rules: Vec<_> =
            recipes.next().unwrap().iter().map(|recipe| rule(name, holds, leads, recipe)).collect();
        ruleset = ruleset.chain(Chain::regular(name), rules);
    }
    ruleset
}

type Guard = fn() -> Vec<Expression>;
const RECENT: [(Guard, Selector, &str); 2] =
    [(matches::ipv4, Selector::IpSource, "recent4"), (matches::ipv6, Selector::Ip6Source, "recent6")];

fn rule(chain: &str, holds: Kind, leads: &[&str], recipe: &Recipe) -> Rule {
    let mut rule = Rule::new(chain);
    for number in &recipe.conditions {
        rule = rule.then(condition(*number));
    }
    rule.then(action(holds, leads, recipe.action))
}

const CONDITIONS: usize = 24;

fn condition(number: usize) -> Vec<Expression> {
    let key4 = [Selector::IpDestination, Selector::L4Proto, Selector::DestinationPort];
    let key6 = [Selector::Ip6Destination, Selector::L4Proto, Selector::DestinationPort];
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let guarded4 = |more| [matches::ipv4(), more].concat();
    let guarded6 = |more| [matches::ipv6(), more].concat();
    match number {
        0 => matches::protocol(6),
        1 => matches::protocol(17),
        2 => matches::destination_port(80),
        3 => matches::destination_port_between(50, 100),
        4 => matches::source_in(net("10.9.1.0/26")),
        5 => matches::destination_not_in(net("10.9.2.0/24")),
        6 => matches::destination_in(net("fd09:2::/64")),
        7 => matches::destination_is_local(),
        8 => matches::destination_is_not_local(),
        9 => matches::source_is_local(),
        10 => matches::input_interface(CLIENT_LINK),
        11 => matches::output_interface("eth*"),
        12 => matches::masked_is(Selector::Mark, 0x6, 0x2),
        13 => matches::ct_state_any(ct_state::NEW | ct_state::RELATED),
        14 => matches::ct_status_any(ct_status::DNAT),
        15 => matches::ct_original_port(80),
        16 => guarded4(matches::in_set(&[Selector::IpSource], "nets4")),
        17 => guarded6(matches::not_in_set(&[Selector::Ip6Source], "nets6")),
        18 => guarded4(matches::in_set(&key4, "triples4")),
        19 => guarded6(matches::in_set(&key6, "triples6")),
        20 => guarded4(matches::in_set(&[Selector::IpSource, Selector::DestinationPort], "boxes4")),
        21 => guarded4(matches::not_in_set(&[Selector::IpSource], "recent4")),
        22 => guarded6(matches::in_set(&[Selector::Ip6Source], "recent6")),
        _ => matches::compare(
            Selector::CtTuple(CtKey::SourcePort, portolan_nft::CtDirection::Original),
            ComparisonOperator::Greater,
            Data::new().port(40_050),
        ),
    }
}

const ACTIONS: usize = 26;

fn action(holds: Kind, leads: &[&str], number: usize) -> Vec<Expression> {
    let verdict = |verdict| vec![Expression::Verdict(verdict)];
    let ways =
        |kind: Kind| statement::verdict_map(&[Selector::L4Proto, Selector::DestinationPort], ways(kind));
    match (number, holds, leads) {
        (0, ..) => verdict(Verdict::Accept),
        (1, ..) => verdict(Verdict::Drop),
        (2, ..) => verdict(Verdict::Return),
        (3 | 4, _, [lead, ..]) => verdict(Verdict::jump(*lead)),
        (5 | 6, _, [.., lead]) => verdict(Verdict::goto(*lead)),
        (7, ..) => statement::mark_or(0x2),
        (8, ..) => statement::mark_xor(0x6),
        (9, ..) => statement::mark_set(0x4),
        (10, ..) => statement::mark_and(0x2),
        (11 | 12, _, [_, _]) => ways(holds),
        (13, Kind::Refusing, _) => vec![statement::reject()],
        (14, Kind::Refusing, _) => vec![Expression::Reject(Reject::ADMIN_PROHIBITED)],
        (15, Kind::Refusing, _) => [matches::protocol(6), vec![statement::reject_with_reset()]].concat(),
        (13, Kind::Destination, _) => statement::dnat_to(at("10.9.2.9:8080")),
        (14, Kind::Destination, _) => statement::dnat_to(at("[fd09:2::9]:8080")),
        (15, Kind::Destination, _) => statement::dnat_to(at("10.9.1.1:0")),
        (16 | 17, Kind::Destination, _) => from_map(Family::Ip, Selector::NumgenRandom(4), "backs4"),
        (18, Kind::Destination, _) => from_map(Family::Ip6, Selector::NumgenRandom(4), "backs6"),
        (19 | 20, Kind::Destination, _) => {
            from_map(Family::Ip, Selector::HashIpSource(7, Some(0x1234)), "slots4")
        }
        (21 | 22, Kind::Destination, _) => {
            from_map(Family::Ip6, Selector::HashIp6Source(7, Some(0x77)), "slots6")
        }
        (23, Kind::Destination, _) => statement::redirect_to(99),
        (13 | 14, Kind::Source, _) => vec![statement::masquerade(NatFlags::FULLY_RANDOM)],
        (15, Kind::Source, _) => statement::snat_to(at("10.9.2.200:0")),
        (16, Kind::Source, _) => statement::snat_to(at("[fd09:2::200]:0")),
        _ => vec![Expression::Counter(portolan_nft::Counter::default())],
    }
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// `dnat ip addr . port to meta l4proto . SELECTOR map @MAP`, with the family's guard for what a hash reads.
fn from_map(family: Family, selector: Selector, map: &str) -> Vec<Expression> {
    let (guard, length) = if family == Family::Ip { (matches::ipv4(), 4) } else { (matches::ipv6(), 16) };
    let key = load(&[Selector::L4Proto, selector], Register::R1);
    let lookup = Expression::Lookup(portolan_nft::Lookup {
        set: map.to_owned(),
        key: Register::R1,
        result: portolan_nft::LookupResult::Data(Register::R1),
    });
    let nat = Expression::Nat(portolan_nft::Nat {
        kind: portolan_nft::NatKind::Destination,
        family,
        address: Some(Register::R1),
        address_last: None,
        port: Some(Register::R1.after(length)),
        port_last: None,
        flags: NatFlags::NONE,
    });
    [guard, key, vec![lookup, nat]].concat()
}

fn ways(kind: Kind) -> &'static str {
    match kind {
        Kind::Plain => "ways_plain",
        Kind::Refusing => "ways_refusing",
        Kind::Destination => "ways_destination",
        Kind::Source => "ways_source",
    }
}

fn sets() -> Vec<(Set, Vec<Element>)> {
    let mut sets = Vec::new();
    let interval = |first: &str, last: &str| {
        let data = |text: &str| Data::from(text.parse::<std::net::IpAddr>().unwrap());
        Element::interval(data(first), data(last))
    };
    sets.push((
        Set::new("nets4", [DataType::Ipv4Addr]).interval(),
        vec![interval("10.9.1.0", "10.9.1.31"), interval("10.9.1.64", "10.9.1.80")],
    ));
    sets.push((Set::new("nets6", [DataType::Ipv6Addr]).interval(), vec![interval("fd09:1::", "fd09:1::1f")]));
    for (name, address) in [("recent4", DataType::Ipv4Addr), ("recent6", DataType::Ipv6Addr)] {
        sets.push((Set::new(name, [address]).timeouts().dynamic(1000), Vec::new()));
    }
    for (name, address, texts) in [
        ("triples4", DataType::Ipv4Addr, ["10.9.2.9", "10.9.1.1"]),
        ("triples6", DataType::Ipv6Addr, ["fd09:2::9", "fd09:1::1"]),
    ] {
        let set = Set::new(name, [address, DataType::InetProto, DataType::InetService]);
        let ip = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        let key = |text, protocol, port| Data::new().ip(ip(text)).protocol(protocol).port(port);
        sets.push((
            set,
            vec![
                Element::new(key(texts[0], 6, 80)),
                Element::new(key(texts[0], 17, 53)),
                Element::new(key(texts[1], 132, 443)),
                Element::new(key(texts[1], 6, 443)),
            ],
        ));
    }
    let corner = |text: &str, port| Data::new().ip(text.parse::<std::net::IpAddr>().unwrap()).port(port);
    let boxes = Set::new("boxes4", [DataType::Ipv4Addr, DataType::InetService]).interval();
    sets.push((
        boxes,
        vec![
            Element::interval(corner("10.9.1.0", 40), corner("10.9.1.15", 100)),
            Element::interval(corner("10.9.1.60", 400), corner("10.9.1.90", 500)),
        ],
    ));
    for (kind, prefix) in [
        (Kind::Plain, "plain"),
        (Kind::Refusing, "refusing"),
        (Kind::Destination, "destination"),
        (Kind::Source, "source"),
    ] {
        let set = Set::verdict_map(ways(kind), [DataType::InetProto, DataType::InetService]);
        let key = |protocol, port| Data::new().protocol(protocol).port(port);
        sets.push((
            set,
            vec![
                Set::verdict(key(6, 80), Verdict::goto(format!("{prefix}2"))),
                Set::verdict(key(17, 53), Verdict::jump(format!("{prefix}1"))),
                Set::verdict(key(6, 443), Verdict::Return),
                Set::verdict(key(132, 80), Verdict::Accept),
                Set::verdict(key(17, 1000), Verdict::Drop),
            ],
        ));
    }
    for (name, count, family) in [("backs4", 4, 4), ("backs6", 4, 6), ("slots4", 7, 4), ("slots6", 7, 6)] {
        sets.push(backends(name, count, family));
    }
    sets
}

/// Protocol and index to an address and port; one index of UDP is missing, so the rule ends there.
fn backends(name: &str, count: u32, family: u8) -> (Set, Vec<Element>) {
    let (address, network) =
        if family == 4 { (DataType::Ipv4Addr, "10.9.2.") } else { (DataType::Ipv6Addr, "fd09:2::") };
    let set = Set::map(name, [DataType::InetProto, DataType::Integer], [address, DataType::InetService]);
    let mut elements = Vec::new();
    for protocol in [6_u8, 17, 132] {
        for index in (0..count).filter(|index| protocol != 17 || *index != 2) {
            let to = format!("{network}{}", 20 + index).parse::<std::net::IpAddr>().unwrap();
            let key = Data::new().protocol(protocol).number(index);
            elements.push(Set::entry(key, Data::new().ip(to).port(9000 + index as u16)));
        }
    }
    (set, elements)
}

/// Packets from the client's link and from the router, each with a source port of its own.
pub fn packets() -> impl Strategy<Value = Vec<(Packet, Origin)>> {
    let from_client = select(vec!["10.9.1.2", "10.9.1.30", "10.9.1.70", "10.9.1.99"]);
    let from_here = select(vec!["10.9.1.1", "10.9.2.1"]);
    let to = select(vec!["10.9.1.1", "10.9.2.1", "10.9.2.9", "10.9.2.2", "203.0.113.5"]);
    let port = select(vec![53_u16, 80, 443, 1000]);
    let protocol = select(vec![6_u8, 17, 132]);
    let one = (any::<bool>(), any::<bool>(), from_client, from_here, to, port, protocol);
    vec(one, 60..61).prop_map(|all| {
        let numbered = all.into_iter().zip(40_000_u16..);
        numbered
            .map(|((v4, here, client, own, to, port, protocol), source_port)| {
                let address = |text: &str| if v4 { text.to_owned() } else { six(text) };
                let source = address(if here { own } else { client });
                let source = SocketAddr::new(source.parse().unwrap(), source_port);
                let to = SocketAddr::new(address(to).parse().unwrap(), port);
                let origin = if here { Origin::Here } else { Origin::Interface(CLIENT_LINK.to_owned()) };
                (Packet::new(protocol, source, to), origin)
            })
            .collect()
    })
}

/// 10.9.1.70 is fd09:1::70.
pub fn six(text: &str) -> String {
    match text.strip_prefix("10.9.") {
        Some(rest) => format!("fd09:{}", rest.replacen('.', "::", 1)),
        None => "2001:db8::5".to_owned(),
    }
}
