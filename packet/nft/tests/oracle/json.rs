//! What we load, `nft -j list` reads as it was meant: sets and elements, through the types of crate `nftables`.

use std::time::Duration;

use nftables::expr::Expression;
use portolan_nft::{
    Chain, Data, DataType, Element, Family, Kernel, Nft, Ruleset, Selector, Set, Table, Verdict,
};
use portolan_testkit::{need_root, net::private_namespace, nft};
use serde_json::{Value, json};

/// The elements of a set or map as nft lists them, read through the crate's types.
fn elements(listing: &Value, name: &str) -> Value {
    let objects = listing["nftables"].as_array().unwrap();
    let found = objects.iter().find(|object| object["map"]["name"] == name || object["set"]["name"] == name);
    let found = found.unwrap_or_else(|| panic!("nft lists no {name}"));
    // Only elements go through the crate (0.6.3): it has no word for verdicts as a map's type, nor for nft 1.0.6's way
    // of naming the types of a concatenation there.
    let object = if found["map"].is_null() { &found["set"] } else { &found["map"] };
    let elements: Vec<Expression<'_>> = serde_json::from_value(object["elem"].clone())
        .unwrap_or_else(|error| panic!("elements of {name}: {error}: {object}"));
    serde_json::to_value(elements).unwrap()
}

fn address(last: u8) -> Data {
    Data::new().ipv4([10, 0, 0, last].into())
}

#[test]
fn nft_lists_elements_as_they_were_meant() {
    need_root!();
    use DataType as T;
    let ports = Set::map("ports", [T::InetProto, T::InetService], [T::Ipv4Addr, T::InetService]);
    let port = Set::entry(Data::new().protocol(17).port(20_417), address(2).port(53)).comment("dns of one");
    let blocks = Set::map("blocks", [T::InetService], [T::Ipv4Addr]).interval();
    let block = Element::interval(Data::new().port(21_000), Data::new().port(21_099)).value(address(3));
    let single = Element::new(Data::new().port(21_100)).value(address(3));
    let allowed = Set::new("allowed", [T::Ipv4Addr, T::InetService]).interval();
    let range = Element::interval(address(0).port(80), address(255).port(90));
    let verdicts = Set::verdict_map("verdicts", [T::Ipv6Addr]).counter();
    let verdict = Set::verdict(Data::new().ipv6("fd00::1".parse().unwrap()), Verdict::jump("target"));
    let fading = Set::new("fading", [T::Mark]).timeouts();
    let fades = Element::new(Data::new().number(7)).timeout(Duration::from_secs(3600));
    let links = Set::new("links", [T::InterfaceName]);
    let ruleset = Ruleset::new(Table::new(Family::Inet, "portolan"))
        .chain(Chain::regular("target"), [])
        .set(ports, [port])
        .set(blocks, [block, single])
        .set(allowed, [range])
        .set(verdicts, [verdict])
        .set(fading, [fades])
        .set(links, [Element::new(Data::new().interface("eth0"))]);
    private_namespace(|| {
        Kernel::open().unwrap().run(&ruleset.creation()).unwrap();
        let listing = nft::list_json("table inet portolan");
        assert_eq!(
            elements(&listing, "ports"),
            json!([[
                { "elem": { "val": { "concat": ["udp", 20_417] }, "timeout": null, "expires": null,
                            "comment": "dns of one", "counter": null } },
                { "concat": ["10.0.0.2", 53] }
            ]])
        );
        assert_eq!(
            elements(&listing, "blocks"),
            json!([[{ "range": [21_000, 21_099] }, "10.0.0.3"], [21_100, "10.0.0.3"]])
        );
        assert_eq!(
            elements(&listing, "allowed"),
            json!([{ "concat": [{ "prefix": { "addr": "10.0.0.0", "len": 24 } }, { "range": [80, 90] }] }])
        );
        let verdict = &elements(&listing, "verdicts")[0];
        assert_eq!(verdict[0]["elem"]["val"], "fd00::1");
        assert_eq!(verdict[0]["elem"]["counter"], json!({ "packets": 0, "bytes": 0 }));
        assert_eq!(verdict[1], json!({ "jump": { "target": "target" } }));
        let fading = &elements(&listing, "fading")[0]["elem"];
        assert_eq!((&fading["val"], &fading["timeout"]), (&json!(7), &json!(3600)));
        assert_eq!(elements(&listing, "links"), json!(["eth0"]));
    });
}

#[test]
fn nft_lists_numbers_of_numgen_as_numbers() {
    need_root!();
    let set = Set::map("turns", [], [DataType::Ipv4Addr])
        .key_typeof([Selector::DestinationPort, Selector::NumgenRandom(2)]);
    let alone = Set::map("alone", [], [DataType::Ipv4Addr]).key_typeof([Selector::HashIpSource(2, Some(1))]);
    let ruleset = Ruleset::new(Table::new(Family::Inet, "portolan"))
        .set(set, [Set::entry(Data::new().port(80).number(1), address(1))])
        .set(alone, [Set::entry(Data::new().number(1), address(1))]);
    private_namespace(|| {
        Kernel::open().unwrap().run(&ruleset.creation()).unwrap();
        let text = nft::nft("list table inet portolan");
        assert!(text.contains("typeof th dport . numgen random mod 2 : ip "), "{text}");
        assert!(text.contains("elements = { 80 . 1 : 10.0.0.1 }"), "{text}");
        assert!(text.contains("elements = { 1 : 10.0.0.1 }"), "{text}");
    });
}
