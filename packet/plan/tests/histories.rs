//! Any history of changes leads to the table of the mappings that are left: the sum of the parts is the whole.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr};

use common::{Elements, Step, kubernetes, mapping, steps};
use ipnet::IpNet;
use portolan_model::{Mapping, MappingKey, Protocol};
use portolan_plan::{Changes, Flow, Plan, PlanConfig, PlanError, Touched, concerned, concerned_by_flows};
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
    planned(PlanConfig::default(), mappings)
}

fn planned(config: PlanConfig, mappings: impl IntoIterator<Item = Mapping>) -> Plan {
    Plan::with(config, &mappings.into_iter().collect::<Vec<_>>()).unwrap()
}

/// Every way in which elements follow from mappings.
fn configs() -> [PlanConfig; 2] {
    [PlanConfig::default(), kubernetes()]
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
        for config in configs() {
            let (mut plan, mut obvious) = (planned(config.clone(), []), Obvious::default());
            let mut kernel = Elements::of(&plan.ruleset());
            for next in &history {
                let changes = step(&mut plan, &mut obvious, next);
                kernel.run(&changes.transaction(plan.config()));
                prop_assert_eq!(&kernel, &Elements::of(&plan.ruleset()));
            }
            // The order in which the mappings came does not matter.
            let other_order = planned(config, obvious.0.iter().rev().cloned());
            prop_assert_eq!(plan.ruleset(), other_order.ruleset());
        }
    }

    #[test]
    fn a_plan_of_those_that_a_change_concerns_tells_its_changes(
        history in steps(1..60), remove in 0usize..4, add in prop::collection::vec(mapping(), 0..4)
    ) {
        for config in configs() {
            let (mut plan, mut obvious) = (planned(config.clone(), []), Obvious::default());
            history.iter().for_each(|next| drop(step(&mut plan, &mut obvious, next)));
            let before: Vec<Mapping> = plan.mappings().cloned().collect();
            let remove: Vec<MappingKey> = before.iter().rev().step_by(3).take(remove).map(Mapping::key).collect();
            let mut part = planned(config, concerned(&before, &remove, &add).cloned());
            let mut both = [Changes::none(), Changes::none()];
            for (plan, changes) in [&mut plan, &mut part].into_iter().zip(&mut both) {
                remove.iter().for_each(|key| changes.append(plan.remove(key).unwrap()));
            }
            for mapping in &add {
                match (plan.add(mapping), part.add(mapping)) {
                    (Ok(one), Ok(other)) => {
                        both[0].append(one);
                        both[1].append(other);
                    }
                    (one, other) => prop_assert_eq!(one.map(drop), other.map(drop)),
                }
            }
            prop_assert_eq!(&both[0], &both[1]);
            // And flows are judged by a part as by the whole.
            let mappings: Vec<Mapping> = plan.mappings().cloned().collect();
            for asked in ["192.0.2.1:1003", "192.0.2.2:1010"] {
                for client in ["10.213.0.2:1003", "198.51.100.9:1010", "192.0.2.1:1020"] {
                    let [client, asked]: [SocketAddr; 2] = [client, asked].map(|text| text.parse().unwrap());
                    for server in [asked, "10.213.0.2:1003".parse().unwrap(), "10.213.0.4:1010".parse().unwrap()] {
                        for seen in [client, "192.0.2.1:1010".parse().unwrap()] {
                            let flow = Flow { protocol: Protocol::Udp, client, asked, server, seen };
                            let part = planned(plan.config().clone(), concerned_by_flows(&mappings, &[flow]).cloned());
                            let [whole, part] = [&plan, &part].map(|plan| {
                                plan.is_stale(&flow, &Touched::everything(), |address| {
                                    ["192.0.2.1", "192.0.2.2", "2001:db8::1"].contains(&address.to_string().as_str())
                                })
                            });
                            prop_assert_eq!(whole, part, "{:?}", flow);
                        }
                    }
                }
            }
        }
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
        for config in configs() {
            let (mut plan, mut obvious) = (planned(config.clone(), []), Obvious::default());
            history.iter().for_each(|next| drop(step(&mut plan, &mut obvious, next)));
            let keys: Vec<MappingKey> = plan.mappings().map(Mapping::key).collect();
            for key in keys {
                plan.remove(&key).unwrap();
            }
            prop_assert_eq!(plan.ruleset(), planned(config, []).ruleset());
        }
    }
}

/// Networks of a few addresses, nested, neighbouring and apart, of both families.
fn networks() -> impl Strategy<Value = Vec<IpNet>> {
    let v4 =
        (0..32_u8, 24..=32_u8).prop_map(|(last, bits)| IpNet::new(common::v4(last).into(), bits).unwrap());
    let v6 =
        (0..32_u8, 120..=128_u8).prop_map(|(last, bits)| IpNet::new(common::v6(last).into(), bits).unwrap());
    prop::collection::vec(prop_oneof![v4, v6], 0..8)
}

proptest! {
    #[test]
    fn other_networks_of_instances_are_a_change_of_those_networks(before in networks(), after in networks()) {
        let config = |local: &[IpNet]| PlanConfig { local: local.to_vec(), ..kubernetes() };
        let mapping = common::port(Protocol::Tcp, 20000, 7, 80);
        let mut plan = planned(config(&before), [mapping.clone()]);
        let mut table = Elements::of(&plan.ruleset());

        table.run(&plan.set_local(after.clone()).transaction(plan.config()));

        let fresh = planned(config(&after), [mapping]);
        prop_assert_eq!(plan.config(), fresh.config());
        prop_assert_eq!(table, Elements::of(&fresh.ruleset()));
    }
}
