//! The table as text: `table.nft` is what `nft` prints of it and reads again, `any.nft` the same where others made the
//! instances' networks, and the snapshots are its elements.
//!
//! After a wanted change of the rules: `PORTOLAN_BLESS=1 cargo test -p portolan-plan --test scenarios`, and read the
//! difference in the files before it is committed.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{at, block, port};
use portolan_model::{Mapping, Protocol};
use portolan_nft::{Kernel, Nft as _, Ruleset};
use portolan_plan::{Plan, PlanConfig};
use portolan_testkit::{need_root, net::private_namespace, nft};

fn ruleset(mappings: &[Mapping]) -> Ruleset {
    let config = PlanConfig { interfaces: Some("plv".to_owned()), ..PlanConfig::default() };
    Plan::with(config, mappings).unwrap().ruleset()
}

/// The sets that hold something, as text.
fn elements(mappings: &[Mapping]) -> String {
    let mut ruleset = ruleset(mappings);
    ruleset.chains.clear();
    ruleset.sets.retain(|filled| !filled.elements.is_empty() && !filled.set.name.starts_with("instances"));
    ruleset.to_string()
}

fn v4_only(mapping: Mapping) -> Mapping {
    Mapping { v6: None, ..mapping }
}

/// Something of everything.
fn all() -> Vec<Mapping> {
    vec![
        port(Protocol::Tcp, 20417, 2, 80),
        port(Protocol::Udp, 20417, 2, 7777),
        v4_only(port(Protocol::Sctp, 20418, 3, 38412)),
        block(Protocol::Udp, 21000, 21099, 2),
        at("192.0.2.1", port(Protocol::Udp, 20417, 3, 7777)),
        at("2001:db8::1", block(Protocol::Tcp, 22000, 22009, 3)),
    ]
}

#[test]
fn one_number_for_tcp_and_udp() {
    insta::assert_snapshot!(elements(&all()[..2]));
}

#[test]
fn a_block_of_a_hundred() {
    insta::assert_snapshot!(elements(&[v4_only(block(Protocol::Udp, 21000, 21099, 2))]));
}

#[test]
fn mappings_of_one_address() {
    insta::assert_snapshot!(elements(&all()[4..]));
}

#[test]
fn an_instance_port_that_is_published_three_times() {
    let mappings = [
        v4_only(port(Protocol::Udp, 20002, 2, 7777)),
        v4_only(port(Protocol::Udp, 20001, 2, 7777)),
        at("192.0.2.1", port(Protocol::Udp, 20003, 2, 7777)),
    ];
    insta::assert_snapshot!(elements(&mappings));
}

#[test]
fn the_table_is_the_one_that_people_read() {
    need_root!();
    people_read("table.nft", &ruleset(&all()));
}

#[test]
fn the_table_where_others_made_the_networks_is_the_one_that_people_read() {
    need_root!();
    people_read("any.nft", &Plan::with(common::kubernetes(), &all()).unwrap().ruleset());
}

fn people_read(file: &str, ruleset: &Ruleset) {
    let by_us = private_namespace(|| {
        Kernel::open().unwrap().run(&ruleset.creation()).unwrap();
        nft::nft("list table inet portolan")
    });
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(file);
    if std::env::var_os("PORTOLAN_BLESS").is_some() {
        std::fs::write(&file, &by_us).unwrap();
    }
    // Read by nft and printed again: versions of nft print the same in different ways.
    let by_nft = private_namespace(|| {
        nft::load(&std::fs::read_to_string(&file).unwrap());
        nft::nft("list table inet portolan")
    });
    assert_eq!(by_nft, by_us);
}
