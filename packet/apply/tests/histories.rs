//! Random histories on the real kernel: after each burst of changes its table is that of the mappings that are left.
#![allow(clippy::unwrap_used)]

#[path = "../../plan/tests/common/mod.rs"]
mod random;

use portolan_apply::{ApplyError, DataPlane, PlanConfig, PlanError};
use portolan_model::{Mapping, MappingKey};
use portolan_nft::{Kernel, Nft as _};
use portolan_plan::{Plan, diff};
use portolan_testkit::{need_root, net::private_namespace};
use proptest::{prelude::*, test_runner::TestRunner};
use random::{Step, steps};

/// Sends a burst without waiting in between, then collects the answers.
fn burst(plane: &DataPlane, steps: &[Step], left: &mut Vec<Mapping>) {
    let mut tickets = Vec::new();
    for step in steps {
        match step {
            Step::Add(mapping) => {
                tickets.push((plane.submit(vec![], vec![mapping.clone()]), Ok(mapping.clone())))
            }
            Step::Remove(_) if left.is_empty() => {}
            Step::Remove(place) => {
                let key = left[place % left.len()].key();
                tickets.push((plane.submit(vec![key], vec![]), Err(key)));
            }
        }
    }
    for (ticket, change) in tickets {
        match (ticket.wait(), change) {
            (Ok(()), Ok(mapping)) => left.push(mapping),
            (Ok(()), Err(key)) => left.retain(|mapping: &Mapping| mapping.key() != key),
            (Err(ApplyError::Plan(PlanError::Overlap { .. } | PlanError::Nowhere(_))), Ok(_)) => {}
            // Removed twice in one burst.
            (Err(ApplyError::Plan(PlanError::Unknown(_))), Err(_)) => {}
            (Err(error), change) => panic!("{change:?}: {error}"),
        }
    }
}

fn check(plane: &DataPlane, config: &PlanConfig, left: &[Mapping]) {
    let plan = Plan::with(config.clone(), left).unwrap();
    let have = Kernel::open().unwrap().dump(&plan.table()).unwrap();
    let difference = diff(have.as_ref(), &plan.ruleset());
    assert!(difference.is_empty(), "{:?}", difference.found);
    let keys = |mappings: &[Mapping]| {
        let mut keys: Vec<MappingKey> = mappings.iter().map(Mapping::key).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&plane.mappings().unwrap()), keys(left));
}

#[test]
fn the_kernel_follows_any_history() {
    need_root!();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    let histories = (steps(1..80), 1usize..20);
    runner
        .run(&histories, |(history, at_once)| {
            private_namespace(|| {
                let configs = [PlanConfig::default(), random::kubernetes()];
                let plane = DataPlane::start(configs[0].clone(), vec![]).unwrap();
                let mut left = Vec::new();
                for (turn, steps) in history.chunks(at_once).enumerate() {
                    // Some in the one configuration, some in the other.
                    let config = &configs[turn / 3 % 2];
                    plane.reconfigure(config.clone()).unwrap();
                    burst(&plane, steps, &mut left);
                    check(&plane, config, &left);
                }
                // Whatever happened, nothing had to be repaired.
                assert_eq!(plane.stats().repairs, 0);
            });
            Ok(())
        })
        .unwrap();
}

#[test]
fn setting_all_mappings_changes_only_what_differs() {
    need_root!();
    private_namespace(|| {
        let plane = DataPlane::start(PlanConfig::default(), vec![]).unwrap();
        let port = |host, number| random::port(portolan_model::Protocol::Udp, host, number, 7777);
        plane.set(vec![port(20001, 2), port(20002, 3), port(20003, 4)]).unwrap();
        let wanted = vec![port(20001, 2), port(20002, 5), port(20004, 4)];
        plane.set(wanted.clone()).unwrap();
        check(&plane, &PlanConfig::default(), &wanted);
        let stats = plane.stats();
        assert_eq!((stats.adds, stats.removes), (5, 2));
        let generation = Kernel::open().unwrap().generation().unwrap();
        plane.set(wanted).unwrap();
        assert_eq!(Kernel::open().unwrap().generation().unwrap(), generation);
    });
}
