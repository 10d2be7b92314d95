//! What is promised about the choice of addresses.

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn small() -> SandboxConfig {
    SandboxConfig {
        v4: "192.0.2.0/29".parse().ok(),
        v6: "2001:db8::/125".parse().ok(),
        ..SandboxConfig::default()
    }
}

#[test]
fn the_same_name_gets_the_same_addresses_and_another_one_others() {
    let config = SandboxConfig::default();
    let used = BTreeSet::new();
    let first = choose(&config, &name("web-0"), &used).unwrap();
    assert_eq!(choose(&config, &name("web-0"), &used).unwrap(), first);
    assert_ne!(choose(&config, &name("web-1"), &used).unwrap(), first);
    // Written down: a change of the hash would move every instance.
    assert_eq!(first.0, Some("10.213.213.8".parse().unwrap()));
}

#[test]
fn a_taken_address_is_passed_over() {
    let config = SandboxConfig::default();
    let (v4, v6) = choose(&config, &name("web-0"), &BTreeSet::new()).unwrap();
    let used = BTreeSet::from([IpAddr::from(v4.unwrap())]);
    let (other, same) = choose(&config, &name("web-0"), &used).unwrap();
    assert_ne!(other, v4);
    assert_eq!(same, v6);
}

#[test]
fn every_address_is_given_before_the_subnet_is_exhausted_and_none_of_the_reserved_ones() {
    let config = small();
    let mut used = BTreeSet::new();
    let mut count = 0;
    let error = loop {
        match choose(&SandboxConfig { v6: None, ..config.clone() }, &name(&format!("i-{count}")), &used) {
            Ok((v4, v6)) => {
                assert_eq!(v6, None);
                assert!(used.insert(v4.unwrap().into()));
                count += 1;
            }
            Err(error) => break error,
        }
    };
    assert_eq!(count, 5, "192.0.2.2 to 192.0.2.6");
    assert!(!used.contains(&config.gateway_v4().unwrap().into()));
    assert!(error.to_string().contains("all of its 5 addresses"), "{error}");
}

#[test]
fn a_family_without_a_subnet_has_no_address() {
    let config = SandboxConfig { v4: None, ..SandboxConfig::default() };
    let (v4, v6) = choose(&config, &name("web-0"), &BTreeSet::new()).unwrap();
    assert!(v4.is_none() && v6.is_some());
}

proptest! {
    #[test]
    fn an_address_is_in_its_subnet_free_and_nobody_elses(text in "[a-z]{1,20}", bits in 1u8..=30, wide in 1u8..=126) {
        let config = SandboxConfig {
            v4: ipnet::Ipv4Net::new(Ipv4Addr::new(10, 213, 0, 0), bits).ok(),
            v6: ipnet::Ipv6Net::new(Ipv6Addr::new(0xfd70, 0, 0, 0, 0, 0, 0, 0), wide).ok(),
            ..SandboxConfig::default()
        };
        let (v4, v6) = choose(&config, &name(&text), &BTreeSet::new()).unwrap();
        let (v4, v6, net4, net6) = (v4.unwrap(), v6.unwrap(), config.v4.unwrap(), config.v6.unwrap());
        prop_assert!(net4.contains(&v4) && net6.contains(&v6));
        prop_assert!(v4 != net4.network() && v4 != net4.broadcast() && Some(v4) != config.gateway_v4());
        prop_assert!(v6 != net6.network() && Some(v6) != config.gateway_v6());
    }
}
