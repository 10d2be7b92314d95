use proptest::prelude::*;
use serde_json::{Value, json};

use super::{set::DefinedPool, *};

fn loose(name: &str, created: &str, spec: Value) -> DefinedPool {
    let object = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": created}, "spec": spec});
    serde_json::from_value::<LoosePool>(object).unwrap().into()
}

fn pool(name: &str, ranges: &[&str]) -> DefinedPool {
    loose(name, "2026-11-21T10:00:00Z", json!({"ranges": ranges}))
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn names(set: &PoolSet) -> Vec<&str> {
    set.pools.iter().map(|pool| pool.name.as_str()).collect()
}

#[test]
fn a_pool_is_read_with_everything_it_says() {
    let facts = loose(
        "media",
        "2026-11-21T10:00:00Z",
        json!({
            "ranges": ["25000-25999", "20000"], "protocols": ["UDP", "SCTP"], "quarantine": "1m30s",
            "sourceRanges": ["203.0.113.7/24", "2001:db8::/32"], "quota": {"perNamespace": 100},
            "namespaceSelector": {"matchLabels": {"team": "media"}}
        }),
    )
    .facts
    .unwrap();
    assert_eq!(facts.count(), 1001);
    assert_eq!(facts.ranges[0].first(), 20000);
    assert_eq!(facts.protocols.to_string(), "udp+sctp");
    assert_eq!(facts.quarantine, Some(Duration::from_secs(90)));
    assert_eq!(facts.source_ranges[0].to_string(), "203.0.113.0/24");
    assert_eq!(facts.quota_per_namespace, Some(100));
    assert!(facts.admits(&labels(&[("team", "media")])) && !facts.admits(&labels(&[])));
}

#[test]
fn a_pool_that_says_little_has_all_protocols_and_everybody() {
    let facts = pool("default", &["20000-29999"]).facts.unwrap();
    assert_eq!(facts.protocols.to_string(), "tcp+udp+sctp");
    assert!(
        facts.source_ranges.is_empty() && facts.quarantine.is_none() && facts.quota_per_namespace.is_none()
    );
    assert!(facts.admits(&labels(&[])));
}

#[test]
fn what_is_wrong_with_a_pool_is_said() {
    let cases = [
        (json!({"ranges": ["1-x"]}), "spec.ranges[0]: \"1-x\" is no port or range of ports"),
        (json!({"ranges": ["20-10"]}), "spec.ranges[0]: the range 20-10 ends before it begins"),
        (json!({"ranges": []}), "spec.ranges: no ports"),
        (json!({"ranges": ["5-9", "9-12"]}), "spec.ranges: 5-9 and 9-12 overlap"),
        (json!({"ranges": ["5"], "protocols": []}), "spec.protocols: none"),
        (json!({"ranges": ["5"], "protocols": ["DCCP"]}), "spec: unknown variant `DCCP`"),
        (
            json!({"ranges": ["5"], "sourceRanges": ["10.0.0.1"]}),
            "spec.sourceRanges[0]: \"10.0.0.1\" is no CIDR",
        ),
        (
            json!({"ranges": ["5"], "quarantine": "2 minutes"}),
            "spec.quarantine: \"2 minutes\" is no duration",
        ),
        (json!({"ranges": ["5"], "quarantine": "-2m"}), "spec.quarantine: \"-2m\" is no duration"),
        (json!({"ranges": ["5"], "quota": {"perNamespace": -1}}), "spec.quota.perNamespace: -1 is less"),
        (
            json!({"ranges": ["5"], "nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            "spec.nodeSelector: \"Like\" is no operator",
        ),
        (json!("nonsense"), "spec: invalid type"),
    ];
    for (spec, expected) in cases {
        let message = loose("a", "2026-11-21T10:00:00Z", spec.clone()).facts.unwrap_err().to_string();
        assert!(message.starts_with(expected), "{spec}: {message}");
    }
    let named = pool("Upper.Case", &["5"]).facts.unwrap_err().to_string();
    assert!(named.starts_with("metadata.name: "), "{named}");
}

#[test]
fn of_two_pools_with_the_same_port_the_older_one_holds() {
    let old = loose("zebra", "2026-11-20T10:00:00Z", json!({"ranges": ["1000-2000"]}));
    let new = loose("ant", "2026-11-21T10:00:00Z", json!({"ranges": ["2000-3000"]}));
    let set = PoolSet::of_node([&new, &old], &labels(&[]));
    assert_eq!(names(&set), ["zebra"]);
    assert_eq!((set.refused[0].name.as_str(), set.refused[0].reason), ("ant", "Conflict"));
    assert!(set.refused[0].message.starts_with("2000-3000 overlaps 1000-2000 of the older pool zebra"));
}

#[test]
fn pools_of_different_nodes_may_have_the_same_ports() {
    let on = |name: &str, zone: &str| {
        let spec = json!({"ranges": ["1000-2000"], "nodeSelector": {"matchLabels": {"zone": zone}}});
        loose(name, "2026-11-21T10:00:00Z", spec)
    };
    let (a, b) = (on("a", "a"), on("b", "b"));
    assert_eq!(names(&PoolSet::of_node([&a, &b], &labels(&[("zone", "b")]))), ["b"]);
    let elsewhere = PoolSet::of_node([&a, &b], &labels(&[("zone", "c")]));
    assert!(elsewhere.defined && elsewhere.pools.is_empty() && elsewhere.refused.is_empty());
    assert!(!PoolSet::of_node([], &labels(&[])).defined);
}

#[test]
fn a_pool_that_cannot_be_read_does_not_hide_the_others() {
    let broken = loose("broken", "2026-11-20T10:00:00Z", json!({"ranges": 7}));
    let set = PoolSet::of_node([&broken, &pool("fine", &["1"])], &labels(&[]));
    assert_eq!(names(&set), ["fine"]);
    assert_eq!((set.refused[0].name.as_str(), set.refused[0].reason), ("broken", "Invalid"));
}

#[test]
fn the_published_definition_is_that_of_this_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/crds/portpools.yaml");
    let fresh = crd_yaml();
    assert!(fresh.contains("x-kubernetes-validations"), "{fresh}");
    if std::env::var_os("UPDATE_CRDS").is_some() {
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, &fresh).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        published == fresh,
        "{path} is stale: UPDATE_CRDS=1 cargo test -p portolan-kubernetes published_definition"
    );
}

proptest! {
    #[test]
    fn every_agent_chooses_the_same_pools_and_no_port_twice(
        starts in prop::collection::vec((1u16..60_000, 1u16..5000, 0u8..3), 1..8), seed in any::<u64>(),
    ) {
        let mut pools: Vec<_> = starts.iter().enumerate().map(|(index, (first, count, day))| {
            let range = format!("{first}-{}", first + count);
            loose(&format!("pool{index}"), &format!("2026-11-2{day}T10:00:00Z"), json!({"ranges": [range]}))
        }).collect();
        let set = PoolSet::of_node(&pools, &labels(&[]));
        let turn = (seed % pools.len() as u64) as usize;
        pools.rotate_left(turn);
        prop_assert_eq!(&PoolSet::of_node(&pools, &labels(&[])), &set);
        for (index, one) in set.pools.iter().enumerate() {
            prop_assert!(set.pools[..index].iter().all(|other| other.overlap(one).is_none()));
        }
        prop_assert_eq!(set.pools.len() + set.refused.len(), pools.len());
    }
}
