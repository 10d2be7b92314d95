//! Whatever happened before, the table is that of the objects which are there; and each change says how to get from one to
//! the other.
#![allow(clippy::unwrap_used)]

mod objects;

use objects::{Objects, Step, configs, endpoint, service, slice, steps};
use portolan_model::{Balance, ObjectName, Protocol, ServicePort};
use portolan_nft::{Fake, Nft as _, Ruleset};
use portolan_services::{Problem, Services, ServicesConfig, SetKind};
use proptest::prelude::*;

/// Chains, rules, sets and elements; not handles and counts.
fn assert_same(have: Ruleset, want: Ruleset) {
    let found = portolan_plan::diff(Some(&have), &want).found;
    assert!(found.is_empty(), "{found:?}");
}

fn take(services: &mut Services, step: &Step) -> portolan_services::Changes {
    match step {
        Step::SetService(service) => services.set_service((**service).clone()),
        Step::RemoveService(name) => services.remove_service(name),
        Step::SetSlice(slice) => services.set_slice(slice.clone()),
        Step::RemoveSlice(name) => services.remove_slice(name),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_in_the_table_of_its_objects(config in configs(), steps in steps(1..60)) {
        let mut services = Services::new(config.clone()).unwrap();
        let mut objects = Objects::default();
        let mut fake = Fake::new();
        fake.run(&services.ruleset().creation()).unwrap();
        for step in &steps {
            objects.take(step);
            // Strict: an element that is created is not there, one that is deleted is.
            for transaction in take(&mut services, step).transactions(&config) {
                fake.run(&transaction).unwrap();
            }
        }
        let cold = Services::load(config, objects.services(), objects.slices()).unwrap();
        assert_same(services.ruleset(), cold.ruleset());
        assert_same(fake.dump(&services.table()).unwrap().unwrap(), cold.ruleset());
        prop_assert_eq!(services.problems(), cold.problems());
        prop_assert!(services.slices().eq(cold.slices()));
    }

    #[test]
    fn changes_may_be_put_together(steps in steps(1..40)) {
        let config = ServicesConfig::default();
        let mut services = Services::new(config.clone()).unwrap();
        let mut fake = Fake::new();
        fake.run(&services.ruleset().creation()).unwrap();
        for some in steps.chunks(7) {
            let mut all = portolan_services::Changes::none();
            some.iter().for_each(|step| all.append(take(&mut services, step)));
            fake.run(&all.transaction(&config)).unwrap();
        }
        assert_same(fake.dump(&services.table()).unwrap().unwrap(), services.ruleset());
    }

    #[test]
    fn another_configuration_is_as_if_it_had_always_been(
        before in configs(), after in configs(), steps in steps(1..30),
    ) {
        let mut services = Services::new(before).unwrap();
        let mut cold = Services::new(after.clone()).unwrap();
        for step in &steps {
            take(&mut services, step);
            take(&mut cold, step);
        }
        services.reconfigure(after).unwrap();
        assert_same(services.ruleset(), cold.ruleset());
    }

    #[test]
    fn replacing_all_leaves_the_new_ones_only(one in steps(1..20), other in steps(1..20)) {
        let config = ServicesConfig::default();
        let mut services = Services::new(config.clone()).unwrap();
        let mut fake = Fake::new();
        for step in &one {
            take(&mut services, step);
        }
        fake.run(&services.ruleset().creation()).unwrap();
        let mut objects = Objects::default();
        other.iter().for_each(|step| objects.take(step));
        let changes = services.replace(objects.services(), objects.slices());
        fake.run(&changes.transaction(&config)).unwrap();
        let cold = Services::load(config, objects.services(), objects.slices()).unwrap();
        assert_same(fake.dump(&services.table()).unwrap().unwrap(), cold.ruleset());
    }
}

#[test]
fn a_table_without_objects_has_no_elements() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    services.set_service(service("a", 1));
    services.set_slice(slice("a", &[endpoint(1), endpoint(2)]));
    services.remove_service(&ObjectName::new("default", "a"));
    services.remove_slice(&ObjectName::new("default", "a-1"));
    assert_same(services.ruleset(), Services::new(ServicesConfig::default()).unwrap().ruleset());
    assert!(services.ruleset().sets.iter().all(|filled| filled.elements.is_empty()));
}

/// What one endpoint more and one less is for the kernel, in a world of so many Services and endpoints.
fn operations(services: u16, endpoints: u16) -> (usize, usize) {
    let all = (0..services).map(|number| service(&format!("s{number}"), number));
    let many: Vec<_> = (0..endpoints).map(endpoint).collect();
    let slices = (0..services).map(|number| slice(&format!("s{number}"), &many));
    let mut world = Services::load(ServicesConfig::default(), all, slices).unwrap();
    let mut more = many.clone();
    more.push(endpoint(endpoints + 1));
    let come = world.set_slice(slice("s1", &more)).len();
    let gone = world.set_slice(slice("s1", &many)).len();
    (come, gone)
}

#[test]
fn a_change_of_one_endpoint_is_few_operations() {
    let (few, _) = operations(2, 10);
    assert_eq!(operations(2, 10), operations(300, 10), "the number of Services does not matter");
    // One number more, about 2 ln n numbers with another endpoint at two operations each, the frontends' ways.
    assert!(few < 40, "{few}");
    let (come, gone) = operations(2, 1000);
    assert!(come < 100 && gone < 100, "{come} {gone}");
}

#[test]
fn an_endpoint_that_is_replaced_leaves_frontends_alone() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    services.set_service(service("a", 1));
    services.set_slice(slice("a", &[endpoint(1), endpoint(2)]));
    let changes = services.set_slice(slice("a", &[endpoint(1), endpoint(3)]));
    assert!(changes.elements().all(|(_, set, _)| matches!(set.kind, SetKind::Backends(_))), "{changes:?}");
}

#[test]
fn maglev_moves_few_slots() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    let mut hashed = service("a", 1);
    hashed.options.balance = Balance::Source;
    services.set_service(hashed);
    let ten: Vec<_> = (0..10).map(endpoint).collect();
    services.set_slice(slice("a", &ten));
    let changes = services.set_slice(slice("a", &ten[..9]));
    let moved = changes.elements().filter(|(add, ..)| *add).count();
    // The tenth's 102 slots, and some more.
    assert!((102..250).contains(&moved), "{moved}");
}

#[test]
fn two_services_with_one_external_port_take_turns() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    let claim = |name: &str, number| {
        let mut one = service(name, number);
        one.external_addresses = vec!["192.0.2.1".parse().unwrap()];
        one.ports = vec![ServicePort { node_port: None, ..one.ports[0].clone() }];
        one
    };
    services.set_service(claim("b", 2));
    services.set_slice(slice("b", &[endpoint(2)]));
    assert!(services.problems().is_empty());
    // The first by name has it, though it comes later.
    services.set_service(claim("a", 1));
    let problems = services.problems();
    let [(name, Problem::Taken { by, .. })] = problems.as_slice() else { panic!("{problems:?}") };
    assert_eq!((name.name.as_str(), by.name.as_str()), ("b", "a"));
    let identity = |services: &Services| -> Vec<_> {
        services.elements("identities4").map(|element| format!("{:?}", element.value)).collect()
    };
    assert_eq!(identity(&services).len(), 0, "a has no endpoints");
    services.remove_service(&ObjectName::new("default", "a"));
    assert_eq!(identity(&services).len(), 1);
    assert!(services.problems().is_empty());
}

#[test]
fn a_cluster_address_is_stronger_than_an_external_one() {
    let mut services = Services::new(ServicesConfig::default()).unwrap();
    let mut thief = service("a", 1);
    thief.external_addresses = service("z", 26).cluster_addresses;
    services.set_service(thief);
    services.set_service(service("z", 26));
    let problems = services.problems();
    assert!(problems.iter().all(|(name, _)| name.name == "a"), "{problems:?}");
    assert_eq!(problems.len(), 2, "in each version of IP: {problems:?}");
    assert_eq!(service("z", 26).ports[0].protocol, Protocol::Tcp);
}
