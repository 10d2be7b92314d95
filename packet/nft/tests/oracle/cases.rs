//! Rules in nft's words beside ours. A new form of rule gets a line here first.

use std::time::Duration;

use portolan_nft::{
    Chain, CtDirection, CtKey, Data, DataType, Expression, Family, Fib, FibFlags, FibResult, IntoExpressions,
    Log, LogTarget, NatFlags, Quota, Register, Rule, Ruleset, Selector as S, Set, Table, Verdict, matches,
    statement,
};

/// The sets that the cases name, as text.
pub(crate) const SETS: &str = r"
    map ports { type inet_proto . inet_service : ipv4_addr . inet_service; }
    map ports6 { type inet_proto . inet_service : ipv6_addr . inet_service; }
    map blocks { type inet_service : ipv4_addr; flags interval; }
    map mixed_blocks { type inet_proto . inet_service : ipv4_addr; flags interval; }
    map reverse { type ipv4_addr . inet_proto . inet_service : inet_service; }
    map reverse_address { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }
    set hairpin { type ipv4_addr . ipv4_addr; }
    set hairpin6 { type ipv6_addr . ipv6_addr; }
    set allowed { type ipv4_addr . inet_proto . inet_service; flags interval; }
    set seen { type ipv4_addr . inet_service; size 65535; flags dynamic,timeout; timeout 1h; }
    map verdicts { type ipv4_addr . inet_proto . inet_service : verdict; counter; }
    map endpoints { typeof ip daddr . meta l4proto . th dport . numgen random mod 65535 : ip daddr . th dport; }
    map slots { typeof symhash mod 251 : ip daddr; }
    map hashed { typeof symhash mod 251 : ip daddr; }
    map turns { typeof numgen inc mod 3 : ip daddr; }
    set marks { type mark; }
    set links { type ifname; }
";

/// The same sets as ours.
pub(crate) fn sets() -> Vec<Set> {
    use DataType as T;
    let flow = [T::Ipv4Addr, T::InetProto, T::InetService];
    let front = [T::InetProto, T::InetService];
    let address = [T::Ipv4Addr];
    vec![
        Set::map("ports", front, [T::Ipv4Addr, T::InetService]),
        Set::map("ports6", front, [T::Ipv6Addr, T::InetService]),
        Set::map("blocks", [T::InetService], address).interval(),
        Set::map("mixed_blocks", front, address).interval(),
        Set::map("reverse", flow, [T::InetService]),
        Set::map("reverse_address", flow, [T::Ipv4Addr, T::InetService]),
        Set::new("hairpin", [T::Ipv4Addr, T::Ipv4Addr]),
        Set::new("hairpin6", [T::Ipv6Addr, T::Ipv6Addr]),
        Set::new("allowed", flow).interval(),
        Set::new("seen", [T::Ipv4Addr, T::InetService]).timeout(Duration::from_secs(3600)).dynamic(65_535),
        Set::verdict_map("verdicts", flow).counter(),
        Set::map("endpoints", [], [T::Ipv4Addr, T::InetService]).key_typeof([
            S::IpDestination,
            S::L4Proto,
            S::DestinationPort,
            S::NumgenRandom(65_535),
        ]),
        Set::map("slots", [], address).key_typeof([S::SymmetricHash(251)]),
        Set::map("hashed", [], address).key_typeof([S::HashIpSource(251, None)]),
        Set::map("turns", [], address).key_typeof([S::NumgenIncremental(3)]),
        Set::new("marks", [T::Mark]),
        Set::new("links", [T::InterfaceName]),
    ]
}

/// A rule in both languages.
pub(crate) struct Case {
    pub(crate) text: &'static str,
    pub(crate) expressions: Vec<Expression>,
}

fn case<const N: usize>(text: &'static str, parts: [Vec<Expression>; N]) -> Case {
    Case { text, expressions: parts.concat() }
}

fn one(expression: impl IntoExpressions) -> Vec<Expression> {
    let mut expressions = Vec::new();
    expression.append_to(&mut expressions);
    expressions
}

fn counter() -> Vec<Expression> {
    one(Expression::Counter(portolan_nft::Counter::default()))
}

fn accept() -> Vec<Expression> {
    one(Verdict::Accept)
}

const FRONT: [S; 2] = [S::L4Proto, S::DestinationPort];
const FLOW: [S; 3] = [S::IpSource, S::L4Proto, S::SourcePort];
const TCP: u8 = 6;

/// Every form of rule that Portolan writes, and those which its issues ahead will.
pub(crate) fn cases() -> Vec<Case> {
    let mut all = nat();
    all.extend(matching());
    all.extend(acting());
    all
}

fn nat() -> Vec<Case> {
    let (ip, ip6) = (Family::Ip, Family::Ip6);
    let (dnat, hairpin) = (matches::ct_status::DNAT, [S::IpSource, S::IpDestination]);
    let none = NatFlags::NONE;
    vec![
        case("dnat ip to meta l4proto . th dport map @ports", [statement::dnat_map(ip, &FRONT, "ports")]),
        case("dnat ip6 to meta l4proto . th dport map @ports6", [statement::dnat_map(ip6, &FRONT, "ports6")]),
        case(
            "dnat ip to th dport map @blocks",
            [statement::dnat_address_map(ip, &[S::DestinationPort], "blocks")],
        ),
        case(
            "meta l4proto udp dnat ip to th dport map @blocks",
            [matches::protocol(17), statement::dnat_address_map(ip, &[S::DestinationPort], "blocks")],
        ),
        case(
            "dnat ip to meta l4proto . th dport map @mixed_blocks",
            [statement::dnat_address_map(ip, &FRONT, "mixed_blocks")],
        ),
        case(
            "meta l4proto tcp masquerade to : ip saddr . meta l4proto . th sport map @reverse",
            [matches::protocol(TCP), matches::ipv4(), statement::masquerade_map(&FLOW, "reverse")],
        ),
        case(
            "snat ip to ip saddr . meta l4proto . th sport map @reverse_address",
            [matches::ipv4(), statement::snat_map(ip, &FLOW, "reverse_address")],
        ),
        case(
            "ct status dnat ip saddr . ip daddr @hairpin masquerade",
            [
                matches::ct_status_any(dnat),
                matches::ipv4(),
                matches::in_set(&hairpin, "hairpin"),
                one(statement::masquerade(none)),
            ],
        ),
        case(
            "ct status dnat ip6 saddr . ip6 daddr @hairpin6 masquerade fully-random",
            [
                matches::ct_status_any(dnat),
                matches::ipv6(),
                matches::in_set(&[S::Ip6Source, S::Ip6Destination], "hairpin6"),
                one(statement::masquerade(NatFlags::FULLY_RANDOM)),
            ],
        ),
        case(
            "masquerade random,persistent",
            [one(statement::masquerade(NatFlags { persistent: true, ..NatFlags::RANDOM }))],
        ),
        case(
            "meta l4proto tcp masquerade to :32768-60999",
            [matches::protocol(TCP), statement::masquerade_to(32_768, 60_999, none)],
        ),
        case(
            "meta l4proto tcp masquerade to :1024",
            [matches::protocol(TCP), statement::masquerade_to(1024, 1024, none)],
        ),
        case(
            "meta l4proto tcp masquerade to :32768-60999 fully-random",
            [matches::protocol(TCP), statement::masquerade_to(32_768, 60_999, NatFlags::FULLY_RANDOM)],
        ),
        case("meta l4proto tcp redirect to :8080", [matches::protocol(TCP), statement::redirect_to(8080)]),
        case(
            "meta l4proto tcp dnat ip to 10.0.0.1:80",
            [matches::protocol(TCP), statement::dnat_to("10.0.0.1:80".parse().unwrap())],
        ),
        case("dnat ip to 10.0.0.1", [statement::dnat_to("10.0.0.1:0".parse().unwrap())]),
        case(
            "meta l4proto tcp dnat ip6 to [fd00::1]:80",
            [matches::protocol(TCP), statement::dnat_to("[fd00::1]:80".parse().unwrap())],
        ),
        case("snat ip to 192.0.2.1", [statement::snat_to("192.0.2.1:0".parse().unwrap())]),
        case(
            "meta l4proto tcp dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 3 map @endpoints",
            [
                matches::protocol(TCP),
                matches::ipv4(),
                statement::dnat_map(
                    ip,
                    &[S::IpDestination, S::L4Proto, S::DestinationPort, S::NumgenRandom(3)],
                    "endpoints",
                ),
            ],
        ),
        case(
            "dnat ip to symhash mod 251 map @slots",
            [statement::dnat_address_map(ip, &[S::SymmetricHash(251)], "slots")],
        ),
        case(
            "dnat ip to jhash ip saddr mod 251 seed 0x7 map @hashed",
            [matches::ipv4(), statement::dnat_address_map(ip, &[S::HashIpSource(251, Some(7))], "hashed")],
        ),
        case(
            "dnat ip to numgen inc mod 3 map @turns",
            [statement::dnat_address_map(ip, &[S::NumgenIncremental(3)], "turns")],
        ),
    ]
}

fn matching() -> Vec<Case> {
    use matches::ct_state as state;
    let net = |text: &str| text.parse::<ipnet::IpNet>().unwrap();
    let addresses = Data::new;
    vec![
        case(
            "fib daddr type local jump target",
            [matches::destination_is_local(), one(Verdict::jump("target"))],
        ),
        case("fib saddr type local goto target", [matches::source_is_local(), one(Verdict::goto("target"))]),
        case(
            "fib saddr . iif oif missing drop",
            [
                one([
                    Expression::Fib(Fib {
                        flags: FibFlags::SADDR | FibFlags::IIF | FibFlags::PRESENT,
                        result: FibResult::OutputInterface,
                        to: Register::R1,
                    }),
                    Expression::Compare(portolan_nft::Compare {
                        operator: portolan_nft::ComparisonOperator::Equal,
                        register: Register::R1,
                        value: Data::new().number(0),
                    }),
                ]),
                one(Verdict::Drop),
            ],
        ),
        case(
            "ip saddr . meta l4proto . th sport @allowed accept",
            [matches::ipv4(), matches::in_set(&FLOW, "allowed"), accept()],
        ),
        case(
            "ip saddr . meta l4proto . th sport != @allowed drop",
            [matches::ipv4(), matches::not_in_set(&FLOW, "allowed"), one(Verdict::Drop)],
        ),
        case(
            "ip saddr . meta l4proto . th sport vmap @verdicts",
            [matches::ipv4(), statement::verdict_map(&FLOW, "verdicts")],
        ),
        case("meta mark @marks accept", [matches::in_set(&[S::Mark], "marks"), accept()]),
        case("iifname @links accept", [matches::in_set(&[S::InputInterface], "links"), accept()]),
        case(
            "ct state established,related accept",
            [matches::ct_state_any(state::ESTABLISHED | state::RELATED), accept()],
        ),
        case("ct state invalid drop", [matches::ct_state_any(state::INVALID), one(Verdict::Drop)]),
        case("ct direction original accept", [matches::ct_direction(CtDirection::Original), accept()]),
        case("ct direction reply return", [matches::ct_direction(CtDirection::Reply), one(Verdict::Return)]),
        case(
            "meta l4proto tcp ct original proto-dst 22 accept",
            [matches::protocol(TCP), matches::ct_original_port(22), accept()],
        ),
        case(
            "ct original ip daddr 10.0.0.1 accept",
            [
                matches::is(
                    S::CtTuple(CtKey::DestinationIpv4, CtDirection::Original),
                    addresses().ipv4([10, 0, 0, 1].into()),
                ),
                accept(),
            ],
        ),
        case("ct mark 0x5 accept", [matches::is(S::CtMark, Data::new().number(5)), accept()]),
        case("ip daddr 10.213.0.0/16 accept", [matches::destination_in(net("10.213.0.0/16")), accept()]),
        case("ip saddr 10.213.0.0/20 accept", [matches::source_in(net("10.213.0.0/20")), accept()]),
        case("ip saddr != 10.213.0.0/20 accept", [matches::source_not_in(net("10.213.0.0/20")), accept()]),
        case(
            "ip daddr != 10.213.0.0/16 accept",
            [matches::destination_not_in(net("10.213.0.0/16")), accept()],
        ),
        case("ip daddr 10.213.0.1 accept", [matches::destination_in(net("10.213.0.1/32")), accept()]),
        case(
            "ip6 daddr fd70:6f72:746f::/64 accept",
            [matches::destination_in(net("fd70:6f72:746f::/64")), accept()],
        ),
        case(
            "ip6 saddr fd70:6f72:746f::/60 accept",
            [matches::source_in(net("fd70:6f72:746f::/60")), accept()],
        ),
        case("iifname \"plm*\" accept", [matches::input_interface("plm*"), accept()]),
        case("iifname != \"lo\" accept", [matches::input_interface_is_not("lo"), accept()]),
        case("oifname \"eth0\" accept", [matches::output_interface("eth0"), accept()]),
        case("oifname != \"plm*\" accept", [matches::output_interface_is_not("plm*"), accept()]),
        case(
            "meta l4proto tcp th dport 20000-29999 accept",
            [matches::protocol(TCP), matches::destination_port_between(20_000, 29_999), accept()],
        ),
        case(
            "meta l4proto tcp th dport != 20000-29999 accept",
            [
                matches::protocol(TCP),
                matches::not_between(S::DestinationPort, Data::new().port(20_000), Data::new().port(29_999)),
                accept(),
            ],
        ),
        case(
            "meta l4proto udp th dport 53 accept",
            [matches::protocol(17), matches::destination_port(53), accept()],
        ),
        case("meta nfproto ipv6 accept", [matches::ipv6(), accept()]),
        case(
            "meta mark & 0x4000 == 0x4000 drop",
            [matches::masked_is(S::Mark, 0x4000, 0x4000), one(Verdict::Drop)],
        ),
    ]
}

fn acting() -> Vec<Case> {
    let key = [S::IpSource, S::DestinationPort];
    let minute = Some(Duration::from_secs(60));
    vec![
        case(
            "update @seen { ip saddr . th dport timeout 1m }",
            [matches::ipv4(), statement::update_set("seen", &key, minute)],
        ),
        case(
            "update @seen { ip saddr . th dport }",
            [matches::ipv4(), statement::update_set("seen", &key, None)],
        ),
        case(
            "add @seen { ip saddr . th dport timeout 1m limit rate 5/second burst 5 packets }",
            [
                matches::ipv4(),
                statement::add_to_set("seen", &key, minute, one(statement::limit_per_second(5, 5))),
            ],
        ),
        case("counter accept", [counter(), accept()]),
        case("reject with icmpx type port-unreachable", [one(statement::reject())]),
        case(
            "meta l4proto tcp reject with tcp reset",
            [matches::protocol(TCP), one(statement::reject_with_reset())],
        ),
        case(
            "limit rate 10/second burst 5 packets accept",
            [one(statement::limit_per_second(10, 5)), accept()],
        ),
        case(
            "ct state new log prefix \"portolan: \" level warn",
            [matches::ct_state_any(matches::ct_state::NEW), one(statement::log("portolan: "))],
        ),
        case(
            "log group 2 snaplen 128",
            [one(Expression::Log(Log {
                prefix: String::new(),
                target: LogTarget::Group { group: 2, snap_length: 128 },
            }))],
        ),
        case("notrack", [one(statement::notrack())]),
        case("meta mark set 0x1", [statement::mark_set(1)]),
        case("meta mark set meta mark or 0x4000", [statement::mark_or(0x4000)]),
        case("meta mark set meta mark xor 0x4000", [statement::mark_xor(0x4000)]),
        case("meta mark set meta mark and 0xffffbfff", [statement::mark_and(0xffff_bfff)]),
        case("ct mark set meta mark", [statement::ct_mark_from_packet()]),
        case("meta mark set ct mark", [statement::mark_from_ct()]),
        case(
            "quota over 100 mbytes drop",
            [one(Expression::Quota(Quota { bytes: 100 << 20, consumed: 0, over: true })), one(Verdict::Drop)],
        ),
        case("ct count over 20 drop", [one(statement::connections_over(20)), one(Verdict::Drop)]),
        case("continue", [one(Verdict::Continue)]),
    ]
}

/// Each case in a chain of its own, by number.
pub(crate) fn ruleset(name: &str) -> Ruleset {
    let table = Table::new(Family::Inet, name);
    let mut ruleset = Ruleset::new(table).chain(Chain::regular("target"), []);
    for set in sets() {
        ruleset = ruleset.set(set, []);
    }
    for (number, case) in cases().into_iter().enumerate() {
        let chain = format!("case{number}");
        let rule = Rule { expressions: case.expressions, ..Rule::new(chain.clone()) };
        ruleset = ruleset.chain(Chain::regular(chain), [rule]);
    }
    ruleset
}

/// The same in nft's words.
pub(crate) fn ruleset_text(name: &str) -> String {
    let mut text = format!("table inet {name} {{ {SETS}\nchain target {{ }}\n");
    for (number, case) in cases().iter().enumerate() {
        text += &format!("chain case{number} {{ {}; }}\n", case.text);
    }
    text + "}\n"
}
