//! The reference itself is judged by what kube-proxy's authors expect of kube-proxy.
#![allow(clippy::unwrap_used, missing_docs)]

mod reference;

use reference::{answers, cases};

#[test]
fn the_reference_answers_as_kube_proxys_authors_expect() {
    let all = cases::all();
    // 108 rows of the oracle, for two versions of IP and three protocols, and the vectors.
    assert!(all.len() > 648 + 300, "{} cases", all.len());
    for case in all {
        assert_eq!(answers(&case.world, &case.asked), case.expected, "{}", case.name);
    }
}

#[test]
fn cases_have_names_of_their_own() {
    let mut names: Vec<String> = cases::all().into_iter().map(|case| case.name).collect();
    names.sort();
    let twice: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| &pair[0]).collect();
    // The two addresses of one load balancer are asked the same things.
    assert!(twice.iter().all(|name| name.contains("TestLoadBalancer")), "{twice:?}");
}
