//! Questions to a catalog made by hand, and random catalogs for what must hold in all of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

/// A catalog from a list.
#[derive(Debug, Default)]
struct Hand {
    instances: BTreeMap<String, Arc<Instance>>,
    services: BTreeMap<String, Vec<Arc<Instance>>>,
}

impl View for Hand {
    fn index(&self) -> u64 {
        (1 << 32) + 7
    }
    fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.instances.get(name)
    }
    fn copies(&self, service: &str) -> &[Arc<Instance>] {
        self.services.get(service).map_or(&[], Vec::as_slice)
    }
}

impl FromIterator<Instance> for Hand {
    fn from_iter<I: IntoIterator<Item = Instance>>(instances: I) -> Self {
        let mut hand = Self::default();
        for instance in instances {
            let instance = Arc::new(instance);
            hand.services.entry(instance.service.to_string()).or_default().push(instance.clone());
            hand.instances.insert(instance.key.name.to_string(), instance);
        }
        hand
    }
}

/// `ports` as `name/protocols=port` with commas between.
fn instance(name: &str, service: &str, state: State, addresses: &[&str], ports: &str) -> Instance {
    let ports: Vec<_> = ports
        .split(',')
        .filter(|port| !port.is_empty())
        .map(|port| {
            let (left, number) = port.split_once('=').unwrap();
            let (name, protocols) = left.split_once('/').unwrap();
            let protocols: Vec<_> = protocols.split('+').collect();
            serde_json::json!({ "name": name, "protocols": protocols, "port": number })
        })
        .collect();
    serde_json::from_value(serde_json::json!({
        "name": name, "incarnation": "1", "service": service, "node": "n", "addresses": addresses, "ports": ports,
        "state": state, "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

fn ask(hand: &Hand, name: &str, kind: RecordType) -> Answer {
    ask_at_most(hand, name, kind, usize::MAX)
}

fn ask_at_most(hand: &Hand, name: &str, kind: RecordType, most: usize) -> Answer {
    let zone = Zone::new("portolan.internal", 5).unwrap().with_servers(vec!["127.0.0.1".parse().unwrap()]);
    answer(&zone, hand, &Name::from_ascii(name).unwrap(), kind, most, &mut rand::rng()).unwrap()
}

fn texts(records: &[Record]) -> Vec<String> {
    let mut texts: Vec<_> = records.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    texts.sort();
    texts
}

/// NOERROR and no record, NXDOMAIN, or records; and for how long "no" may be kept.
fn verdict(answer: &Answer) -> String {
    let minimum = answer.authority.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => {
            assert_eq!(record.ttl, soa.minimum, "resolvers take the smaller of the two: RFC 2308");
            Some(soa.minimum)
        }
        _ => None,
    });
    match (answer.code, answer.answers.len(), minimum) {
        (ResponseCode::NoError, 0, Some(minimum)) => format!("NODATA {minimum}"),
        (ResponseCode::NXDomain, 0, Some(minimum)) => format!("NXDOMAIN {minimum}"),
        (ResponseCode::NoError, records, None) => format!("{records}"),
        odd => panic!("{odd:?}"),
    }
}

fn fleet() -> Hand {
    use State::{Critical, Expired, Passing, Unknown, Warning};
    [
        instance("web-1", "web", Passing, &["192.0.2.1", "2001:db8::1"], "http/tcp=20001,game/tcp+udp=20002"),
        instance("web-2", "web", Warning, &["192.0.2.1"], "http/tcp=20003"),
        instance("web-3", "web", Critical, &["192.0.2.3"], "http/tcp=20004,admin/tcp=20005"),
        instance("web-4", "web", Unknown, &["192.0.2.4"], ""),
        instance("down-1", "down", Critical, &["192.0.2.5"], "http/tcp=20006"),
        instance("down-2", "down", Expired, &["192.0.2.6"], "http/tcp=20007"),
        instance("bare", "bare", Passing, &["192.0.2.7"], ""),
        instance("media", "media", Passing, &["192.0.2.8"], "rtp/udp=21000-21099"),
        // A service and an instance of another service share a name, as do an instance and its own service.
        instance("shared", "other", Passing, &["192.0.2.9"], "p/tcp=20009"),
        instance("shared-1", "shared", Passing, &["192.0.2.10"], "p/tcp=20010"),
        instance("dns", "dns", Passing, &["192.0.2.11"], "domain/udp=53"),
    ]
    .into_iter()
    .collect()
}

#[test]
fn a_service_answers_with_the_addresses_of_all_that_are_served() {
    let fleet = fleet();
    let a = ask(&fleet, "web.portolan.internal.", RecordType::A);
    assert_eq!(texts(&a.answers), ["web.portolan.internal. 192.0.2.1"], "served copies, each address once");
    assert_eq!(a.answers[0].ttl, 5);
    let aaaa = ask(&fleet, "web.portolan.internal.", RecordType::AAAA);
    assert_eq!(texts(&aaaa.answers), ["web.portolan.internal. 2001:db8::1"]);
    assert_eq!(verdict(&ask(&fleet, "web.portolan.internal.", RecordType::ANY)), "2");
}

#[test]
fn an_instance_answers_with_its_own_addresses() {
    let fleet = fleet();
    let a = ask(&fleet, "web-1.portolan.internal.", RecordType::A);
    assert_eq!(texts(&a.answers), ["web-1.portolan.internal. 192.0.2.1"]);
    assert_eq!(verdict(&ask(&fleet, "web-1.instance.portolan.internal.", RecordType::AAAA)), "1");
    assert_eq!(verdict(&ask(&fleet, "web-2.portolan.internal.", RecordType::AAAA)), "NODATA 1");
    assert_eq!(verdict(&ask(&fleet, "web-3.portolan.internal.", RecordType::A)), "NODATA 0", "not served");
}

#[test]
fn srv_tells_the_port_of_each_copy() {
    let fleet = fleet();
    let srv = ask(&fleet, "_http._tcp.web.portolan.internal.", RecordType::SRV);
    assert_eq!(
        texts(&srv.answers),
        [
            "_http._tcp.web.portolan.internal. 0 10 20003 web-2.portolan.internal.",
            "_http._tcp.web.portolan.internal. 0 100 20001 web-1.portolan.internal.",
        ]
    );
    assert_eq!(
        texts(&srv.additional),
        [
            "web-1.portolan.internal. 192.0.2.1",
            "web-1.portolan.internal. 2001:db8::1",
            "web-2.portolan.internal. 192.0.2.1",
        ]
    );
    // All ports; the number that TCP and UDP share once.
    let all = ask(&fleet, "web.portolan.internal.", RecordType::SRV);
    let ports: BTreeSet<u16> = all
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::SRV(srv) => srv.port,
            other => panic!("{other}"),
        })
        .collect();
    assert_eq!((all.answers.len(), ports), (3, [20001, 20002, 20003].into()));
    let one = ask(&fleet, "_game._udp.web-1.portolan.internal.", RecordType::SRV);
    assert_eq!(
        texts(&one.answers),
        ["_game._udp.web-1.portolan.internal. 0 100 20002 web-1.portolan.internal."]
    );
    let block = ask(&fleet, "_rtp._udp.media.portolan.internal.", RecordType::SRV);
    assert!(texts(&block.answers)[0].contains(" 0 100 21000 "), "the first port of the block");
}

#[test]
fn every_name_is_there_or_not_as_the_rfcs_say() {
    let fleet = fleet();
    use RecordType::{A, AAAA, MX, NS, SOA, SRV, TXT};
    for (name, kind, expected) in [
        // Existing names with another type.
        ("web", TXT, "NODATA 1"),
        ("bare", SRV, "NODATA 1"),
        ("bare", AAAA, "NODATA 1"),
        ("_http._tcp.web", A, "NODATA 1"),
        // A service with nobody served exists all the same.
        ("down", A, "NODATA 0"),
        ("down", SRV, "NODATA 0"),
        ("_http._tcp.down", SRV, "NODATA 0"),
        ("_admin._tcp.web", SRV, "NODATA 1"),
        // RFC 8020: what has something below it exists.
        ("_tcp.web", SRV, "NODATA 1"),
        ("_udp.web", A, "NODATA 1"),
        ("instance", A, "NODATA 1"),
        ("", A, "NODATA 1"),
        ("", MX, "NODATA 1"),
        ("", SOA, "1"),
        ("", NS, "1"),
        ("ns.dns", A, "1"),
        ("ns.dns", AAAA, "NODATA 1"),
        // A service called as what is reserved.
        ("dns", A, "1"),
        ("_domain._udp.dns", SRV, "1"),
        // Nothing.
        ("nobody", A, "NXDOMAIN 1"),
        ("nobody", SRV, "NXDOMAIN 1"),
        ("_https._tcp.web", SRV, "NXDOMAIN 1"),
        ("_http._udp.web", SRV, "NXDOMAIN 1"),
        ("_sctp.web", SRV, "NXDOMAIN 1"),
        ("_tcp.bare", SRV, "NXDOMAIN 1"),
        ("a.web", A, "NXDOMAIN 1"),
        ("_a._http._tcp.web", SRV, "NXDOMAIN 1"),
        ("web.instance", A, "NXDOMAIN 1"),
        ("*", A, "NXDOMAIN 1"),
    ] {
        let full = format!("{name}{}portolan.internal.", if name.is_empty() { "" } else { "." });
        assert_eq!(verdict(&ask(&fleet, &full, kind)), expected, "{full} {kind}");
    }
}

#[test]
fn an_srv_target_means_one_instance_only() {
    let fleet = fleet();
    // `shared` alone would be the service of that name, whose address is another.
    let srv = ask(&fleet, "_p._tcp.other.portolan.internal.", RecordType::SRV);
    assert_eq!(
        texts(&srv.answers),
        ["_p._tcp.other.portolan.internal. 0 100 20009 shared.instance.portolan.internal."]
    );
    let a = ask(&fleet, "shared.instance.portolan.internal.", RecordType::A);
    assert_eq!(texts(&a.answers), ["shared.instance.portolan.internal. 192.0.2.9"]);
    let a = ask(&fleet, "shared.portolan.internal.", RecordType::A);
    assert_eq!(texts(&a.answers), ["shared.portolan.internal. 192.0.2.10"]);
    // The only copy of the service of its own name needs no long name.
    let srv = ask(&fleet, "media.portolan.internal.", RecordType::SRV);
    assert!(texts(&srv.answers)[0].ends_with(" media.portolan.internal."));
}

#[test]
fn case_is_ignored_and_given_back() {
    let fleet = fleet();
    let srv = ask(&fleet, "_HTTP._tcp.WeB.PortoLan.Internal.", RecordType::SRV);
    assert_eq!(srv.answers.len(), 2);
    for record in &srv.answers {
        assert_eq!(record.name.to_ascii(), "_HTTP._tcp.WeB.PortoLan.Internal.");
    }
    assert!(texts(&srv.answers)[0].ends_with(".PortoLan.Internal."), "the zone as the asker spells it");
}

#[test]
fn the_serial_rises_with_the_index() {
    let soa = ask(&fleet(), "portolan.internal.", RecordType::SOA);
    let RData::SOA(soa) = &soa.answers[0].data else { panic!() };
    assert_eq!((soa.serial, soa.mname.to_ascii()), (7, "ns.dns.portolan.internal.".to_owned()));
}

#[test]
fn more_records_than_wanted_are_cut_and_said_to_be() {
    let fleet: Hand = (0..60)
        .map(|i| instance(&format!("i-{i}"), "s", State::Passing, &[&format!("192.0.2.{i}")], "p/tcp=1"))
        .collect();
    let a = ask_at_most(&fleet, "s.portolan.internal.", RecordType::A, 32);
    assert_eq!((a.answers.len(), a.cut), (32, true));
    let srv = ask_at_most(&fleet, "s.portolan.internal.", RecordType::SRV, 60);
    assert_eq!((srv.answers.len(), srv.cut, srv.additional.len()), (60, false, 60));
    // Over many questions everyone comes first: what is cut is not always the same.
    let seen: BTreeSet<String> = (0..400)
        .map(|_| texts(&ask_at_most(&fleet, "s.portolan.internal.", RecordType::A, 1).answers).remove(0))
        .collect();
    assert!(seen.len() > 40, "{}", seen.len());
}

#[test]
fn a_name_outside_the_zone_is_not_answered() {
    let zone = Zone::new("portolan.internal", 5).unwrap();
    for name in ["example.org.", "internal.", ".", "web.portolan.internal.example.org."] {
        let name = Name::from_ascii(name).unwrap();
        assert!(answer(&zone, &fleet(), &name, RecordType::A, 10, &mut rand::rng()).is_none(), "{name}");
    }
}

/// Small worlds where names collide often.
fn worlds() -> impl Strategy<Value = Vec<Instance>> {
    const NAMES: [&str; 6] = ["a", "b", "web", "instance", "dns", "ns"];
    let one = (
        select(&NAMES[..]),
        select(&NAMES[..]),
        select(&State::ALL[..]),
        vec(select(&["192.0.2.1", "192.0.2.2", "2001:db8::1"][..]), 0..3),
        select(&["", "p/tcp=1", "p/udp=1,q/tcp=2", "p/tcp+udp=3,q/tcp=3"][..]),
    );
    vec(one.prop_map(|(n, s, state, ips, ports)| instance(n, s, state, &ips, ports)), 0..8).prop_map(|list| {
        // The last registration of a name wins, as in the catalog.
        let unique: BTreeMap<_, _> = list.into_iter().map(|i| (i.key.name.clone(), i)).collect();
        unique.into_values().collect()
    })
}

proptest! {
    #[test]
    fn all_that_are_served_are_in_the_answer_and_nobody_else(world in worlds()) {
        let hand: Hand = world.iter().cloned().collect();
        for service in hand.services.keys() {
            let served: Vec<_> = hand.services[service].iter().filter(|i| i.state.is_served()).collect();
            let addresses = |v4: bool| -> BTreeSet<String> {
                served.iter().flat_map(|i| &i.addresses).filter(|ip| ip.is_ipv4() == v4).map(ToString::to_string).collect()
            };
            for (kind, v4) in [(RecordType::A, true), (RecordType::AAAA, false)] {
                let got = ask(&hand, &format!("{service}.portolan.internal."), kind);
                let list: Vec<_> = got.answers.iter().map(|r| r.data.to_string()).collect();
                prop_assert_eq!(list.len(), addresses(v4).len(), "no duplicates");
                prop_assert_eq!(list.into_iter().collect::<BTreeSet<_>>(), addresses(v4));
                prop_assert_eq!(got.code, ResponseCode::NoError, "a service that exists is never denied");
            }
            let got = ask(&hand, &format!("_p._tcp.{service}.portolan.internal."), RecordType::SRV);
            let mut expected: Vec<u16> = served.iter().filter(|i| has(i, "p", Protocol::Tcp))
                .map(|i| i.port("p").unwrap().port.first()).collect();
            expected.sort_unstable();
            let mut ports = Vec::new();
            for record in &got.answers {
                let RData::SRV(srv) = &record.data else { panic!("{record}") };
                ports.push(srv.port);
                // Following the target leads to exactly that instance.
                let name = srv.target.iter().next().map(|l| String::from_utf8_lossy(l).into_owned()).unwrap();
                let copy = &hand.instances[&name];
                prop_assert!(copy.state.is_served() && copy.service.as_str() == service);
                let a = ask(&hand, &srv.target.to_ascii(), RecordType::ANY);
                let found: BTreeSet<_> = a.answers.iter().map(|r| r.data.to_string()).collect();
                prop_assert_eq!(found, copy.addresses.iter().map(ToString::to_string).collect::<BTreeSet<_>>());
            }
            ports.sort_unstable();
            prop_assert_eq!(ports, expected);
        }
    }

    #[test]
    fn no_name_that_has_something_below_is_denied(world in worlds(), name in "(_[a-z]{1,4}\\.)?(_tcp\\.|_udp\\.)?(a|b|web|instance|dns|ns|ns\\.dns|a\\.instance)\\.portolan\\.internal\\.") {
        let hand: Hand = world.into_iter().collect();
        let denied = |name: &Name| ask(&hand, &name.to_ascii(), RecordType::A).code == ResponseCode::NXDomain;
        let name = Name::from_ascii(&name).unwrap();
        if !denied(&name) && name.num_labels() > 2 {
            prop_assert!(!denied(&name.base_name()), "{} exists, {} does not", name, name.base_name());
        }
    }
}
