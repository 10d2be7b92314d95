//! What others do to our table is undone, quickly, and what they do elsewhere is left alone.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{block, port};
use portolan_apply::{DataPlane, PlanConfig};
use portolan_model::{Mapping, Protocol};
use portolan_nft::{Kernel, Nft as _};
use portolan_testkit::{eventually, need_root, net::private_namespace, nft};

const SECOND: Duration = Duration::from_secs(1);

fn some() -> Vec<Mapping> {
    vec![
        port(Protocol::Udp, 20001, 2, 7777),
        port(Protocol::Tcp, 20002, 3, 80),
        block(Protocol::Udp, 21000, 21099, 2),
        Mapping { address: Some([192, 0, 2, 1].into()), ..block(Protocol::Udp, 22000, 22099, 2) },
    ]
}

fn listed() -> String {
    nft::nft("list table inet portolan")
}

/// Runs `harm` on a table in order, and expects it to be as before within a second.
fn survives(harm: impl FnOnce() + Send) {
    need_root!();
    private_namespace(|| {
        nft::load("table ip other { set s { type ipv4_addr; elements = { 192.0.2.7 }; }; }");
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        let before = listed();
        harm();
        eventually(SECOND, || plane.stats().repairs > 0);
        assert_eq!(listed(), before);
        // And it is ours again: changes go on.
        plane.add(port(Protocol::Udp, 20009, 3, 7777)).unwrap();
        plane.remove(port(Protocol::Udp, 20009, 3, 7777).key()).unwrap();
        assert_eq!(listed(), before);
        assert_eq!(plane.stats().failed_repairs, 0);
    });
}

#[test]
fn a_flush_of_all_rules() {
    survives(|| drop(nft::nft("flush ruleset")));
}

#[test]
fn a_deleted_table() {
    survives(|| drop(nft::nft("delete table inet portolan")));
}

#[test]
fn a_deleted_element() {
    survives(|| nft::load("delete element inet portolan host_v4 { udp . 20001 }"));
}

#[test]
fn a_changed_element() {
    survives(|| {
        nft::load(
            "delete element inet portolan host_v4 { udp . 20001 }
             add element inet portolan host_v4 { udp . 20001 : 10.213.0.9 . 1 }",
        );
    });
}

#[test]
fn a_changed_block() {
    survives(|| {
        nft::load(
            "delete element inet portolan block_udp_v4 { 21000-21099 }
             add element inet portolan block_udp_v4 { 21000-21050 : 10.213.0.9, 21060-21200 : 10.213.0.8 }",
        );
    });
}

#[test]
fn foreign_elements() {
    survives(|| {
        nft::load(
            "add element inet portolan host_v6 { tcp . 30000 : fd70:6f72:746f::9 . 1 }
             add element inet portolan instances_v4 { 192.168.0.0/24 }
             add element inet portolan block_at_v4 { 192.0.2.1 . udp . 100-200 : 10.213.0.9 }",
        );
    });
}

#[test]
fn a_foreign_rule_in_our_chain() {
    survives(|| nft::load("insert rule inet portolan ports counter drop"));
}

#[test]
fn a_deleted_rule() {
    survives(|| drop(nft::nft("flush chain inet portolan postrouting")));
}

#[test]
fn foreign_chains_and_sets_in_our_table() {
    survives(|| {
        nft::load(
            "table inet portolan {
               chain deep { counter drop; }
               map verdicts { type inet_service : verdict; elements = { 5 : jump deep }; }
               chain mine { type filter hook input priority 0; tcp dport vmap @verdicts; jump deep; }
             }",
        );
    });
}

#[test]
fn what_others_do_in_their_tables_is_no_concern_of_ours() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        nft::load("table inet other { chain c { type filter hook input priority 0; accept; }; }");
        nft::load("table ip portolan { set s { type ipv4_addr; }; }");
        let theirs = nft::nft("list table ip portolan");
        let generation = Kernel::open().unwrap().generation().unwrap();
        // Something that is repaired afterwards shows that the others were heard and passed over.
        nft::nft("flush chain inet portolan ports");
        eventually(SECOND, || plane.stats().repairs == 1);
        assert_eq!(Kernel::open().unwrap().generation().unwrap(), generation + 2);
        assert_eq!(nft::nft("list table ip portolan"), theirs);
    });
}

#[test]
fn a_change_at_the_moment_of_a_flush_is_made_all_the_same() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        for round in 0..20 {
            nft::nft("flush ruleset");
            plane.add(port(Protocol::Udp, 25000 + round, 2, 1000 + round)).unwrap();
            assert!(listed().contains(&format!("udp . {}", 25000 + round)));
        }
    });
}

#[test]
fn two_that_fight_do_not_burn_the_machine() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end {
            nft::nft("flush chain inet portolan ports");
        }
        let repairs = plane.stats().repairs;
        assert!((2..20).contains(&repairs), "{repairs} repairs in two seconds");
        // The last word is ours.
        eventually(Duration::from_secs(3), || listed().contains("dnat"));
    });
}

#[test]
fn lost_notifications_lead_to_a_look_at_everything() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        let before = listed();
        // Far more than the socket's buffer holds, in one go, and our table among it.
        let elements: Vec<String> =
            (0..150_000u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
        nft::load(&format!(
            "table ip flood {{ set s {{ type ipv4_addr; elements = {{ {} }}; }}; }}\nflush chain inet portolan ports\n",
            elements.join(", ")
        ));
        eventually(SECOND * 2, || plane.stats().repairs > 0);
        assert_eq!(listed(), before);
    });
}
