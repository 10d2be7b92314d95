use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Network, Protocols};

fn port(name: &str, number: u16, protocol: &str) -> ContainerPort {
    let name = (!name.is_empty()).then(|| name.to_owned());
    ContainerPort { name, number, protocol: protocol.parse().unwrap(), host_port: None }
}

/// The requests of a Pod as texts, or the refusal.
fn resolved(ask: &str, ports: &[ContainerPort]) -> Result<Vec<String>, String> {
    let ask: Ask = ask.parse().map_err(|error: AskError| error.to_string())?;
    let requests = ask.resolve(ports).map_err(|error| error.to_string())?;
    Ok(requests.iter().map(ToString::to_string).collect())
}

fn pod() -> Vec<ContainerPort> {
    vec![port("http", 8080, "tcp"), port("game", 7777, "udp"), port("", 9090, "tcp")]
}

#[test]
fn names_and_numbers_of_container_ports_give_number_and_protocol() {
    for (ask, expected) in [
        ("http", "http=:8080"),
        ("8080", "http=:8080"),
        ("9090", "9090=:9090"),
        ("game", "game/udp=:7777"),
        ("game/tcp+udp", "game/tcp+udp=:7777"),
        ("game/tcp", "game=:7777"),
        ("http=8443", "http=8443:8080"),
        ("http=8443:8080", "http=8443:8080"),
        ("http=127.0.0.2:8443:", "http=127.0.0.2:8443:8080"),
        ("http,pool=web", "http=:8080,pool=web"),
        // Nobody says so, and it is a number all the same.
        ("1234/udp", "1234/udp=:1234"),
        // A name of nobody's: the same number inside and outside.
        ("sip/udp", "sip/udp"),
        ("media/udp:100", "media/udp:100"),
        // The protocol of the container port that it says.
        ("other=:7777", "other/udp=:7777"),
        ("other/tcp=:7777", "other=:7777"),
    ] {
        assert_eq!(resolved(ask, &pod()), Ok(vec![expected.to_owned()]), "{ask}");
    }
}

#[test]
fn a_number_with_two_protocols_is_one_number_outside() {
    let dns = [port("dns", 53, "udp"), port("dns-tcp", 53, "tcp")];
    assert_eq!(resolved("53", &dns).unwrap(), ["53/tcp+udp=:53"]);
    assert_eq!(resolved("dns", &dns).unwrap(), ["dns/udp=:53"]);
    let nameless = [port("", 53, "udp"), port("", 53, "tcp")];
    assert_eq!(resolved("*", &nameless).unwrap(), ["53/tcp+udp=:53"]);
}

#[test]
fn a_star_is_every_container_port_that_nobody_else_names() {
    assert_eq!(resolved("*", &pod()).unwrap(), ["http=:8080", "game/udp=:7777", "9090=:9090"]);
    assert_eq!(
        resolved("*, pool=big, http=8443", &pod()).unwrap(),
        ["http=8443:8080", "game/udp=:7777,pool=big", "9090=:9090,pool=big"]
    );
    let mut with_static = pod();
    with_static[0].host_port = Some(80);
    assert_eq!(resolved("*", &with_static).unwrap(), ["game/udp=:7777", "9090=:9090"]);
    let same_names = [port("http", 80, "tcp"), port("http", 81, "tcp")];
    assert_eq!(resolved("*", &same_names).unwrap(), ["80=:80", "81=:81"]);
    assert!(resolved("*", &[]).unwrap_err().contains("list them under ports:"));
}

#[test]
fn refusals_say_what_to_change() {
    let same_names = [port("http", 80, "tcp"), port("http", 81, "tcp")];
    for (ask, ports, hint) in [
        ("http,,game", pod(), "take one comma away"),
        ("pool=media,http", pod(), "write PORT,pool=media"),
        ("*/udp", pod(), "* stands alone"),
        ("*,*", pod(), "once is enough"),
        ("http,8080", pod(), "two ports are named http: give each a name of its own"),
        ("http=:9", pod(), "http is the container port 8080, and \"http=:9\" says 9: leave 9 out"),
        ("http", same_names.to_vec(), "80 and 81 are both named http: ask for them by number"),
        ("game:10", pod(), "or write game/udp:10=7777"),
        ("70000", pod(), "70000 is no port"),
        ("080", pod(), "080 is no port"),
        ("http=8443,web=8443", pod(), "http and web both want the host port 8443"),
        ("http=80,media/tcp:10=75", pod(), "both want the host port 80"),
        ("http/icmp", pod(), "use tcp, udp or sctp"),
    ] {
        let error = resolved(ask, &ports).unwrap_err();
        assert!(error.contains(hint), "{ask}: {error}");
    }
}

#[test]
fn host_ports_that_differ_in_protocol_or_address_are_no_conflict() {
    assert_eq!(resolved("a/udp=9000,b/tcp=9000", &[]).unwrap().len(), 2);
    assert_eq!(resolved("a=127.0.0.2:9000:,b=127.0.0.3:9000:", &[]).unwrap().len(), 2);
    assert!(resolved("a=127.0.0.2:9000:,b=9000", &[]).is_err());
}

#[test]
fn on_the_host_network_numbers_are_the_same_inside_and_outside() {
    let on_host = |ask: &str| {
        let mut declared = port("metrics", 9100, "tcp");
        declared.host_port = Some(9100);
        ask.parse::<Ask>().unwrap().resolve_on(Network::Host, &[declared])
    };
    assert_eq!(on_host("http, game/udp").unwrap().len(), 2);
    assert_eq!(on_host("http=8443:8443").unwrap().len(), 1);
    for ask in ["*", "metrics", "9100", "1234"] {
        assert!(on_host(ask).unwrap_err().to_string().contains("ask for other names"), "{ask}");
    }
    assert!(on_host("http=:8080").unwrap_err().to_string().contains("leave 8080 out"));
}

#[test]
fn annotations_are_read_as_a_pod_has_them() {
    let read = |pairs: &[(&str, &str)]| {
        let annotations = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Ask::read(&annotations.collect::<BTreeMap<_, _>>())
    };
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[(PORTS_ANNOTATION, " ")]), Ok(None));
    // Galaxy's is overwritten by its result, so its value says nothing.
    for value in ["", "[{\"hostPort\":1}]"] {
        let ask = read(&[(GALAXY_ANNOTATION, value)]).unwrap().unwrap();
        let requests = ask.resolve(&pod()).unwrap();
        assert_eq!(requests.len(), 3);
        assert_eq!(ask.resolve(&[]), Ok(vec![]));
    }
    let ask = read(&[(PORTS_ANNOTATION, "http"), (ENVIRONMENT_ANNOTATION, "false")]).unwrap().unwrap();
    assert!(!ask.environment && !ask.galaxy);
    let error = read(&[(PORTS_ANNOTATION, "http"), (ENVIRONMENT_ANNOTATION, "no")]).unwrap_err().to_string();
    assert_eq!(error, "portolan.dev/ports-env: \"no\" is neither \"true\" nor \"false\"");
}

#[test]
fn a_pool_owes_one_port_for_each_number() {
    let ask: Ask = "http, game/tcp+udp, media/udp:100,pool=media, web=8443".parse().unwrap();
    let demand = demand(&ask.resolve(&[]).unwrap());
    assert_eq!(demand, BTreeMap::from([(None, 3), (Some("media".parse().unwrap()), 100)]));
}

fn protocols() -> impl Strategy<Value = Protocols> {
    prop::sample::subsequence(Protocol::ALL.to_vec(), 1..=3).prop_map(|all| all.into_iter().collect())
}

prop_compose! {
    fn item()(
        name in "[a-z][a-z0-9]{0,5}|[1-9][0-9]{0,3}",
        protocols in protocols(),
        said in any::<bool>(),
        count in prop_oneof![Just(1_u16), 2..200_u16],
        host in prop::option::of(1..60_000_u16),
        container in prop::option::of(1..=u16::MAX),
        address in prop::option::of(any::<std::net::IpAddr>().prop_filter("every", |a| !a.is_unspecified())),
        pool in prop::option::of("[a-z]{1,5}"),
        star in prop::bool::weighted(0.1),
    ) -> Item {
        let pool = pool.map(|pool| Name::new(pool).unwrap());
        if star {
            return Item::All { pool };
        }
        // Without a word about it the text means TCP.
        let protocols = if said { protocols } else { Protocols::TCP };
        let container = if count > 1 { None } else { container };
        let name = Name::new(name).unwrap();
        Item::Port {
            request: PortRequest { protocols, count, host, container, address, pool, ..PortRequest::named(name) },
            protocol: said,
        }
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_as_the_same(items in prop::collection::vec(item(), 1..8)) {
        let mut stars = 0;
        let items: Vec<Item> = items
            .into_iter()
            .filter(|item| !matches!(item, Item::All { .. }) || { stars += 1; stars == 1 })
            .collect();
        let ask = Ask { items, galaxy: false, environment: true };
        prop_assert_eq!(ask.to_string().parse::<Ask>(), Ok(ask));
    }

    #[test]
    fn no_text_breaks_the_reader(text in "[a-z0-9*,/:=+.\\[\\] -]{0,40}") {
        if let Ok(ask) = text.parse::<Ask>() {
            let _ = ask.resolve(&pod());
            let _ = ask.resolve_on(Network::Host, &pod());
        }
    }

    #[test]
    fn what_is_resolved_has_names_and_host_ports_of_its_own(
        items in prop::collection::vec(item(), 1..8),
        numbers in prop::collection::vec((prop::option::of("[a-z]{1,3}"), 1..2000_u16, 0..3_usize), 0..8),
    ) {
        let ask = Ask { items, galaxy: false, environment: true };
        let ports: Vec<ContainerPort> = numbers
            .into_iter()
            .map(|(name, number, protocol)| ContainerPort {
                name, number, protocol: Protocol::ALL[protocol], host_port: None,
            })
            .collect();
        let Ok(requests) = ask.resolve(&ports) else { return Ok(()) };
        for (index, one) in requests.iter().enumerate() {
            prop_assert!(!one.protocols.is_empty());
            prop_assert!(one.count == 1 || one.container.is_none());
            for other in &requests[..index] {
                prop_assert_ne!(&one.name, &other.name);
            }
        }
        // With a star nothing is left out.
        if ask.items.iter().any(|item| matches!(item, Item::All { .. })) {
            for port in &ports {
                let published = requests.iter().any(|request| {
                    request.container.or(request.host).is_some_and(|first| {
                        crate::PortRange::block(first, request.count).is_some_and(|all| all.contains(port.number))
                    }) && request.protocols.contains(port.protocol)
                });
                prop_assert!(published, "{port:?} is not in {requests:?}");
            }
        }
    }
}
