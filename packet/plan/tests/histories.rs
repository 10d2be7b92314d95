//! Any history of changes leads to the table of the mappings that are left: the sum of the parts is the whole.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Elements, Step, steps};
use portolan_model::{Mapping, MappingKey, Protocol};
use portolan_plan::{Changes, Plan, PlanConfig, PlanError};
use proptest::prelude::*;

/// The obvious plan: a list, searched from end to end.
#[derive(Default)]
struct Obvious(Vec<Mapping>);

impl Obvious {
    fn refuses(&self, mapping: &Mapping) -> bool {
        let nowhere = match mapping.address {
            None => false,
            Some(IpAddr::V4(_)) => mapping.v4.is_none(),
            Some(IpAddr::V6(_)) => mapping.v6.is_none(),
        };
        nowhere
            || self.0.iter().any(|present| {
                present.protocol == mapping.protocol
                    && present.address == mapping.address
                    && present.host.overlaps(mapping.host)
            })
    }

    fn destination(&self, protocol: Protocol, to: SocketAddr) -> Option<SocketAddr> {
        let answer = |address: Option<IpAddr>| {
            let found = self
                .0
                .iter()
                .find(|m| m.protocol == protocol && m.address == address && m.host.contains(to.port()))?;
            let instance = if to.is_ipv4() { found.v4.map(IpAddr::V4) } else { found.v6.map(IpAddr::V6) };
            Some(SocketAddr::new(instance?, found.container + to.port() - found.host.first()))
        };
        answer(Some(to.ip())).or_else(|| answer(None))
    }
}

fn fresh(mappings: impl IntoIterator<Item = Mapping>) -> Plan {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    for mapping in mappings {
        plan.add(&mapping).unwrap();
    }
    plan
}

fn step(plan: &mut Plan, obvious: &mut Obvious, step: &Step) -> Changes {
    match step {
        Step::Add(mapping) => match plan.add(mapping) {
            Ok(changes) => {
                assert!(!obvious.refuses(mapping), "took {mapping:?}");
                obvious.0.push(mapping.clone());
                changes
            }
            Err(PlanError::Overlap { .. } | PlanError::Nowhere(_)) => {
                assert!(obvious.refuses(mapping), "refused {mapping:?}");
                Changes::none()
            }
            Err(error) => panic!("{error}"),
        },
        Step::Remove(_) if obvious.0.is_empty() => Changes::none(),
        Step::Remove(place) => {
            let place = place % obvious.0.len();
            let mapping = obvious.0.remove(place);
            plan.remove(&mapping.key()).unwrap()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_change_leads_to_the_table_of_what_is_left(history in steps(1..60)) {
        let (mut plan, mut obvious) = (fresh([]), Obvious::default());
        let mut kernel = Elements::of(&plan.ruleset());
        for next in &history {
            let changes = step(&mut plan, &mut obvious, next);
            kernel.run(&changes.transaction(plan.config()));
            prop_assert_eq!(&kernel, &Elements::of(&plan.ruleset()));
        }
        // The order in which the mappings came does not matter.
        let other_order = fresh(obvious.0.iter().rev().cloned());
        prop_assert_eq!(plan.ruleset(), other_order.ruleset());
    }

    #[test]
    fn many_changes_in_one_transaction_are_the_same_as_one_by_one(history in steps(1..60), cut in 1usize..20) {
        let (mut plan, mut obvious) = (fresh([]), Obvious::default());
        let mut kernel = Elements::of(&plan.ruleset());
        for burst in history.chunks(cut) {
            let mut together = Changes::none();
            for next in burst {
                together.append(step(&mut plan, &mut obvious, next));
            }
            kernel.run(&together.transaction(plan.config()));
            prop_assert_eq!(&kernel, &Elements::of(&plan.ruleset()));
        }
    }

    #[test]
    fn a_packet_goes_where_the_obvious_search_says(history in steps(1..60)) {
        let (mut plan, mut obvious) = (fresh([]), Obvious::default());
        history.iter().for_each(|next| drop(step(&mut plan, &mut obvious, next)));
        for protocol in Protocol::ALL {
            for address in ["192.0.2.1", "192.0.2.3", "2001:db8::1", "2001:db8::2"] {
                for port in 995..1055 {
                    let to = SocketAddr::new(address.parse().unwrap(), port);
                    prop_assert_eq!(plan.destination(protocol, to), obvious.destination(protocol, to), "{} {}", protocol, to);
                }
            }
        }
    }

    #[test]
    fn removing_everything_leaves_the_empty_table(history in steps(1..60)) {
        let (mut plan, mut obvious) = (fresh([]), Obvious::default());
        history.iter().for_each(|next| drop(step(&mut plan, &mut obvious, next)));
        let keys: Vec<MappingKey> = plan.mappings().map(Mapping::key).collect();
        for key in keys {
            plan.remove(&key).unwrap();
        }
        prop_assert_eq!(plan.ruleset(), fresh([]).ruleset());
    }
}
