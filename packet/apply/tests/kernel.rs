//! The table in the real kernel is what the plan asks for: at the start, after changes, after a stop.
#![allow(clippy::unwrap_used)]

mod common;

use common::{block, port};
use portolan_apply::{ApplyError, DataPlane, PlanConfig, PlanError};
use portolan_model::{Mapping, Protocol};
use portolan_nft::{Kernel, Nft as _, Ruleset};
use portolan_plan::Plan;
use portolan_testkit::{need_root, net::private_namespace, nft};

fn planned(mappings: &[Mapping]) -> Ruleset {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    mappings.iter().for_each(|mapping| drop(plan.add(mapping).unwrap()));
    plan.ruleset()
}

fn in_kernel() -> Option<Ruleset> {
    let table = planned(&[]).table;
    let mut ruleset = Kernel::open().unwrap().dump(&table).unwrap()?;
    ruleset.sort();
    for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        (rule.handle, rule.position) = (None, None);
    }
    Some(ruleset)
}

/// The table in the kernel is what the plan of these mappings asks for.
#[track_caller]
fn assert_planned(mappings: &[Mapping]) {
    let (have, want) = (in_kernel().unwrap(), planned(mappings));
    // As text first: it can be read.
    for (have, want) in have.to_string().lines().zip(want.to_string().lines()) {
        assert_eq!(have, want);
    }
    assert_eq!(have, want);
}

fn some() -> Vec<Mapping> {
    vec![
        port(Protocol::Udp, 20001, 2, 7777),
        port(Protocol::Tcp, 20001, 2, 7777),
        port(Protocol::Sctp, 20001, 2, 7777),
        block(Protocol::Udp, 21000, 21099, 2),
        Mapping { address: Some([192, 0, 2, 1].into()), ..port(Protocol::Udp, 20001, 3, 7777) },
        Mapping { address: Some("2001:db8::1".parse().unwrap()), ..block(Protocol::Udp, 21000, 21010, 3) },
    ]
}

#[test]
fn the_kernel_holds_what_the_plan_asks_for() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), vec![]).unwrap();
        assert_planned(&[]);
        plane.change(vec![], some()).unwrap();
        assert_planned(&some());
        let all = some();
        let (gone, left) = all.split_at(3);
        plane.change(gone.iter().map(Mapping::key).collect(), vec![]).unwrap();
        assert_planned(left);
    });
}

#[test]
fn stopping_deletes_our_table_and_no_other() {
    need_root!();
    private_namespace(|| {
        nft::load(
            "table inet other { chain portolan { type filter hook input priority 0; counter accept; }; }",
        );
        let before = nft::nft("list ruleset");
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        plane.stop().unwrap();
        assert_eq!(nft::nft("list ruleset"), before);
        let late = plane.add(port(Protocol::Udp, 20001, 2, 7777));
        assert!(matches!(late, Err(ApplyError::Stopped)), "{late:?}");
    });
}

#[test]
fn a_restart_with_the_same_mappings_writes_nothing() {
    need_root!();
    private_namespace(|| {
        // Dropped without a stop, as after a crash: the table stays.
        drop(DataPlane::start(PlanConfig::default(), some()).unwrap());
        let generation = Kernel::open().unwrap().generation().unwrap();
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        assert_eq!(Kernel::open().unwrap().generation().unwrap(), generation);
        assert_eq!(plane.stats().commits, 0);
    });
}

#[test]
fn a_restart_with_other_mappings_writes_the_difference() {
    need_root!();
    private_namespace(|| {
        drop(DataPlane::start(PlanConfig::default(), some()).unwrap());
        let _plane = DataPlane::start(PlanConfig::default(), some()[2..].to_vec()).unwrap();
        assert_planned(&some()[2..]);
    });
}

#[test]
fn a_table_of_another_shape_is_made_anew_at_the_start() {
    need_root!();
    private_namespace(|| {
        nft::load(
            "table inet portolan { map host_v4 { type inet_service : ipv4_addr; }
               chain prerouting { type filter hook prerouting priority 5; }
               chain more { }; chain less { jump more; }; }",
        );
        let _plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        assert_planned(&some());
    });
}

#[test]
fn of_several_changes_at_once_only_the_bad_one_fails() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), vec![]).unwrap();
        let tickets: Vec<_> = [20001, 20002, 20001, 20003]
            .into_iter()
            .map(|host| plane.submit(vec![], vec![port(Protocol::Udp, host, 2, 7777)]))
            .collect();
        let answers: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait()).collect();
        assert!(matches!(answers[2], Err(ApplyError::Plan(PlanError::Overlap { .. }))), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
        assert_eq!(plane.mappings().unwrap().len(), 3);
    });
}

#[test]
fn a_change_is_made_wholly_or_not_at_all() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), some()).unwrap();
        let remove = some().iter().map(Mapping::key).collect();
        let twice = vec![port(Protocol::Udp, 30001, 2, 1), port(Protocol::Udp, 30001, 2, 2)];
        assert!(plane.change(remove, twice).is_err());
        assert_planned(&some());
    });
}

#[test]
fn what_nft_prints_of_the_table_can_be_loaded_again() {
    need_root!();
    let printed = private_namespace(|| {
        let _plane = DataPlane::start(
            PlanConfig { interfaces: Some("plv".to_owned()), ..PlanConfig::default() },
            some(),
        );
        nft::nft("list ruleset")
    });
    let again = private_namespace(|| {
        nft::load(&printed);
        nft::nft("list ruleset")
    });
    assert_eq!(printed, again);
}
