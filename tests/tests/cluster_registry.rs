//! The chart's registry: Pods with ports are in its catalog with their node's address and host port, for as long as they are
//! ready. One test, since there is one release on a cluster.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use portolan_cluster::{Cluster, need_cluster};
use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Chart, Outside, Space, installed, public_address, told};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(60);

/// The release with a registry; without it when dropped.
struct Registry<'a> {
    chart: &'a Chart,
    cluster: &'static Cluster,
}

impl<'a> Registry<'a> {
    #[track_caller]
    fn new(chart: &'a Chart, cluster: &'static Cluster) -> Self {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "catalog", "namespace": "portolan"},
            "stringData": {"token": "of-the-catalog"}});
        cluster.apply(&secret.to_string()).unwrap_or_else(|error| panic!("{error:#}"));
        let registry = Self { chart, cluster };
        registry.upgrade(&[
            "--set",
            "registry.enabled=true,registry.tokenSecret=catalog,registry.service.type=NodePort",
        ]);
        registry.wait("deployment/portolan-registry");
        registry
    }

    #[track_caller]
    fn upgrade(&self, values: &[&str]) {
        let upgrade = ["upgrade", "portolan", "CHART", "--namespace", "portolan"];
        self.chart.run(&[&upgrade, values].concat());
        self.wait("daemonset/portolan-agent");
    }

    #[track_caller]
    fn wait(&self, what: &str) {
        self.cluster.wait_for_rollout("portolan", what, SOON * 2).unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        let words = [&["-n", "portolan"], words].concat();
        self.cluster.run_kubectl(&words).map_err(|error| format!("{error:#}"))
    }

    /// The port of the nodes at which its page is.
    #[track_caller]
    fn port(&self) -> u16 {
        let path = "jsonpath={.spec.ports[0].nodePort}";
        let said = self.kubectl(&["get", "service", "portolan-registry", "-o", path]);
        let port = said.as_ref().ok().and_then(|text| text.parse().ok());
        port.unwrap_or_else(|| panic!("{said:?}"))
    }
}

impl Drop for Registry<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.upgrade(&[]);
        }
        let _ = self.kubectl(&["delete", "secret", "catalog"]);
    }
}

/// What the catalog has of a service's copies: name, address and port.
fn listed(
    outside: &Outside,
    at: SocketAddr,
    service: &str,
) -> Result<BTreeSet<(String, IpAddr, u16)>, String> {
    let text = outside.http(at.ip(), at.port(), "/v1/instances")?;
    let all: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let instances = all["instances"].as_array().cloned().unwrap_or_default();
    let ours = instances.iter().filter(|one| one["service"] == service && one["state"] == "passing");
    let read = |one: &Value| {
        let address = one["addresses"][0].as_str()?.parse().ok()?;
        let port = &one["ports"][0]["port"];
        let port = port.as_u64().map_or(port.to_string(), |port| port.to_string());
        Some((one["name"].as_str()?.to_owned(), address, port.trim_matches('"').parse().ok()?))
    };
    ours.map(|one| read(one).ok_or_else(|| one.to_string())).collect()
}

#[test]
fn pods_with_ports_are_in_the_catalog_where_clients_reach_them_and_leave_it_when_they_end() {
    need_root!();
    let cluster = need_cluster!();
    let chart = installed(cluster);
    let registry = Registry::new(&chart, cluster);
    let space = Space::new(cluster, "catalog");
    let outside = Outside::new(cluster, space.name(), "examples");
    let at = SocketAddr::from((cluster.node(1).address(), registry.port()));
    space.create(&Asking::new("web", "http").controlled("Deployment", 3));
    let expect = |count: usize| -> BTreeSet<(String, IpAddr, u16)> {
        let entry = |pod: &Value| {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            (format!("{name}-{}", space.name()), public_address(pod), *told(pod)[0].host.start())
        };
        space.wait_for_pods("app=web", count).iter().map(entry).collect()
    };
    let wait_for = |wanted: &BTreeSet<(String, IpAddr, u16)>, when: &str| {
        let seen = eventually_ok(SOON, || match listed(&outside, at, "web") {
            Ok(seen) if seen == *wanted => Ok(()),
            other => Err(other),
        });
        if let Err(seen) = seen {
            let all = outside.http(at.ip(), at.port(), "/v1/instances");
            panic!("{when}: {seen:?} is not {wanted:?}: {all:?}\n{}", space.picture());
        }
    };
    let three = expect(3);
    wait_for(&three, "at the start");
    // What it says is where a client gets to them.
    for (name, address, port) in &three {
        let page = eventually_ok(SOON, || outside.http(*address, *port, "/"));
        let pod = name.strip_suffix(&format!("-{}", space.name())).unwrap_or_default();
        assert!(page.as_ref().is_ok_and(|page| page.contains(pod)), "{name} at {address}:{port}: {page:?}");
    }

    // Without the token nobody writes: the API of writers has no port outside of the cluster, so a node asks.
    let path = "jsonpath={.spec.clusterIP}";
    let api = registry.kubectl(&["get", "service", "portolan-registry-api", "-o", path]);
    let url = format!("http://{}:10080/v1/instances/stranger", api.unwrap_or_else(|error| panic!("{error}")));
    let body = r#"{"name":"stranger","addresses":["192.0.2.9"],"ports":[{"name":"http","port":80}]}"#;
    let words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "PUT", "-d", body, &url];
    let code = cluster.node(1).run(words).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(matches!(code.trim(), "401" | "403"), "{code}");

    // A Pod that goes is gone from it, and another agent says the same as the last one.
    space.kubectl(&["scale", "deployment", "web", "--replicas=2"]);
    let two = expect(2);
    assert!(two.is_subset(&three));
    wait_for(&two, "after one has ended");
    let restarted = registry.kubectl(&["rollout", "restart", "daemonset/portolan-agent"]);
    assert!(restarted.is_ok(), "{restarted:?}");
    registry.wait("daemonset/portolan-agent");
    wait_for(&two, "with other agents");

    // The catalog is on disk, and the agents are there for one that has lost it.
    let gone = registry.kubectl(&[
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/component=registry",
        "--grace-period=1",
    ]);
    assert!(gone.is_ok(), "{gone:?}");
    registry.wait("deployment/portolan-registry");
    wait_for(&two, "with a registry that knows nothing");

    space.kubectl(&["delete", "deployment", "web"]);
    wait_for(&BTreeSet::new(), "at the end");
    drop(registry);
}
