//! Pools as PortPools make them: what a full one is to Pods and to the scheduler, who gets the last port, quotas. PortPools are
//! the whole cluster's, so these tests run one after the other.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portolan_cluster::{Cluster, Node, need_cluster};
use portolan_testkit::{ask, eventually, eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Outside, Space, installed, public_address, ready, told};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// PortPools for as long as a test needs them: `few`, `quota`, and the one of those who name none.
struct Pools {
    cluster: &'static Cluster,
    _alone: MutexGuard<'static, ()>,
}

impl Pools {
    /// `ranges` is each test's own, and none of the pool that other tests take from: a port that one of them had may be in
    /// quarantine.
    #[track_caller]
    fn new(cluster: &'static Cluster, name: &str, ranges: &str, quota: Option<u32>) -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let pools = Self { cluster, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) };
        for (name, ranges, quota) in [("default", "20000-29999", None), (name, ranges, quota)] {
            let quota = quota.map_or(Value::Null, |quota| json!({"perNamespace": quota}));
            let pool = json!({"apiVersion": "portolan.dev/v1alpha1", "kind": "PortPool", "metadata": {"name": name},
                "spec": {"ranges": [ranges], "quarantine": "1s", "quota": quota}});
            cluster.apply(&pool.to_string()).unwrap_or_else(|error| panic!("{error:#}"));
        }
        for node in cluster.nodes() {
            eventually(SOON, || free(&node, cluster, name).is_some());
        }
        pools
    }
}

impl Drop for Pools {
    fn drop(&mut self) {
        let _ = self.cluster.run_kubectl(&["delete", "portpools", "--all", "--timeout=60s"]);
        // The next test begins with the pool of the chart's values.
        let one = |node: &Node<'_>| free(node, self.cluster, "few").or(free(node, self.cluster, "quota"));
        let _ = eventually_ok(SOON, || {
            if self.cluster.nodes().all(|node| one(&node).is_none()) { Ok(()) } else { Err(()) }
        });
    }
}

/// How many ports of a pool a node has for the scheduler.
fn free(node: &Node<'_>, cluster: &Cluster, pool: &str) -> Option<u32> {
    let text = cluster.run_kubectl(&["get", "node", &node.name(), "-o", "json"]).ok()?;
    let node: Value = serde_json::from_str(&text).ok()?;
    node["status"]["allocatable"][format!("ports.portolan.dev/{pool}")].as_str()?.parse().ok()
}

/// A Pod that the webhook does not see, as where there is none: it comes to be before its namespace may have ports, and
/// waits at a gate until that has changed.
fn gated(asking: &Asking) -> Value {
    let mut pod = asking.manifest();
    pod["spec"]["schedulingGates"] = json!([{"name": "portolan.dev/test"}]);
    pod
}

/// Lets gated Pods go, all at the same time.
#[track_caller]
fn open(space: &Space, pods: &[&str]) {
    space.kubectl(&["label", "--overwrite", "namespace", space.name(), "portolan.dev/ports=allowed"]);
    let patch = r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#;
    space.kubectl(&[&["patch", "--type=json", "-p", patch, "pod"], pods].concat());
}

/// Waits for an Event about a Pod that has all of these words.
#[track_caller]
fn wait_for_event(space: &Space, pod: &str, words: &[&str]) {
    let said = eventually_ok(SOON, || {
        let events = space.events(pod);
        let has = |event: &String| words.iter().all(|word| event.contains(word));
        if events.iter().any(has) { Ok(()) } else { Err(events) }
    });
    if let Err(events) = said {
        panic!("no Event of {pod} says {words:?}: {events:#?}\n{}", space.picture());
    }
}

#[track_caller]
fn delete(space: &Space, pod: &str) {
    space.kubectl(&["delete", "pod", pod, "--grace-period=1"]);
}

/// Those of these Pods that are ready.
fn up(space: &Space, names: &[&str]) -> Vec<String> {
    let is = |name: &&&str| space.try_get(&format!("pod/{name}")).is_ok_and(|pod| ready(&pod));
    names.iter().filter(is).map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_scheduler_sends_no_pod_to_a_node_whose_pool_is_full() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let _pools = Pools::new(cluster, "few", "19000-19001", None);
    let space = Space::new(cluster, "full");
    let node = cluster.node(1);
    assert_eq!(free(&node, cluster, "few"), Some(2));
    for name in ["first", "second"] {
        Asking::new(name, "http,pool=few").on(&node).start(&space);
    }
    // One that may go nowhere else waits; one that may goes to the other node.
    space.create(&Asking::new("third", "http,pool=few").on(&node).manifest());
    wait_for_event(&space, "third", &["FailedScheduling", "Insufficient ports.portolan.dev/few"]);
    assert!(space.get("pod/third")["spec"]["nodeName"].is_null());
    let anywhere = Asking::new("anywhere", "http,pool=few").start(&space);
    assert_eq!(anywhere["spec"]["nodeName"], cluster.node(2).name());
    // A port is free again.
    delete(&space, "first");
    let third = space.wait_for_pod("third");
    assert!((19000..19002).contains(told(&third)[0].host.start()), "{:?}", told(&third));
}

#[test]
fn a_pod_on_a_full_node_waits_says_why_and_starts_when_a_port_is_free() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let _pools = Pools::new(cluster, "few", "19010-19011", None);
    let space = Space::without_ports(cluster, "waits");
    let node = cluster.node(1);
    for name in ["one", "two", "three"] {
        space.create(&gated(&Asking::new(name, "http,pool=few").on(&node)));
    }
    open(&space, &["one", "two"]);
    for name in ["one", "two"] {
        space.wait_for_pod(name);
    }
    open(&space, &["three"]);
    wait_for_event(&space, "three", &["Warning PortsFailed", "the pool few", "2 of 2 in use"]);
    wait_for_event(&space, "three", &["FailedCreatePodSandBox", "pool few"]);
    delete(&space, "one");
    space.wait_for_pod("three");
}

#[test]
fn of_two_that_race_for_the_last_port_one_has_it_and_the_other_has_it_next() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let _pools = Pools::new(cluster, "few", "19020", None);
    let node = cluster.node(1);
    let outside = Outside::new(cluster, "default", "examples");
    for seen_by_the_webhook in [true, false] {
        let space = Space::without_ports(cluster, "race");
        let names = ["red", "blue"];
        let pods = names.map(|name| Asking::new(name, "http,pool=few").on(&node));
        if seen_by_the_webhook {
            space.kubectl(&["label", "namespace", space.name(), "portolan.dev/ports=allowed"]);
            let all: Vec<Value> = pods.iter().map(Asking::manifest).collect();
            space.create_all(all);
        } else {
            space.create_all(pods.iter().map(gated).collect());
            open(&space, &names);
        }
        eventually(SOON * 2, || up(&space, &names).len() == 1);
        let winner = up(&space, &names).remove(0);
        let loser = names.into_iter().find(|name| *name != winner).unwrap_or_default();
        let port = SocketAddr::from((node.address(), 19020));
        let page = || outside.http(port.ip(), port.port(), "/");
        eventually(SOON, || page().is_ok_and(|page| page.contains(&winner)));
        // And it stays so for as long as it takes to refuse the other.
        let words: &[&str] = if seen_by_the_webhook { &["Insufficient"] } else { &["PortsFailed"] };
        wait_for_event(&space, loser, words);
        assert_eq!(up(&space, &names), [winner.as_str()]);
        delete(&space, &winner);
        space.wait_for_pod(loser);
        eventually(SOON, || page().is_ok_and(|page| page.contains(loser)));
        delete(&space, loser);
    }
}

#[test]
fn a_quota_is_for_each_namespace_and_what_is_deleted_is_given_back() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let _pools = Pools::new(cluster, "quota", "19100-19199", Some(3));
    let (space, other) = (Space::new(cluster, "quota"), Space::new(cluster, "other"));
    let two = |name: &str| Asking::new(name, "a,pool=quota, b,pool=quota");
    two("one").start(&space);
    // The webhook counts over all nodes, and says so at once.
    let refused = space.try_create(&two("more").on(&cluster.node(2)).manifest());
    let reason = "the quota of pool quota is 3 ports for a namespace";
    assert!(refused.as_ref().is_err_and(|said| said.contains(reason)), "{refused:?}");
    Asking::new("small", "a,pool=quota").start(&space);
    two("one").start(&other);

    // Without a webhook the agent counts, whichever node it is on.
    let third = Space::without_ports(cluster, "agents-quota");
    third.create(&gated(&two("one").on(&cluster.node(1))));
    // The older one goes first, and Kubernetes tells ages in whole seconds.
    let born = Instant::now();
    eventually(SOON, || born.elapsed() > Duration::from_secs(1));
    third.create(&gated(&two("more").on(&cluster.node(2))));
    open(&third, &["one"]);
    third.wait_for_pod("one");
    open(&third, &["more"]);
    let reason = "has 2 of its 3 ports of the pool quota, and this Pod asks for 2 more";
    wait_for_event(&third, "more", &["Warning PortsRefused", reason]);
    delete(&third, "one");
    third.wait_for_pod("more");

    delete(&space, "one");
    two("more").start(&space);
}

#[test]
fn pods_on_the_nodes_network_have_ports_that_are_held_until_they_start_and_no_mapping() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let _pools = Pools::new(cluster, "few", "19200-19209", None);
    let space = Space::new(cluster, "hostnet");
    let outside = Outside::new(cluster, space.name(), "examples");
    let node = cluster.node(1);
    let pod = |name: &str| {
        let serve = "env | grep '^PORT' | sort; exec socat TCP-LISTEN:$PORTOLAN_PORT_HTTP,fork,reuseaddr \
                     SYSTEM:'echo '$HOSTNAME_OF_POD";
        let mut pod = Asking::script(name, "http,pool=few", serve).on(&node).manifest();
        pod["spec"]["hostNetwork"] = json!(true);
        pod["spec"]["containers"][0]["env"] = json!([{"name": "HOSTNAME_OF_POD", "value": name}]);
        pod["spec"]["initContainers"] = json!([{"name": "wait", "image": "debian-tools:1",
            "command": ["/bin/sh", "-c", "until [ -e /tmp/go ]; do sleep 0.2; done"]}]);
        pod
    };
    let names = ["one", "two"];
    space.create_all(names.map(pod).to_vec());
    // They are told while they wait, and nobody else can have their ports.
    let mut numbers = BTreeSet::new();
    for name in names {
        eventually(SOON, || !told(&space.get(&format!("pod/{name}"))).is_empty());
        let port = told(&space.get(&format!("pod/{name}")))[0].clone();
        assert_eq!(port.container, *port.host.start(), "on the node's network they are the same");
        assert!((19200..19210).contains(port.host.start()) && numbers.insert(*port.host.start()));
    }
    for port in &numbers {
        let script = format!("timeout 3 socat -u TCP-LISTEN:{port} OPEN:/dev/null 2>&1");
        let tried = node.exec(["sh", "-c", &script]).unwrap_or_else(|error| panic!("{error:#}"));
        let said = String::from_utf8_lossy(&tried.stdout).into_owned();
        assert!(said.contains("in use"), "{port} is not held: {said}");
    }
    for name in names {
        space.kubectl(&["exec", name, "-c", "wait", "--", "touch", "/tmp/go"]);
    }
    for name in names {
        let pod = space.wait_for_pod(name);
        let (address, port) = (public_address(&pod), *told(&pod)[0].host.start());
        let log = space.kubectl(&["logs", name, "-c", "main"]);
        for line in [format!("PORTOLAN_PORT_HTTP={port}"), format!("PORTOLAN_ADDR_HTTP={address}:{port}")] {
            assert!(log.lines().any(|said| said == line), "no {line} in {log}");
        }
        let answer = eventually_ok(SOON, || {
            outside.namespace().run(|| ask::tcp(SocketAddr::new(address, port))).map_err(|e| e.to_string())
        });
        assert!(answer.as_ref().is_ok_and(|said| said.contains(name)), "{answer:?}");
        let rules = node.run(["nft", "list", "ruleset"]).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(!rules.contains(&format!(" {port} ")), "{port} is mapped: {rules}");
        delete(&space, name);
    }
}
