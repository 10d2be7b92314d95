//! From nothing, and from whatever is there.

use std::time::{Duration, Instant};

use portolan_apply::{ApplyError, ServiceEvent, ServicePlane};
use portolan_nft::{Data, Element, Kernel, Nft as _, Transaction};
use portolan_services::{Counting, ServicesConfig};
use portolan_testkit::{need_root, net::private_namespace, nft};

use crate::{
    assert_planned, generation, in_kernel, objects,
    objects::{many, some},
    planned, start,
};

#[test]
fn the_kernel_holds_what_the_services_ask_for() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        let plane = start(&services, &slices);
        assert_planned(&services, &slices);
        let stats = plane.stats();
        assert_eq!((stats.services, stats.refused, stats.last_error), (services.len(), 0, None));
        for service in &services {
            assert_eq!(plane.live(&service.name).unwrap().generation, 1);
        }
    });
}

#[test]
fn a_restart_with_unchanged_state_writes_nothing() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        // Dropped without a stop, as after a crash: the table stays.
        drop(start(&services, &slices));
        let before = generation();
        // Whatever order the objects come in.
        let (backwards, slices): (Vec<_>, Vec<_>) =
            (services.iter().rev().cloned().collect(), slices.iter().rev().cloned().collect());
        let plane = start(&backwards, &slices);
        assert_eq!(generation(), before);
        assert_eq!(plane.stats().transactions, 0);
    });
}

#[test]
fn affinity_outlives_a_restart() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        start(&services, &slices).leave();
        // A client as a packet leaves one; what is in the key does not matter here.
        let clients = || {
            let table = portolan_services::Services::new(objects::config()).unwrap().table();
            let dump = Kernel::open().unwrap().dump(&table).unwrap().unwrap();
            dump.find_set("affinity4").unwrap().clone()
        };
        let set = clients().set;
        let bytes = |length| Data::from_wire(&vec![1; length], 1);
        let client = Element::new(bytes(set.key_length())).value(bytes(set.value_length()));
        let mut transaction = Transaction::new(in_kernel().unwrap().table);
        transaction.add_elements(&set, [client.timeout(Duration::from_secs(3600))]);
        Kernel::open().unwrap().run(&transaction).unwrap();
        let before = generation();
        let plane = start(&services, &slices);
        assert_eq!(generation(), before);
        assert_eq!(clients().elements.len(), 1);
        // Nor does a change of that Service take it away.
        plane.change(vec![ServiceEvent::SetSlice(objects::slice(3, [6, 7]))]).unwrap();
        assert_eq!(clients().elements.len(), 1);
    });
}

#[test]
fn a_restart_with_other_objects_writes_the_difference() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        drop(start(&services, &slices));
        let (fewer, moved) = (&services[1..], &[&slices[1..], &[objects::slice(6, [30])]].concat());
        let plane = start(fewer, moved);
        assert_planned(fewer, moved);
        assert!(plane.stats().elements < 60, "{:?}", plane.stats());
    });
}

#[test]
fn a_table_of_another_shape_is_taken_over() {
    need_root!();
    private_namespace(|| {
        nft::load(
            "table inet portolan-services {
               map services4 { type ipv4_addr : verdict; }
               chain nat_prerouting { type filter hook prerouting priority 5; ip daddr vmap @services4; }
               chain more { }; chain less { jump more; }; }",
        );
        let (services, slices) = some();
        let _plane = start(&services, &slices);
        assert_planned(&services, &slices);
    });
}

#[test]
fn what_is_left_of_an_older_configuration_is_taken_over() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = some();
        let older = ServicesConfig {
            counting: Counting::Connections,
            masquerade_mark: 0x8000,
            ..ServicesConfig::default()
        };
        drop(ServicePlane::start(older, services.clone(), slices.clone()).unwrap());
        let _plane = start(&services, &slices);
        assert_planned(&services, &slices);
    });
}

#[test]
fn every_way_of_counting_is_programmed_and_read() {
    need_root!();
    for counting in [Counting::Off, Counting::Connections, Counting::Traffic] {
        private_namespace(|| {
            let (services, slices) = some();
            let config = ServicesConfig { counting, ..objects::config() };
            let plane = ServicePlane::start(config.clone(), services.clone(), slices.clone()).unwrap();
            crate::assert_same(&in_kernel().unwrap(), &planned(&config, &services, &slices));
            assert!(plane.counters().unwrap().frontends.is_empty());
        });
    }
}

#[test]
fn stopping_deletes_our_table_and_no_other() {
    need_root!();
    private_namespace(|| {
        nft::load(
            "table inet other { chain services { type filter hook input priority 0; counter accept; }; }",
        );
        let before = nft::nft("list ruleset");
        let (services, slices) = some();
        let plane = start(&services, &slices);
        plane.stop().unwrap();
        assert_eq!(nft::nft("list ruleset"), before);
        let late = plane.change(vec![ServiceEvent::RemoveService(objects::name(1))]);
        assert!(matches!(late, Err(ApplyError::Stopped)), "{late:?}");
        // For those who have no running owner any more; nothing there is fine.
        start(&services, &slices).leave();
        for _ in 0..2 {
            ServicePlane::remove_table("portolan-services").unwrap();
            assert_eq!(nft::nft("list ruleset"), before);
        }
    });
}

#[test]
fn sixteen_thousand_services_keep_nobody_waiting() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = many(16_000);
        let begun = Instant::now();
        let plane = start(&services, &slices);
        let stats = plane.stats();
        // Debug builds on a busy machine: the bounds catch what grows with the square, `make bench` measures.
        assert!(begun.elapsed() < Duration::from_secs(30), "{stats:?}");
        assert!(
            stats.transactions > 5 && stats.longest_transaction < Duration::from_millis(500),
            "{stats:?}"
        );
        assert_eq!(stats.elements as usize, elements());
        plane.leave();
        let before = generation();
        let plane = start(&services, &slices);
        assert_eq!((generation(), plane.stats().transactions), (before, 0));
    });
}

fn elements() -> usize {
    in_kernel().unwrap().sets.iter().map(|filled| filled.elements.len()).sum()
}

/// While the table is filled, every Service that a packet can be led to is whole: looked at after each transaction.
#[test]
fn no_service_is_half_there_while_the_table_is_filled() {
    need_root!();
    private_namespace(|| {
        let (services, slices) = many(4_000);
        let plane = start(&services, &slices);
        plane.leave();
        let whole = in_kernel().unwrap();
        // The sets are filled in their order, so what leads packets in is later than what they are led to.
        let place = |name: &str| {
            let shape = portolan_services::Services::new(objects::config()).unwrap().shape();
            shape.sets.iter().position(|filled| filled.set.name == name).unwrap()
        };
        assert!(place("backends4") < place("services4") && place("local_backends4") < place("node_ports4"));
        assert!(place("services4") < place("cluster_addresses4"));
        // An interrupted start: everything is there but the last set. The next start adds only that.
        let mut transaction = Transaction::new(whole.table.clone());
        transaction.flush(whole.find_set("cluster_addresses4").unwrap().set.clone());
        Kernel::open().unwrap().run(&transaction).unwrap();
        let plane = start(&services, &slices);
        assert_eq!(plane.stats().elements, 4_000);
    });
}
