//! Histories and what they come to: restarts, reboots, clocks that jump.

use super::*;
use crate::{
    lease::{LeaseRequest, Network, Owner},
    pool::Pools,
    sticky::Sticky,
};

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn boot(name: &str) -> Boot {
    serde_json::from_value(name.into()).unwrap()
}

fn opened(name: &str) -> Record {
    Record::Opened { boot: boot(name), id: 0 }
}

fn lease(instance: &str, incarnation: &str, port: &str) -> Lease {
    let mut allocator = Allocator::new(Pools::default(), Sticky::default());
    let request = LeaseRequest {
        instance: instance.parse().unwrap(),
        incarnation: incarnation.parse().unwrap(),
        owner: Owner::Process { pid: 1, start_time: 1 },
        requests: vec![port.parse().unwrap()],
        network: Network::Own,
        v4: None,
        v6: None,
        local: Vec::new(),
        attachment: None,
    };
    let random = &mut rand::rng();
    let ports = allocator.allocate(&request.instance, &request.requests, seconds(0), random).unwrap();
    Lease { request, ports, held: true }
}

fn leased(lease: &Lease, at: u64) -> Record {
    Record::Leased { lease: Box::new(lease.clone()), at }
}

fn released(lease: &Lease, at: u64) -> Record {
    let LeaseRequest { instance, incarnation, .. } = lease.request.clone();
    Record::Released { instance, incarnation, at }
}

#[test]
fn what_was_leased_and_not_released_goes_on() {
    let (a, b) = (lease("a", "1", "http"), lease("b", "1", "rtp/udp:10"));
    let held = Record::Held {
        instance: b.request.instance.clone(),
        incarnation: b.request.incarnation.clone(),
        held: false,
    };
    let records = vec![opened("x"), leased(&a, 1), leased(&b, 2), held, released(&a, 3)];
    let past = Past::of(records, &boot("x"), seconds(10));
    let b = Lease { held: false, ..b };
    assert_eq!(past.leases, [Survivor { lease: b, this_boot: true }]);
    assert_eq!(past.freed.len(), 1);
    assert_eq!(past.freed[0].at, Duration::from_millis(3));
    assert_eq!(past.remembered.len(), 2);
}

#[test]
fn the_release_of_a_former_life_is_not_the_end_of_the_next() {
    let (one, two) = (lease("a", "1", "http=80"), lease("a", "2", "http=80"));
    let records = vec![opened("x"), leased(&one, 1), leased(&two, 2), released(&one, 3)];
    let past = Past::of(records, &boot("x"), seconds(10));
    assert_eq!(past.leases.len(), 1);
    assert_eq!(past.leases[0].lease, two);
    assert!(past.remembered.is_empty(), "a static port needs no memory");
}

#[test]
fn a_lease_from_before_a_reboot_is_known_as_such() {
    let records = vec![opened("x"), leased(&lease("a", "1", "http"), 1), opened("y")];
    let past = Past::of(records, &boot("y"), seconds(10));
    assert!(!past.leases[0].this_boot);
}

#[test]
fn a_quarantine_is_never_cut_short_nor_extended_for_ever_by_a_clock() {
    let lease = lease("a", "1", "http");
    let history = |boot: &str, at| vec![opened(boot), leased(&lease, 0), released(&lease, at)];
    let freed_at = |records, now| Past::of(records, &boot("x"), now).freed[0].at;
    assert_eq!(freed_at(history("x", 5_000), seconds(65)), seconds(5), "the same boot: exactly");
    assert_eq!(freed_at(history("x", 99_000_000), seconds(65)), seconds(65), "a time to come: now");
    assert_eq!(freed_at(history("before", 5_000), seconds(65)), seconds(65), "another boot: anew");
}

#[test]
fn the_newest_lease_comes_first_when_two_have_one_port() {
    let (old, new) = (lease("a", "1", "http=80"), lease("b", "1", "http=80"));
    let past = Past::of(vec![opened("x"), leased(&old, 1), leased(&new, 2)], &boot("x"), seconds(10));
    assert_eq!(past.leases.iter().map(|s| s.lease.request.instance.as_str()).collect::<Vec<_>>(), ["b", "a"]);
}

#[test]
fn a_snapshot_comes_to_the_same_as_the_history() {
    let (now, random) = (seconds(100), &mut rand::rng());
    let mut allocator = Allocator::new(Pools::default(), Sticky::default());
    let mut leases = Vec::new();
    for n in 0..20 {
        let mut lease = lease(&format!("web-{n}"), "1", "http");
        let request = &lease.request;
        lease.ports = allocator.allocate(&request.instance, &request.requests, now, random).unwrap();
        leases.push(lease);
    }
    for lease in leases.drain(..10) {
        allocator.release(&lease.request.instance, &lease.ports, now);
    }
    let records = snapshot(&boot("x"), leases.iter(), &allocator, now);
    let past = Past::of(records, &boot("x"), seconds(110));
    let mut again: Vec<_> = past.leases.into_iter().map(|survivor| survivor.lease).collect();
    again.reverse();
    assert_eq!(again, leases);
    assert_eq!(past.freed, allocator.freed().collect::<Vec<_>>());
    assert_eq!(past.remembered.len(), 20);
}
