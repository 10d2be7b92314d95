//! How many ports the Pods of a namespace ask for together, over the whole cluster.
//!
//! There is no counter that could be wrong: each time the Pods themselves are counted, by what they ask for. Those that
//! have their ports already come first, then older ones before newer ones; a Pod that does not fit counts for nothing.
//! So all nodes agree without a lock about which Pods fit, also when several ask in the same moment, and a Pod that
//! asks for too much does not keep others from what is left.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use portolan_model::{Name, STATUS_ANNOTATION};

use crate::{ApiError, Connection, PodFacts, PoolSet};

/// How many ports of which pool a Pod asks for; nothing when it does not ask. An error is a message for whoever wrote
/// the Pod. Pure, and the same on every node.
pub type Count = Arc<dyn Fn(&PodFacts) -> Result<BTreeMap<Name, u32>, String> + Send + Sync>;

/// Pods of one page.
const PAGE: u32 = 500;

/// The ports that unfinished Pods of `namespace` have or will get, by pool. With `before`, a Pod of the namespace, only
/// Pods that go before that one count: what is left of the quota is for it.
pub async fn namespace_usage(
    connection: &Connection,
    namespace: &str,
    before: Option<&PodFacts>,
    (count, pools): (&Count, &PoolSet),
    limit: Duration,
) -> Result<BTreeMap<Name, u32>, ApiError> {
    let pods = pods_of(connection, namespace);
    let pods = tokio::time::timeout(limit, pods).await.unwrap_or_else(|_| {
        Err(ApiError::TimedOut { what: format!("list Pods of {namespace}"), after: limit })
    })?;
    Ok(usage(pods.iter(), before, (count, pools)))
}

async fn pods_of(connection: &Connection, namespace: &str) -> Result<Vec<PodFacts>, ApiError> {
    let api = Api::<Pod>::namespaced(connection.client(), namespace);
    let unfinished = "status.phase!=Succeeded,status.phase!=Failed";
    let mut parameters = ListParams::default().fields(unfinished).limit(PAGE);
    let mut pods = Vec::new();
    loop {
        let page = api.list(&parameters).await;
        let page = page.map_err(|error| ApiError::new(format!("list Pods of {namespace}"), &error))?;
        pods.extend(page.items.into_iter().map(PodFacts::from));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(pods),
        }
    }
}

/// Adds up what Pods get, in the order in which they get it. Those that ask for nonsense get nothing.
pub(crate) fn usage<'a>(
    pods: impl IntoIterator<Item = &'a PodFacts>,
    before: Option<&PodFacts>,
    (count, pools): (&Count, &PoolSet),
) -> BTreeMap<Name, u32> {
    let has_ports = |pod: &PodFacts| pod.annotations.contains_key(STATUS_ANNOTATION);
    let rank = |pod: &PodFacts| (!has_ports(pod), pod.created, pod.uid.clone());
    let until = before.map(rank);
    let mut pods: Vec<_> = pods.into_iter().filter(|pod| !pod.phase.is_finished()).collect();
    pods.sort_by_cached_key(|pod| rank(pod));
    let mut sum = BTreeMap::<Name, u32>::new();
    for pod in pods.into_iter().take_while(|pod| until.as_ref().is_none_or(|until| rank(pod) < *until)) {
        let asked = count(pod).unwrap_or_default();
        if has_ports(pod) || check_quota(pools, &pod.namespace, &sum, &asked).is_ok() {
            for (pool, ports) in asked {
                let entry = sum.entry(pool).or_default();
                *entry = entry.saturating_add(ports);
            }
        }
    }
    sum
}

/// Whether a Pod that asks for `asked` fits beside `used`. The error says which quota is exceeded by how much.
pub fn check_quota(
    pools: &PoolSet,
    namespace: &str,
    used: &BTreeMap<Name, u32>,
    asked: &BTreeMap<Name, u32>,
) -> Result<(), String> {
    for (pool, asked) in asked {
        let Some(quota) = pools.get(pool.as_str()).and_then(|pool| pool.quota_per_namespace) else {
            continue;
        };
        let used = used.get(pool).copied().unwrap_or_default();
        if used.saturating_add(*asked) > quota {
            return Err(format!(
                "the quota of pool {pool} is {quota} ports for a namespace: Pods of {namespace} have asked for {used} of \
                 them, and {asked} more do not fit; delete Pods, ask for less, or have the PortPool changed"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Phase, pool::DefinedPool, pool::LoosePool};

    fn pod(uid: &str, created: i64, asked: u32) -> PodFacts {
        let annotations = BTreeMap::from([("count".to_owned(), asked.to_string())]);
        PodFacts { uid: uid.to_owned(), created: Some(created), annotations, ..PodFacts::default() }
    }

    fn counting() -> Count {
        Arc::new(|pod| {
            let number: u32 =
                pod.annotations.get("count").ok_or("no count")?.parse().map_err(|_| "no number")?;
            Ok(BTreeMap::from([("default".parse().unwrap(), number)]))
        })
    }

    fn quota(number: i32) -> PoolSet {
        let pool = serde_json::json!({
            "metadata": {"name": "default"}, "spec": {"ranges": ["1-9"], "quota": {"perNamespace": number}}
        });
        let pool = DefinedPool::from(serde_json::from_value::<LoosePool>(pool).unwrap());
        PoolSet::of_node([&pool], &BTreeMap::new())
    }

    #[test]
    fn finished_pods_and_nonsense_do_not_count() {
        let mut finished = pod("a", 1, 5);
        finished.phase = Phase::Succeeded;
        let mut nonsense = pod("b", 1, 5);
        nonsense.annotations.insert("count".to_owned(), "many".to_owned());
        let pools = PoolSet::default();
        let used = usage([&finished, &nonsense, &pod("c", 1, 7)], None, (&counting(), &pools));
        assert_eq!(used.get("default"), Some(&7));
    }

    #[test]
    fn who_is_over_the_quota_is_told_by_how_much() {
        let number = |number| BTreeMap::from([("default".parse().unwrap(), number)]);
        assert_eq!(check_quota(&quota(10), "games", &number(6), &number(4)), Ok(()));
        let message = check_quota(&quota(10), "games", &number(7), &number(4)).unwrap_err();
        assert!(message.starts_with(
            "the quota of pool default is 10 ports for a namespace: Pods of games have asked for 7"
        ));
        assert_eq!(check_quota(&PoolSet::default(), "games", &number(7), &number(4)), Ok(()));
    }

    #[test]
    fn a_pod_that_asks_for_too_much_leaves_the_rest_to_others() {
        let (pools, count) = (quota(10), counting());
        let pods = [pod("greedy", 1, 20), pod("modest", 2, 4)];
        assert!(usage(&pods, Some(&pods[1]), (&count, &pools)).is_empty());
    }

    #[test]
    fn who_has_ports_keeps_them_when_an_older_one_would_fit_at_last() {
        let (pools, count) = (quota(10), counting());
        let mut has = pod("new", 2, 4);
        has.annotations.insert(STATUS_ANNOTATION.to_owned(), "{}".to_owned());
        let pods = [pod("old", 1, 8), has];
        assert_eq!(usage(&pods, Some(&pods[0]), (&count, &pools)).get("default"), Some(&4));
        assert!(usage(&pods, Some(&pods[1]), (&count, &pools)).is_empty());
    }

    proptest! {
        // Each Pod is judged by its own node, with the same list in any order.
        #[test]
        fn all_nodes_together_never_admit_more_than_the_quota(
            asks in prop::collection::vec((0i64..5, 1u32..6), 1..12), limit in 0i32..30,
        ) {
            let pods: Vec<_> =
                asks.iter().enumerate().map(|(index, (created, asked))| pod(&index.to_string(), *created, *asked)).collect();
            let (count, pools) = (counting(), quota(limit));
            let admitted = pods.iter().filter(|pod| {
                let used = usage(pods.iter().rev(), Some(pod), (&count, &pools));
                check_quota(&pools, "games", &used, &count(pod).unwrap()).is_ok()
            });
            let total: u32 = admitted.map(|pod| count(pod).unwrap().values().sum::<u32>()).sum();
            prop_assert!(i64::from(total) <= i64::from(limit));
        }
    }
}
