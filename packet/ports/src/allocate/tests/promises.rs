//! What users are promised, one test each.

use super::*;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn random() -> StdRng {
    StdRng::seed_from_u64(7)
}

/// Leases for `who` at second 0, or says why not.
fn lease(a: &mut Allocator, who: &str, specs: &[&str]) -> Result<Vec<PublishedPort>, AllocateError> {
    a.allocate(&name(who), &requests(specs), seconds(0), &mut random())
}

#[test]
fn two_protocols_get_one_number_that_is_free_for_both() {
    let mut a = allocator();
    lease(&mut a, "t", &["t/tcp=65533"]).unwrap();
    lease(&mut a, "u", &["u/udp=65535"]).unwrap();
    let both = lease(&mut a, "b", &["game/tcp+udp,pool=tiny"]).unwrap();
    assert_eq!(both[0].host.first(), 65_534);
    let error = lease(&mut a, "c", &["game/tcp+udp,pool=tiny"]).unwrap_err().to_string();
    assert!(
        error.starts_with("port game: the pool tiny (65533-65535) has no free port for tcp+udp"),
        "{error}"
    );
    assert!(lease(&mut a, "c", &["game/tcp,pool=tiny"]).is_ok(), "65535 is still free for TCP alone");
}

#[test]
fn ports_are_unique_in_a_pool_until_it_is_exhausted_and_the_error_says_how_full_it_is() {
    let mut a = allocator();
    let mut seen = BTreeSet::new();
    for n in 0..61 {
        let ports = lease(&mut a, &format!("m-{n}"), &["rtp/udp,pool=media"]).unwrap();
        assert!(seen.insert(ports[0].host.first()));
    }
    a.release(&name("m-0"), &[], seconds(0));
    let error = lease(&mut a, "m-61", &["rtp/udp,pool=media"]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "port rtp: the pool media (21030-21090) has no free port for udp: 61 of 61 in use, 0 in quarantine, 0 free, \
         largest free block 0; stop instances, wait for the quarantine, or configure a larger pool"
    );
    assert_eq!(a.usage(seconds(0)).iter().find(|u| u.pool.as_str() == "media").unwrap().failed, 1);
}

#[test]
fn a_released_port_is_quarantined_for_others_but_not_for_its_instance() {
    let mut a = allocator();
    let ports = lease(&mut a, "web-0", &["x:61,pool=media"]).unwrap();
    a.release(&name("web-0"), &ports, seconds(100));
    let ask = requests(&["x:61,pool=media"]);
    let error = a.allocate(&name("web-1"), &ask, seconds(109), &mut random()).unwrap_err().to_string();
    assert!(error.contains("61 in quarantine (the first comes back in 1 s)"), "{error}");
    let again = a.allocate(&name("web-0"), &ask, seconds(109), &mut random()).unwrap();
    assert_eq!(again, ports);
    a.release(&name("web-0"), &again, seconds(110));
    assert!(a.allocate(&name("web-1"), &ask, seconds(120), &mut random()).is_ok());
}

#[test]
fn an_instance_gets_its_former_ports_again_if_nobody_else_has_them() {
    let mut a = allocator();
    let specs = ["http", "media/udp:20"];
    let first = lease(&mut a, "web-2", &specs).unwrap();
    a.release(&name("web-2"), &first, seconds(0));
    let later = a.allocate(&name("web-2"), &requests(&specs), seconds(1000), &mut random()).unwrap();
    assert_eq!(later, first);
    a.release(&name("web-2"), &later, seconds(1000));
    let static_port = format!("thief={}", first[0].host);
    lease(&mut a, "thief", &[&static_port]).unwrap();
    let other = a.allocate(&name("web-2"), &requests(&specs), seconds(2000), &mut random()).unwrap();
    assert_ne!(other[0].host, first[0].host);
    assert_eq!(other[1].host, first[1].host);
}

#[test]
fn a_static_port_is_given_or_refused_and_never_replaced() {
    let mut a = allocator();
    assert_eq!(lease(&mut a, "a", &["web=8443:80"]).unwrap()[0].host.first(), 8443);
    let error = lease(&mut a, "b", &["web=8443"]).unwrap_err();
    assert_eq!(error.to_string(), "port web: host port 8443/tcp is leased already");
    assert!(lease(&mut a, "b", &["web/udp=8443"]).is_ok(), "another protocol has its own numbers");
    let error = lease(&mut a, "c", &["web=127.0.0.1:8443:"]).unwrap_err();
    assert_eq!(error.to_string(), "port web: host port 8443/tcp is leased already on 127.0.0.1");
}

#[test]
fn the_same_number_on_two_addresses_is_two_ports() {
    let mut a = allocator();
    lease(&mut a, "a", &["web=127.0.0.1:8443:"]).unwrap();
    lease(&mut a, "b", &["web=127.0.0.2:8443:"]).unwrap();
    lease(&mut a, "c", &["web=[::1]:8443:"]).unwrap();
    assert!(matches!(lease(&mut a, "d", &["web=8443"]), Err(AllocateError::Leased { number: 8443, .. })));
}

#[test]
fn a_refused_lease_takes_nothing() {
    let mut a = allocator();
    lease(&mut a, "a", &["web=8443"]).unwrap();
    let before = a.usage(seconds(0));
    assert!(lease(&mut a, "b", &["x", "y/udp:100", "z=8444", "web=8443"]).is_err());
    assert_eq!(a.usage(seconds(0)), before);
    assert!(lease(&mut a, "c", &["z=8444"]).is_ok());
}

#[test]
fn a_random_port_keeps_out_of_the_way_of_a_static_one_of_the_same_instance() {
    for seed in 0..50 {
        let mut a = allocator();
        let ask = requests(&["r,pool=tiny", "q,pool=tiny", "s=65534"]);
        let ports = a.allocate(&name("a"), &ask, seconds(0), &mut StdRng::seed_from_u64(seed)).unwrap();
        assert_eq!(ports[2].host.first(), 65_534);
    }
}

#[test]
fn what_others_have_reserved_is_not_chosen_but_can_be_asked_for() {
    let mut a = allocator();
    a.set_reserved(&["65533-65534".parse().unwrap()]);
    assert_eq!(lease(&mut a, "a", &["r,pool=tiny"]).unwrap()[0].host.first(), 65_535);
    let error = lease(&mut a, "b", &["r,pool=tiny"]).unwrap_err().to_string();
    assert!(error.contains("2 reserved by others in ip_local_reserved_ports"), "{error}");
    assert!(lease(&mut a, "c", &["r=65533"]).is_ok());
}

#[test]
fn a_pool_that_the_administrator_reserved_whole_is_usable() {
    let mut a = allocator();
    a.set_reserved(&["65000-65535".parse().unwrap()]);
    assert!(lease(&mut a, "a", &["r:3,pool=tiny"]).is_ok());
}

#[test]
fn a_port_of_a_foreign_process_is_left_alone_for_a_while() {
    let mut a = allocator();
    a.avoid(Protocol::Tcp, 65_533, seconds(30));
    a.avoid(Protocol::Tcp, 65_535, seconds(30));
    assert_eq!(lease(&mut a, "a", &["r,pool=tiny"]).unwrap()[0].host.first(), 65_534);
    assert!(lease(&mut a, "b", &["r,pool=tiny"]).is_err());
    assert!(a.allocate(&name("b"), &requests(&["r,pool=tiny"]), seconds(30), &mut random()).is_ok());
}

#[test]
fn ports_of_an_earlier_life_are_adopted_or_the_conflict_is_told() {
    let mut a = allocator();
    let ports = lease(&mut allocator(), "a", &["x", "y/tcp+udp:30"]).unwrap();
    a.adopt(&ports).unwrap();
    assert!(matches!(a.adopt(&ports), Err(AllocateError::Leased { .. })));
    a.release(&name("a"), &ports, seconds(0));
    assert!(a.adopt(&ports).is_ok());
}

#[test]
fn a_block_larger_than_its_pool_is_told_apart_from_a_full_pool() {
    let error = lease(&mut allocator(), "a", &["m/udp:62,pool=media"]).unwrap_err().to_string();
    assert!(
        error.contains(
            "a block of 62 cannot fit in the pool media (21030-21090), which has 61 ports in a row"
        )
    );
}
