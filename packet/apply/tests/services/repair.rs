//! What others do to the table is undone within a second, and what they do elsewhere is left alone.

use std::time::Duration;

use portolan_apply::ServiceEvent::{SetService, SetSlice};
use portolan_testkit::{eventually, need_root, net::private_namespace, nft};

use crate::{
    assert_planned, generation,
    objects::{many, service, slice, some},
    start,
};

const SECOND: Duration = Duration::from_secs(1);

/// Runs `harm` on a table in order, and expects it to be as before within a second.
fn survives(harm: impl FnOnce() + Send) {
    need_root!();
    private_namespace(|| {
        nft::load("table ip other { set s { type ipv4_addr; elements = { 192.0.2.7 }; }; }");
        let theirs = nft::nft("list table ip other");
        let (mut services, mut slices) = some();
        let plane = start(&services, &slices);
        harm();
        eventually(SECOND, || plane.stats().repairs > 0);
        assert_planned(&services, &slices);
        // And it is ours again: changes go on.
        services.push(service(50));
        slices.push(slice(50, [50, 51]));
        plane.change(vec![SetService(service(50)), SetSlice(slice(50, [50, 51]))]).unwrap();
        assert_planned(&services, &slices);
        assert_eq!(plane.stats().failed_repairs, 0);
        if nft::nft("list tables").contains("table ip other") {
            assert_eq!(nft::nft("list table ip other"), theirs);
        }
    });
}

#[test]
fn a_flush_of_all_rules() {
    survives(|| drop(nft::nft("flush ruleset")));
}

#[test]
fn a_deleted_table() {
    survives(|| drop(nft::nft("delete table inet portolan-services")));
}

#[test]
fn a_flushed_map() {
    survives(|| drop(nft::nft("flush map inet portolan-services backends4")));
}

#[test]
fn a_flushed_chain() {
    survives(|| drop(nft::nft("flush chain inet portolan-services nat_prerouting")));
}

#[test]
fn a_foreign_rule() {
    survives(|| nft::load("insert rule inet portolan-services nat_output counter accept"));
}

#[test]
fn a_deleted_and_a_foreign_element() {
    survives(|| {
        nft::load(
            "delete element inet portolan-services cluster_addresses4 { 10.96.1.3 }
             add element inet portolan-services cluster_addresses4 { 10.96.77.77 }",
        );
    });
}

#[test]
fn a_foreign_chain_and_set() {
    survives(|| {
        nft::load(
            "table inet portolan-services { set strange { type ipv4_addr; }
               chain deep { ip saddr @strange drop; }
               chain stranger { type filter hook input priority 0; jump deep; }; }",
        );
    });
}

#[test]
fn a_change_at_the_moment_of_a_flush_is_made_all_the_same() {
    need_root!();
    private_namespace(|| {
        let plane = start(&[], &[]);
        let (mut services, mut slices) = (Vec::new(), Vec::new());
        for n in 0..20 {
            nft::nft("flush ruleset");
            plane.change(vec![SetService(service(n)), SetSlice(slice(n, [n]))]).unwrap();
            services.push(service(n));
            slices.push(slice(n, [n]));
            assert_planned(&services, &slices);
        }
        assert_eq!(plane.stats().last_error, None);
    });
}

#[test]
fn lost_notifications_lead_to_a_look_at_everything() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        let plane = start(&services, &slices);
        // Far more than the socket's buffer holds, in one go, and our table among it.
        let elements: Vec<String> =
            (0..150_000u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
        nft::load(&format!(
            "table ip flood {{ set s {{ type ipv4_addr; elements = {{ {} }}; }}; }}\nflush chain inet portolan-services nat_prerouting\n",
            elements.join(", ")
        ));
        eventually(SECOND * 2, || plane.stats().repairs > 0);
        assert_planned(&services, &slices);
    });
}

#[test]
fn what_others_do_in_their_tables_is_no_concern_of_ours() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        let plane = start(&services, &slices);
        nft::load("table inet other { chain c { type filter hook input priority 0; accept; }; }");
        nft::load("table ip portolan-services { set s { type ipv4_addr; }; }");
        let (theirs, before) = (nft::nft("list table ip portolan-services"), generation());
        // Something that is repaired afterwards shows that the others were heard and passed over.
        nft::nft("flush chain inet portolan-services nat_prerouting");
        eventually(SECOND, || plane.stats().repairs == 1);
        assert_eq!(generation(), before + 2);
        assert_eq!(nft::nft("list table ip portolan-services"), theirs);
    });
}

#[test]
fn ten_thousand_services_are_back_soon_after_a_flush() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = many(10_000);
        let plane = start(&services, &slices);
        nft::nft("flush ruleset");
        // A debug build on a busy machine; `make bench` measures.
        eventually(SECOND * 20, || plane.stats().repairs > 0);
        assert!(plane.stats().longest_transaction < SECOND / 2, "{:?}", plane.stats());
        plane.leave();
        let before = generation();
        drop(start(&services, &slices));
        assert_eq!(generation(), before);
    });
}
