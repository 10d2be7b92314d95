//! Questions for names of Services, against the table of the specification.

use hickory_proto::rr::{Name, RecordType};
use portolan_model::Instance;

use super::*;
use crate::{answer::answer, zone::Zone};

struct Only(ServiceNames);

impl View for Only {
    fn index(&self) -> u64 {
        7
    }
    fn instance(&self, _: &str) -> Option<&Arc<Instance>> {
        None
    }
    fn copies(&self, _: &str) -> &[Arc<Instance>] {
        &[]
    }
    fn services(&self) -> Option<&ServiceNames> {
        Some(&self.0)
    }
}

fn port(name: &str, protocol: Protocol, port: u16) -> NamedPort {
    NamedPort { name: name.to_owned(), protocol, port }
}

fn endpoint(hostname: Option<&str>, address: &str, number: u16) -> NamedEndpoint {
    NamedEndpoint {
        hostname: hostname.map(str::to_owned),
        address: address.parse().unwrap(),
        ports: vec![port("http", Protocol::Tcp, number)],
    }
}

fn names() -> Only {
    let cluster = |addresses: &[&str], ports| ServiceName::Cluster {
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        ports,
        endpoints: vec![endpoint(Some("web-0"), "10.213.0.2", 8080)],
    };
    let http = || port("http", Protocol::Tcp, 80);
    let services = [
        ("web", cluster(&["10.96.0.1"], vec![http(), port("dns", Protocol::Udp, 53)])),
        ("dual", cluster(&["10.96.0.2", "fd00::2"], vec![http()])),
        ("bare", cluster(&["10.96.0.3"], vec![port("", Protocol::Tcp, 80)])),
        (
            "headless",
            ServiceName::Headless(vec![
                endpoint(None, "10.213.0.2", 81),
                endpoint(Some("b"), "10.213.0.3", 82),
            ]),
        ),
        ("empty", ServiceName::Headless(Vec::new())),
        ("inside", ServiceName::External("web.default.svc.portolan.internal".to_owned())),
        ("outside", ServiceName::External("example.com".to_owned())),
        ("circle", ServiceName::External("circle.default.svc.portolan.internal.".to_owned())),
        ("address", ServiceName::External("192.0.2.1".to_owned())),
    ];
    Only(services.into_iter().map(|(name, service)| (ObjectName::new("default", name), service)).collect())
}

/// Code, answers and glue as text, sorted; `name` is before the zone.
fn ask(name: &str, kind: RecordType) -> (ResponseCode, Vec<String>, Vec<String>) {
    let zone = Zone::new("portolan.internal", 5).unwrap();
    let name = Name::from_ascii(format!("{name}.portolan.internal.")).unwrap();
    let answer = answer(&zone, &names(), &name, kind, 100, &mut rand::rng()).unwrap();
    let texts = |records: &[Record]| {
        let mut texts: Vec<_> =
            records.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
        texts.sort();
        texts
    };
    assert_eq!(answer.answers.is_empty(), !answer.authority.is_empty(), "{name} {kind}");
    (answer.code, texts(&answer.answers), texts(&answer.additional))
}

fn says(name: &str, kind: RecordType) -> String {
    let (code, answers, _) = ask(name, kind);
    match (code, answers.is_empty()) {
        (ResponseCode::NoError, true) => "nothing".to_owned(),
        (ResponseCode::NoError, false) => answers.join(", "),
        (code, _) => code.to_str().to_owned(),
    }
}

const NO: &str = "Non-Existent Domain";

#[test]
fn a_service_has_its_cluster_addresses_whether_it_has_endpoints_or_not() {
    assert_eq!(says("web.default.svc", RecordType::A), "web.default.svc.portolan.internal. 10.96.0.1");
    assert_eq!(says("web.default.svc", RecordType::AAAA), "nothing");
    assert_eq!(says("dual.default.svc", RecordType::AAAA), "dual.default.svc.portolan.internal. fd00::2");
    assert_eq!(says("web.default.svc", RecordType::TXT), "nothing");
    assert_eq!(says("WEB.Default.SVC", RecordType::A), "WEB.Default.SVC.portolan.internal. 10.96.0.1");
}

#[test]
fn a_port_is_found_by_name_and_protocol() {
    let (_, answers, glue) = ask("_http._tcp.web.default.svc", RecordType::SRV);
    assert_eq!(
        answers,
        ["_http._tcp.web.default.svc.portolan.internal. 0 100 80 web.default.svc.portolan.internal."]
    );
    assert_eq!(glue, ["web.default.svc.portolan.internal. 10.96.0.1"]);
    assert_eq!(says("_http._udp.web.default.svc", RecordType::SRV), NO);
    assert_eq!(says("_no._tcp.web.default.svc", RecordType::SRV), NO);
    assert_eq!(says("_tcp.web.default.svc", RecordType::SRV), "nothing");
    let (_, all, _) = ask("web.default.svc", RecordType::SRV);
    assert_eq!(all.len(), 2);
    assert!(all.iter().all(|one| one.contains(" 0 50 ")), "{all:?}");
    // A port without a name has no SRV record of its own.
    assert_eq!(says("_._tcp.bare.default.svc", RecordType::SRV), NO);
}

#[test]
fn a_headless_service_is_its_endpoints() {
    let (_, addresses, _) = ask("headless.default.svc", RecordType::A);
    assert_eq!(addresses.len(), 2);
    let (_, ports, glue) = ask("_http._tcp.headless.default.svc", RecordType::SRV);
    assert!(ports[0].ends_with(" 0 50 81 10-213-0-2.headless.default.svc.portolan.internal."), "{ports:?}");
    assert!(ports[1].ends_with(" 0 50 82 b.headless.default.svc.portolan.internal."), "{ports:?}");
    assert_eq!(glue.len(), 2);
    assert_eq!(
        says("b.headless.default.svc", RecordType::A),
        "b.headless.default.svc.portolan.internal. 10.213.0.3"
    );
    assert_eq!(
        says("web-0.web.default.svc", RecordType::A),
        "web-0.web.default.svc.portolan.internal. 10.213.0.2"
    );
    assert_eq!(says("c.headless.default.svc", RecordType::A), NO);
    // It exists; a denial would be kept beyond the outage.
    assert_eq!(says("empty.default.svc", RecordType::A), "nothing");
}

#[test]
fn an_external_name_is_an_alias() {
    let inside = says("inside.default.svc", RecordType::A);
    assert!(
        inside.contains("inside.default.svc.portolan.internal. web.default.svc.portolan.internal."),
        "{inside}"
    );
    assert!(inside.contains("web.default.svc.portolan.internal. 10.96.0.1"), "{inside}");
    assert_eq!(
        says("outside.default.svc", RecordType::AAAA),
        "outside.default.svc.portolan.internal. example.com."
    );
    assert_eq!(says("outside.default.svc", RecordType::SRV), "nothing");
    assert_eq!(says("x.outside.default.svc", RecordType::A), NO);
    assert_eq!(says("address.default.svc", RecordType::A), NO);
    // It ends.
    assert!(says("circle.default.svc", RecordType::A).contains("circle"));
}

#[test]
fn names_between_exist_and_unknown_ones_do_not() {
    assert_eq!(says("svc", RecordType::A), "nothing");
    assert_eq!(says("default.svc", RecordType::A), "nothing");
    assert_eq!(says("other.svc", RecordType::A), NO);
    assert_eq!(says("none.default.svc", RecordType::A), NO);
    assert_eq!(says("a.b.web.default.svc", RecordType::A), NO);
}

#[test]
fn an_address_is_a_label() {
    let label = |text: &str| dashed(text.parse().unwrap());
    assert_eq!(label("172.0.0.2"), "172-0-0-2");
    assert_eq!(label("5678:abcd::1"), "5678-abcd--1");
    assert_eq!(label("5678:abcd::"), "5678-abcd--0");
    assert_eq!(label("::1"), "0--1");
}
