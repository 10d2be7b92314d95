//! A process that lives for one change: what it writes, what it notices, and that it stays quick.
#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::{
    block,
    cluster::{self, Cluster, config, node, pod},
    port,
    site::{Ip, ask_on, udp},
};
use portolan_apply::{ApplyError, Done, OneShot, PlanConfig, PlanError};
use portolan_model::{Mapping, Protocol};
use portolan_nft::{Kernel, Nft as _};
use portolan_plan::{Plan, diff};
use portolan_testkit::{need_root, net::private_namespace, nft};

/// What the file of such a process holds between the changes.
#[derive(Default)]
struct Kept {
    mappings: Vec<Mapping>,
    done: Option<Done>,
}

impl Kept {
    /// One change, by a door of its own.
    fn change(&mut self, remove: &[Mapping], add: &[Mapping]) -> Result<Done, ApplyError> {
        let known = self.done.as_ref().and_then(|done| done.known);
        let keys: Vec<_> = remove.iter().map(Mapping::key).collect();
        let done = OneShot::open(any())?.change(&self.mappings, &keys, add, known)?;
        self.mappings.retain(|mapping| !keys.contains(&mapping.key()));
        self.mappings.extend_from_slice(add);
        self.done = Some(done.clone());
        Ok(done)
    }

    #[track_caller]
    fn assert_in_kernel(&self) {
        let plan = Plan::with(any(), &self.mappings).unwrap();
        let have = Kernel::open().unwrap().dump(&plan.table()).unwrap();
        let difference = diff(have.as_ref(), &plan.ruleset());
        assert!(difference.is_empty(), "{:?}", difference.found);
        assert_eq!(OneShot::open(any()).unwrap().check(&self.mappings).unwrap(), [""; 0]);
    }
}

fn any() -> PlanConfig {
    config()
}

fn some() -> Vec<Mapping> {
    vec![
        port(Protocol::Udp, 20001, 2, 7777),
        port(Protocol::Tcp, 20001, 2, 7777),
        block(Protocol::Udp, 21000, 21099, 2),
        Mapping { address: Some([192, 0, 2, 1].into()), ..port(Protocol::Udp, 20001, 3, 7777) },
    ]
}

#[test]
fn changes_by_one_process_after_another_add_up() {
    need_root!();
    private_namespace(|| {
        let mut kept = Kept::default();
        // The first finds no table.
        let first = kept.change(&[], &some()[..1]).unwrap();
        assert_eq!(first.repaired, ["table inet portolan is missing"]);
        for mapping in &some()[1..] {
            assert_eq!(kept.change(&[], std::slice::from_ref(mapping)).unwrap().repaired, [""; 0]);
            kept.assert_in_kernel();
        }
        // Replaced, and removed, also the last one.
        kept.change(&some()[..1], &[port(Protocol::Udp, 20001, 4, 9)]).unwrap();
        kept.assert_in_kernel();
        for mapping in kept.mappings.clone() {
            assert_eq!(kept.change(&[mapping], &[]).unwrap().repaired, [""; 0]);
            kept.assert_in_kernel();
        }
        OneShot::open(any()).unwrap().clear().unwrap();
        assert_eq!(nft::nft("list ruleset"), "");
        // A second time is no error.
        OneShot::open(any()).unwrap().clear().unwrap();
    });
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    need_root!();
    private_namespace(|| {
        let mut kept = Kept::default();
        kept.change(&[], &some()).unwrap();
        let generation = Kernel::open().unwrap().generation().unwrap();
        let overlapping = kept.change(&[], &[block(Protocol::Udp, 21050, 21060, 3)]);
        assert!(matches!(overlapping, Err(ApplyError::Plan(PlanError::Overlap { .. }))), "{overlapping:?}");
        let unknown = kept.change(&[port(Protocol::Udp, 1, 2, 1)], &[]);
        assert!(matches!(unknown, Err(ApplyError::Plan(PlanError::Unknown(_)))), "{unknown:?}");
        assert_eq!(Kernel::open().unwrap().generation().unwrap(), generation);
        kept.assert_in_kernel();
    });
}

#[test]
fn a_table_that_others_changed_is_repaired_with_the_next_change() {
    need_root!();
    let harms: [&str; 5] = [
        "flush ruleset",
        "flush chain inet portolan ports",
        "delete element inet portolan host_v4 { udp . 20001 }",
        "delete element inet portolan local_v4 { 10.244.1.0/24 }",
        "add element inet portolan host_v4 { udp . 20009 : 10.213.0.9 . 1 }",
    ];
    for harm in harms {
        private_namespace(|| {
            let mut kept = Kept::default();
            kept.change(&[], &some()).unwrap();
            nft::load(harm);
            // What was removed is missed, what is added is there already, or the rules are others.
            let done = kept.change(&some()[..1], &[port(Protocol::Udp, 20009, 3, 1)]).unwrap();
            assert!(!done.repaired.is_empty(), "{harm}");
            kept.assert_in_kernel();
        });
    }
}

#[test]
fn a_look_at_everything_repairs_what_a_change_does_not_see() {
    need_root!();
    private_namespace(|| {
        let mut kept = Kept::default();
        kept.change(&[], &some()).unwrap();
        nft::load("delete element inet portolan host_v4 { tcp . 20001 }");
        assert_eq!(
            OneShot::open(any()).unwrap().check(&kept.mappings).unwrap(),
            ["map host_v4: elements 1 missing"]
        );
        let done = OneShot::open(any()).unwrap().restore(&kept.mappings).unwrap();
        assert_eq!(done.repaired, ["map host_v4: elements 1 missing"]);
        kept.assert_in_kernel();
        let done = OneShot::open(any()).unwrap().restore(&kept.mappings).unwrap();
        assert!(done.repaired.is_empty());
    });
}

#[test]
fn another_configuration_is_noticed() {
    need_root!();
    private_namespace(|| {
        let mut kept = Kept::default();
        kept.change(&[], &some()).unwrap();
        let known = kept.done.as_ref().unwrap().known;
        let other = PlanConfig { local: vec!["10.9.0.0/16".parse().unwrap()], ..config() };
        let add = [port(Protocol::Udp, 20009, 2, 9)];
        let done = OneShot::open(other.clone()).unwrap().change(&some(), &[], &add, known).unwrap();
        // What was to be added is missing too at that moment.
        assert!(
            done.repaired.contains(&"set local_v4: elements 1 missing, 1 foreign".to_owned()),
            "{done:?}"
        );
        assert_eq!(OneShot::open(other).unwrap().check(&[some(), add.to_vec()].concat()).unwrap(), [""; 0]);
    });
}

#[test]
fn what_others_do_elsewhere_costs_a_look_and_no_repair() {
    need_root!();
    private_namespace(|| {
        let mut kept = Kept::default();
        kept.change(&[], &some()).unwrap();
        assert!(kept.done.as_ref().unwrap().known.is_some());
        nft::load("table ip other { }");
        let done = kept.change(&[], &[port(Protocol::Udp, 20009, 2, 9)]).unwrap();
        assert!(done.repaired.is_empty() && done.known.is_some());
    });
}

#[test]
fn stale_connections_are_gone_when_the_change_is_made() {
    need_root!();
    let site = Cluster::new();
    let (one, two) =
        (cluster::port(Protocol::Udp, 20001, 2, 7777), cluster::port(Protocol::Udp, 20001, 3, 7777));
    let beside = cluster::port(Protocol::Udp, 20002, 2, 7777);
    for ip in Ip::BOTH {
        let _servers = (site.serve(2, ip, 7777), site.serve(3, ip, 7777));
        let client = udp(&site.outside, cluster::outside(ip), 0);
        let other = udp(&site.outside, cluster::outside(ip), 0);
        let who = || ask_on(&client, (node(ip), 20001)).map(|(name, _)| name);
        let mut kept = Kept::default();
        let mut change = |remove: &[Mapping], add: &[Mapping]| {
            site.node.run(|| kept.change(remove, add)).unwrap().flows_deleted
        };
        change(&[], &[one.clone(), beside.clone()]);
        assert_eq!(who().unwrap(), "udp-2");
        ask_on(&other, (node(ip), 20002)).unwrap();
        ask_on(&other, (pod(2, ip), 7777)).unwrap();
        // Replaced; gone and come; nothing else is touched.
        assert_eq!(change(std::slice::from_ref(&one), std::slice::from_ref(&two)), 1);
        assert_eq!(who().unwrap(), "udp-3");
        assert_eq!(change(std::slice::from_ref(&two), &[]), 1);
        assert_eq!(change(&[], std::slice::from_ref(&one)), 0);
        assert_eq!(who().unwrap(), "udp-2");
        change(&[one.clone(), beside.clone()], &[]);
        site.node.run(|| OneShot::open(any()).unwrap().clear()).unwrap();
    }
}

#[test]
fn ten_thousand_mappings_do_not_make_it_slow() {
    need_root!();
    private_namespace(|| {
        let before: Vec<Mapping> =
            (0..10_000).map(|n| port(Protocol::Udp, 20_000 + n, 2 + n / 100, 7000 + n % 100)).collect();
        OneShot::open(any()).unwrap().restore(&before).unwrap();
        let new = port(Protocol::Tcp, 50_000, 2, 1);
        let after: Vec<Mapping> = before.iter().chain([&new]).cloned().collect();
        let mut times: Vec<Duration> = (0..8)
            .flat_map(|_| {
                let start = Instant::now();
                let added =
                    OneShot::open(any()).unwrap().change(&before, &[], std::slice::from_ref(&new), None);
                let one = start.elapsed();
                let removed = OneShot::open(any()).unwrap().change(&after, &[new.key()], &[], None);
                assert!(
                    [added, removed].iter().flatten().filter(|done| done.repaired.is_empty()).count() == 2
                );
                [one, start.elapsed() - one]
            })
            .collect();
        times.sort();
        let median = times[times.len() / 2];
        // Far above what it takes; a dump of the table alone takes longer in a build like this.
        assert!(median < Duration::from_millis(250), "{median:?}");
    });
}
