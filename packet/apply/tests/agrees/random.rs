//! Random Services, endpoints, nodes and packets: the kernel does what the reference allows.

use std::{
    cell::RefCell,
    hash::{BuildHasher as _, RandomState},
    time::Instant,
};

use portolan_testkit::need_root;
use proptest::{
    collection::vec,
    prelude::any,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};

use crate::{
    judge::{self, Met},
    reference::{cases::VERSIONS, random},
    site::Site,
};

/// Ports of endpoints in random worlds, and ports that clients ask.
const ENDPOINTS: [u16; 9] = [8053, 8080, 8153, 8180, 8253, 8280, 8443, 8543, 8643];
const ASKED: [u16; 4] = [22, 53, 80, 443];
const NODE: [u16; 11] = [22, 30_000, 30_001, 30_002, 30_010, 30_011, 30_012, 30_020, 30_021, 30_022, 30_999];

/// Everybody answers at every port that may be asked or led to: who is refused was refused by the node's rules.
fn serve(site: &Site) {
    let servers = site.servers.borrow();
    let all = |texts: &[&str]| -> Vec<_> {
        texts.iter().flat_map(|text| VERSIONS.map(|ip| ip.address(text))).collect()
    };
    let both = [&ENDPOINTS[..], &ASKED].concat();
    for (interface, texts) in [
        ("pod0", &["10.1.0.11"][..]),
        ("pod2", &["10.1.0.12"]),
        ("eth1", &["10.2.0.11", "10.2.0.12", "10.3.0.11", "10.3.0.12"]),
    ] {
        servers.answer(&site.behind(interface).namespace, &all(texts), &both);
    }
    servers.answer(&site.behind("eth3").namespace, &all(&["198.51.100.1"]), &ASKED);
    let others = [
        "172.30.0.1",
        "172.30.0.2",
        "172.30.0.3",
        "172.30.0.200",
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "198.51.100.2",
        "198.51.100.11",
        "198.51.100.12",
        "198.51.100.21",
        "198.51.100.22",
    ];
    servers.answer(&site.behind("eth4").namespace, &all(&others), &ASKED);
    servers.answer(&site.node, &Site::own(), &[&ENDPOINTS[..], &NODE].concat());
}

/// `PORTOLAN_SEED` repeats the world of that seed.
fn agree(worlds: u64) {
    let site = Site::new();
    serve(&site);
    let given = std::env::var("PORTOLAN_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let first = given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id()) >> 16);
    let met = RefCell::new(Met::new());
    let begun = Instant::now();
    // Until each end was met, or the worlds are not worth their name: a dozen of them may well be without affinity.
    let ends = ["kept", "masqueraded", "rejected", "dropped", "untouched", "stays"];
    let enough =
        |met: &Met| ends.iter().all(|end| met.get(end).is_some_and(|count| *count as u64 > worlds / 4));
    let most = if given.is_some() { 1 } else { 10 * worlds };
    for seed in first..first + most {
        if seed >= first + worlds && enough(&met.borrow()) {
            break;
        }
        if (seed - first).is_multiple_of(20) {
            eprintln!("{} of {worlds} worlds, {:?}", seed - first, begun.elapsed());
        }
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases: 1,
            max_shrink_iters: 120,
            max_shrink_time: 60_000,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let mut runner = TestRunner::new_with_rng(config, rng);
        let result = runner.run(&(random::worlds(), vec(any::<Index>(), 1200)), |(world, places)| {
            judge::world(&site, &world, &places, &mut met.borrow_mut()).map_err(|error| {
                // Each on the way to the smallest.
                eprintln!("PORTOLAN_SEED={seed} {error}");
                TestCaseError::fail(error)
            })
        });
        if let Err(error) = result {
            panic!("PORTOLAN_SEED={seed} repeats it\n{error}");
        }
    }
    let met = met.into_inner();
    assert!(given.is_some() || enough(&met), "{met:?}");
    eprintln!("all worlds in {:?}: {met:?}", begun.elapsed());
}

#[test]
fn real_packets_end_as_the_reference_says() {
    need_root!();
    agree(12);
}

#[test]
#[ignore = "make conformance runs it"]
fn real_packets_of_hundreds_of_worlds_end_as_the_reference_says() {
    need_root!();
    agree(400);
}
