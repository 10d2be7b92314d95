//! The grammar of `-p`: what each form asks for, that what is printed reads back, and what a wrong text is told.

use portolan_model::{PortRequest, Protocol, Protocols, RequestError};
use proptest::prelude::*;

fn read(text: &str) -> PortRequest {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn refused(text: &str) -> String {
    text.parse::<PortRequest>().expect_err(text).to_string()
}

#[test]
fn every_form_asks_for_what_it_says() {
    let http = read("http");
    assert_eq!((http.name.as_str(), http.protocols, http.count), ("http", Protocols::TCP, 1));
    assert_eq!((http.host, http.container, http.address), (None, None, None));

    let game = read("game/tcp+udp");
    assert!(game.protocols.contains(Protocol::Tcp) && game.protocols.contains(Protocol::Udp));

    assert_eq!(read("media/udp:100").count, 100);
    assert_eq!((read("media/udp:100=30000").host, read("media/udp:100=30000").count), (Some(30000), 100));
    assert_eq!((read("web=8443").host, read("web=8443").container), (Some(8443), None));
    assert_eq!((read("web=:8080").host, read("web=:8080").container), (None, Some(8080)));
    assert_eq!((read("web=8443:8080").host, read("web=8443:8080").container), (Some(8443), Some(8080)));

    let bound = read("web=127.0.0.2:8443:8080");
    assert_eq!(
        (bound.address, bound.host, bound.container),
        ("127.0.0.2".parse().ok(), Some(8443), Some(8080))
    );
    let bound = read("web=[fd00::5]::8080");
    assert_eq!((bound.address, bound.host, bound.container), ("fd00::5".parse().ok(), None, Some(8080)));
    let bound = read("web=192.0.2.1:8443:");
    assert_eq!((bound.address, bound.host, bound.container), ("192.0.2.1".parse().ok(), Some(8443), None));

    assert_eq!(read("sip/udp,pool=media").pool.map(String::from), Some("media".to_owned()));
}

#[test]
fn the_unspecified_address_is_every_address() {
    assert_eq!(read("web=0.0.0.0:8443:8080").address, None);
    assert_eq!(read("web=[::]:8443:8080").address, None);
}

#[test]
fn a_wrong_text_is_told_what_and_where() {
    for (text, needle) in [
        ("", "a name is empty"),
        ("Http", "no DNS label"),
        ("http/icmp", "use tcp, udp or sctp"),
        ("http/tcp+tcp", "tcp is named twice"),
        ("http:0", "\"0\" is no count"),
        ("http:x", "\"x\" is no count"),
        ("http=0", "\"0\" is no host port"),
        ("http=65536", "\"65536\" is no host port: use a number from 1 to 65535"),
        ("http=+80", "\"+80\" is no host port"),
        ("http=80:0", "\"0\" is no container port"),
        ("http=", "is no host port"),
        ("http=:", "is no container port"),
        ("http=localhost:80:80", "\"localhost\" is no IP address"),
        ("http,poll=x", "\"poll=x\" is no option"),
        ("media/udp:10=:5000", "same numbers inside and outside"),
        ("media/udp:100=65500", "100 ports from 65500 on go past 65535"),
    ] {
        let message = refused(text);
        assert!(message.contains(needle), "{text:?}: {message}");
        assert!(text.is_empty() || message.contains(text), "{text:?} is not quoted in: {message}");
    }
    assert!(matches!("web=[::1]".parse::<PortRequest>(), Err(RequestError::Number { .. })));
}

prop_compose! {
    fn request()(
        name in "[a-z][a-z0-9]{0,14}",
        protocols in prop::sample::subsequence(&Protocol::ALL[..], 1..=3),
        count in prop_oneof![3 => Just(1u16), 1 => 2u16..2000],
        host in prop::option::of(1u16..=60000),
        container in prop::option::of(1u16..),
        address in prop::option::of(prop_oneof![
            any::<[u8; 4]>().prop_map(std::net::IpAddr::from),
            any::<[u8; 16]>().prop_map(std::net::IpAddr::from),
        ].prop_filter("a real address", |a| !a.is_unspecified())),
        pool in prop::option::of("[a-z]{1,8}"),
    ) -> PortRequest {
        PortRequest {
            name: name.parse().expect("a label"),
            protocols: protocols.into_iter().collect(),
            count,
            host,
            container: if count > 1 { None } else { container },
            address,
            pool: pool.map(|p| p.parse().expect("a label")),
        }
    }
}

proptest! {
    #[test]
    fn what_is_printed_reads_back_as_the_same(request in request()) {
        prop_assert_eq!(read(&request.to_string()), request);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,40}") {
        let _ = text.parse::<PortRequest>();
    }
}
