//! Promises about single things.

use std::net::IpAddr;

use portolan_nft::{
    Chain, ChainKind, Data, DataType, Expression, Family, Hook, Limit, LimitUnit, LookupResult, Register,
    Rule, Ruleset, Selector, Set, Table,
    evaluate::{EvaluateError, Every, Fate, Host, Machine, Origin, Packet, What, jhash},
    load, matches, statement,
};

fn packet() -> Packet {
    Packet::new(6, "192.0.2.1:4000".parse().unwrap(), "192.0.2.2:80".parse().unwrap())
}

fn machine(rules: Vec<Rule>, sets: Vec<Set>) -> Machine {
    let mut ruleset = Ruleset::new(Table::new(Family::Inet, "t"));
    for set in sets {
        ruleset = ruleset.set(set, []);
    }
    let chain = Chain::base("c", ChainKind::Filter, Hook::Prerouting, 0);
    Machine::new(Host::new()).with(&ruleset.chain(chain, rules))
}

fn run(rules: Vec<Rule>) -> Result<Fate, EvaluateError> {
    let origin = Origin::Interface("eth0".to_owned());
    Ok(machine(rules, vec![]).outcomes(&packet(), &origin)?.remove(0).fate)
}

#[test]
fn what_only_a_kernel_can_run_is_an_error() {
    let limit = Limit { rate: 1, period: 1, burst: 5, unit: LimitUnit::Packets, over: false };
    let error = run(vec![Rule::new("c").then(Expression::Limit(limit)).drop()]).unwrap_err();
    assert_eq!(error.to_string(), "inet t c rule 1: limit cannot be evaluated here");
}

#[test]
fn a_register_that_nothing_wrote_is_an_error() {
    let compare = matches::is(Selector::Mark, Data::new().number(1)).remove(1);
    let error = run(vec![Rule::new("c").then(compare)]).unwrap_err();
    assert!(matches!(error, EvaluateError::Unset { .. }), "{error}");
}

#[test]
fn nat_in_a_filter_chain_is_an_error() {
    let error =
        run(vec![Rule::new("c").then(statement::dnat_to("192.0.2.9:1".parse().unwrap()))]).unwrap_err();
    assert!(matches!(error, EvaluateError::Misplaced { .. }), "{error}");
}

#[test]
fn what_is_not_there_is_an_error() {
    let lookup = matches::in_set(&[Selector::IpSource], "nothing");
    assert!(matches!(run(vec![Rule::new("c").then(lookup)]), Err(EvaluateError::Missing { .. })));
    let jump = Rule::new("c").jump("nowhere");
    assert!(matches!(run(vec![jump]), Err(EvaluateError::Missing { .. })));
}

#[test]
fn chains_in_a_circle_end_as_an_error() {
    let ruleset = Ruleset::new(Table::new(Family::Inet, "t"))
        .chain(Chain::base("c", ChainKind::Filter, Hook::Prerouting, 0), [Rule::new("c").goto("d")])
        .chain(Chain::regular("d"), [Rule::new("d").goto("d")]);
    let result = Machine::new(Host::new()).with(&ruleset).outcomes(&packet(), &Origin::Interface("e".into()));
    assert!(matches!(result, Err(EvaluateError::Endless { .. })));
}

#[test]
fn a_full_set_ends_the_rule() {
    let set = Set::new("s", [DataType::InetService]).dynamic(1);
    let add = statement::add_to_set("s", &[Selector::SourcePort], None, vec![]);
    let mut machine = machine(vec![Rule::new("c").then(add).drop()], vec![set]);
    let mut fates = Vec::new();
    for port in [4000, 4001, 4000] {
        let mut packet = packet();
        packet.source.set_port(port);
        let outcome = machine.send(packet, &Origin::Interface("e".into()), &mut Every::new()).unwrap();
        fates.push(matches!(outcome.fate, Fate::Dropped { .. }));
    }
    // The second does not fit; the third is there already.
    assert_eq!(fates, [true, false, true]);
    assert_eq!(machine.elements("s").len(), 1);
}

#[test]
fn steps_tell_what_was_found() {
    let set = Set::new("s", [DataType::Ipv4Addr]);
    let rule = Rule::new("c").then(matches::not_in_set(&[Selector::IpSource], "s")).drop();
    let machine = machine(vec![rule], vec![set]);
    let outcome = machine.outcomes(&packet(), &Origin::Interface("e".into())).unwrap().remove(0);
    let looked = outcome.steps.iter().find(|step| matches!(step.what, What::Looked { found: None, .. }));
    assert_eq!(looked.unwrap().to_string(), "prerouting, inet t c rule 1: not in s");
}

/// Values of `lookup3.c` by Bob Jenkins, whose `hashlittle` the kernel's `jhash` is, but for the initial value's
/// length being added the same way: 0xdeadbeef for no bytes.
#[test]
fn the_hash_of_nothing_is_its_beginning() {
    assert_eq!(jhash(&[], 0), 0xdead_beef);
    // lookup3.c, driver5: "Four score and seven years ago" with initial values 0 and 1.
    assert_eq!(jhash(b"Four score and seven years ago", 0), 0x1777_0551);
    assert_eq!(jhash(b"Four score and seven years ago", 1), 0xcd62_8161);
}

#[test]
fn a_register_may_hold_only_what_fits() {
    let loads = load(&[Selector::Ip6Source], Register::word(14));
    let lookup =
        portolan_nft::Lookup { set: "s".to_owned(), key: Register::word(14), result: LookupResult::Found };
    let rule = Rule::new("c").then(loads).then(Expression::Lookup(lookup));
    let set = Set::new("s", [DataType::Ipv6Addr]);
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let packet = Packet::new(6, (ip("2001:db8::1"), 1).into(), (ip("2001:db8::2"), 2).into());
    let result = machine(vec![rule], vec![set]).outcomes(&packet, &Origin::Interface("e".into()));
    assert!(matches!(result, Err(EvaluateError::Unset { .. })));
}

/// Nat chains see packets of tracked connections only, and connections are tracked where a rule needs it: `dnat` of one
/// version of IP does not make the nat chains of the other work.
#[test]
fn without_a_rule_that_needs_connections_no_nat_chain_is_asked() {
    let mark_of = |more: Vec<Expression>| {
        let chain = Chain::base("c", ChainKind::Nat, Hook::Prerouting, -100);
        let mark = Rule::new("c").then(statement::mark_set(7));
        let other = Rule::new("c").then(more);
        let ruleset = Ruleset::new(Table::new(Family::Inet, "t")).chain(chain, [mark, other]);
        let machine = Machine::new(Host::new()).with(&ruleset);
        machine.outcomes(&packet(), &Origin::Interface("eth0".to_owned())).unwrap()[0].packet.mark
    };
    let to = |text: &str| statement::dnat_to(text.parse().unwrap());
    assert_eq!(mark_of(Vec::new()), 0);
    assert_eq!(mark_of([matches::ipv6(), to("[2001:db8::1]:80")].concat()), 0);
    assert_eq!(mark_of(to("192.0.2.9:80")), 7);
}
