//! Install, upgrade with other values and uninstall by Helm, and what that is to Pods and nodes.

use std::{net::SocketAddr, time::Duration};

use portolan_cluster::{Cluster, need_cluster};
use portolan_testkit::{eventually, eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Line, Outside, Space, found, installed, public_address, told};

const SOON: Duration = Duration::from_secs(60);
/// Scripts that say what we have left on a node.
const PLACES: [&str; 6] = [
    "ls /opt/cni/bin/portolan 2>/dev/null",
    "find /run/portolan /var/lib/portolan -mindepth 1 2>/dev/null",
    "grep -l portolan /etc/cni/net.d/* 2>/dev/null",
    "nft list tables | grep portolan",
    "ip address show dev lo | grep 169.254.86",
    "grep . /proc/sys/net/ipv4/ip_local_reserved_ports",
];

/// One test, since there is one release on a cluster: its life in order.
#[test]
fn a_release_lives_without_breaking_a_connection_and_leaves_nothing() {
    need_root!();
    let cluster = need_cluster!();
    let chart = installed(cluster);
    let space = Space::new(cluster, "helm");
    let outside = Outside::new(cluster, space.name(), "examples");
    let script = "exec socat TCP-LISTEN:$PORTOLAN_PORT_ECHO,fork,reuseaddr EXEC:cat";
    let pod = Asking::script("echo", "echo", script).start(&space);
    let (node, port) = (public_address(&pod), *told(&pod)[0].host.start());

    // Other values: agents and webhook are replaced, holders stay, and the connection goes on.
    let server = SocketAddr::new(node, port);
    let connect = || Line::soon(SOON, || outside.namespace().run(|| Line::to(server)));
    let mut connection = connect();
    connection.says("before");
    let holders = pods_of(cluster, "holder");
    let agents = pods_of(cluster, "agent");
    let values = "agent.localhost=true,quarantine=10s,log.level=debug,webhook.replicas=1";
    chart.run(&["upgrade", "portolan", "CHART", "--namespace", "portolan", "--set", values]);
    for what in ["daemonset/portolan-agent", "deployment/portolan-webhook"] {
        cluster.wait_for_rollout("portolan", what, SOON).unwrap_or_else(|error| panic!("{error:#}"));
        connection.says(what);
    }
    assert_eq!(pods_of(cluster, "holder"), holders, "an upgrade does not touch them");
    assert!(pods_of(cluster, "agent").iter().all(|agent| !agents.contains(agent)));
    assert_eq!(told(&space.get("pod/echo")), told(&pod));
    connect().says("anew");
    let values = chart.run(&["get", "values", "portolan", "--namespace", "portolan"]);
    assert!(values.contains("localhost: true"), "{values}");

    // And away: nothing of ours is on the nodes or in the cluster.
    space.kubectl(&["delete", "pod", "echo", "--grace-period=1"]);
    chart.run(&["uninstall", "portolan", "--namespace", "portolan", "--timeout", "3m"]);
    let kinds = "all,serviceaccounts,roles,rolebindings,leases,configmaps,secrets,poddisruptionbudgets";
    let left = eventually_ok(SOON, || {
        let words = ["-n", "portolan", "get", kinds, "-l", "app.kubernetes.io/name=portolan", "-o", "name"];
        let left = cluster.run_kubectl(&words).map_err(|error| format!("{error:#}"))?;
        if left.trim().is_empty() { Ok(()) } else { Err(left) }
    });
    assert!(left.is_ok(), "{left:?}");
    let words = ["get", "clusterroles,clusterrolebindings,crds,mutatingwebhookconfigurations", "-o", "name"];
    let global = cluster.run_kubectl(&words).unwrap_or_default();
    assert!(!global.contains("portolan"), "{global}");
    for node in cluster.nodes() {
        eventually(SOON, || found(&node, &PLACES).is_empty());
        let resources =
            cluster.run_kubectl(&["get", "node", &node.name(), "-o", "jsonpath={.status.capacity}"]);
        assert!(resources.as_ref().is_ok_and(|all| !all.contains("portolan")), "{resources:?}");
    }

    // Pods without ports start as before, and it can be installed again.
    let plain = Asking::script("plain", "", "exec sleep 1000").silent();
    plain.start(&space);
    installed(cluster);
    Asking::new("again", "http").start(&space);
}

fn pods_of(cluster: &Cluster, component: &str) -> Vec<String> {
    let label = format!("app.kubernetes.io/component={component}");
    let words = ["-n", "portolan", "get", "pods", "-l", &label, "-o", "name"];
    let said = cluster.run_kubectl(&words).unwrap_or_else(|error| panic!("{error:#}"));
    said.lines().map(str::to_owned).collect()
}
