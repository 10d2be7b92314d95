//! The compiled rules, executed in memory, do what the reference says: for kube-proxy's own expectations and for random
//! Services, endpoints, nodes and packets. Every random choice is gone through.
#![allow(clippy::unwrap_used, missing_docs)]

mod agree;
mod reference;

use proptest::prelude::*;
use reference::{cases, random};

#[test]
fn the_rules_do_what_kube_proxys_authors_expect() {
    let mut wrong = Vec::new();
    for case in cases::all() {
        let machine = agree::machine(&case.world, &agree::services(&case.world).ruleset());
        let done = agree::answers(&machine, &case.asked).unwrap();
        if done != case.expected {
            wrong.push(format!("{}\n  expected {:?}\n  done     {done:?}", case.name, case.expected));
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 3000, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_do_what_the_reference_says(world in random::worlds()) {
        let services = agree::services(&world);
        prop_assert!(services.problems().is_empty(), "{:?}", services.problems());
        let machine = agree::machine(&world, &services.ruleset());
        for asked in random::packets(&world) {
            let done = agree::answers(&machine, &asked).unwrap();
            let expected = reference::answers(&world, &asked);
            prop_assert_eq!(&done, &expected, "{:?}", asked);
        }
    }
}
