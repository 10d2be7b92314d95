//! What breaks on real nodes, and that Pods keep their ports. These tests break nodes, so they run one after the other.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portolan_cluster::{Cluster, Node, need_cluster};
use portolan_testkit::{eventually, need_root};
use portolan_tests::cluster::{Asking, Echo, Outside, Space, installed, public_address, told};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// One at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn an_agent_that_is_killed_breaks_no_connection() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "killed");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let connection = echo.connect();
    for _ in 0..3 {
        kill(&node, "agent");
        Echo::over(&connection, "without").unwrap_or_else(|error| panic!("{error}"));
        echo.connect();
        wait_for_agents(cluster);
        Echo::over(&connection, "with a new one").unwrap_or_else(|error| panic!("{error}"));
    }
    // The new one knows what the old one gave: the Pod's end gives it back.
    space.kubectl(&["delete", "pod", "echo", "--grace-period=1"]);
    eventually(SOON, || echo.is_away());
}

#[test]
fn a_holder_that_is_killed_is_made_good() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "holder");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let connection = echo.connect();
    let port = echo.server.port();
    // Bound and not listening, it is in no list: somebody else finds that it is taken. Seldom and briefly, since who
    // tries has it meanwhile.
    let script = format!("sleep 2; timeout 0.1 socat -u TCP-LISTEN:{port} OPEN:/dev/null 2>&1");
    let held = || {
        let tried = node.exec(["sh", "-c", &script]);
        tried.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("in use"))
    };
    eventually(SOON, held);
    kill(&node, "holder");
    Echo::over(&connection, "without").unwrap_or_else(|error| panic!("{error}"));
    eventually(SOON * 2, held);
    echo.connect();
}

#[test]
fn a_node_that_lost_its_power_serves_its_pods_again() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "power");
    let node = cluster.node(2);
    let echo = Echo::start(&space, &node);
    let before = told(&echo.pod);
    node.reboot().unwrap_or_else(|error| panic!("{error:#}"));
    // kubelet makes a new sandbox for the same Pod, which keeps its number.
    echo.connect();
    eventually(SOON * 2, || told(&space.wait_for_pod("echo")) == before);
    wait_for_agents(cluster);
}

#[test]
fn the_api_server_may_be_away_while_a_sandbox_is_made() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "away");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let before = told(&echo.pod);
    // The node cannot reach it, and kubelet makes a dead Pod's sandbox anew by what it remembers.
    let rule = "add table inet away; add chain inet away output { type filter hook output priority -300; }; \
                add rule inet away output tcp dport 6443 drop";
    node.run(["nft", rule]).unwrap_or_else(|error| panic!("{error:#}"));
    let undone = Undo(&node);
    let sandbox = sandbox_of(&node, &echo.pod).unwrap_or_else(|| panic!("no sandbox of {}", echo.pod));
    node.run(["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "KILL", "-a", &sandbox])
        .unwrap_or_else(|error| panic!("{error:#}"));
    eventually(SOON, || sandbox_of(&node, &echo.pod).is_some_and(|new| new != sandbox));
    echo.connect();
    drop(undone);
    eventually(SOON * 2, || told(&space.wait_for_pod("echo")) == before);
}

#[test]
fn a_late_del_of_a_stateful_pods_last_sandbox_takes_nothing_from_the_next() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "late");
    let node = cluster.node(1);
    let script = "exec socat TCP-LISTEN:$PORTOLAN_PORT_ECHO,fork,reuseaddr EXEC:cat";
    space.create(&Asking::script("db", "echo", script).on(&node).controlled("StatefulSet", 1));
    let before = space.wait_for_pods("app=db", 1).remove(0);
    let old = sandbox_of(&node, &before).unwrap_or_else(|| panic!("no sandbox of {before}"));
    space.kubectl(&["delete", "pod", "db-0", "--grace-period=1"]);
    let is_new = |pod: &Value| pod["metadata"]["uid"] != before["metadata"]["uid"];
    eventually(SOON * 3, || space.pods("app=db").first().is_some_and(is_new));
    let pod = space.wait_for_pods("app=db", 1).remove(0);
    assert_eq!(told(&pod), told(&before), "it keeps its number");
    let outside = Outside::new(cluster, space.name(), "examples");
    let server = SocketAddr::new(public_address(&pod), *told(&pod)[0].host.start());
    let echo = Echo { outside, server, pod };
    let connection = echo.connect();
    // As kubelet does when it finds a dead sandbox later on; some runtimes say whose it was and some do not.
    let arguments = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME=db-0", space.name());
    for arguments in [arguments.as_str(), ""] {
        let config = r#"{"cniVersion":"1.0.0","name":"containerd-net","type":"portolan"}"#;
        let script = format!(
            "echo '{config}' | CNI_COMMAND=DEL CNI_CONTAINERID={old} CNI_IFNAME=eth0 CNI_NETNS= CNI_PATH=/opt/cni/bin \
             CNI_ARGS='{arguments}' /opt/cni/bin/portolan"
        );
        let said = node.run(["sh", "-c", &script]).unwrap_or_else(|error| panic!("{error:#}"));
        assert_eq!(said.trim(), "");
        Echo::over(&connection, "still there").unwrap_or_else(|error| panic!("{error}"));
        echo.connect();
    }
}

#[test]
fn an_annotation_that_somebody_else_has_written_is_put_right() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "annotation");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let status = || space.get("pod/echo")["metadata"]["annotations"]["portolan.dev/ports-status"].clone();
    let before = status();
    // Antrea's TestInitInvalidAnnotation, for an agent that sees it and for one that starts with it.
    for (foreign, killed) in [
        ("portolan.dev/ports-status=[{\"podPort", false),
        ("portolan.dev/ports-status={}", true),
        ("portolan.dev/ports-status-", false),
    ] {
        if killed {
            kill(&node, "agent");
        }
        space.kubectl(&["annotate", "--overwrite", "pod", "echo", foreign]);
        wait_for_agents(cluster);
        // One that was killed repeatedly is started after more than a minute.
        eventually(SOON * 4, || status() == before);
        echo.connect();
    }
}

/// Lets the node reach the API server again.
struct Undo<'a>(&'a Node<'a>);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let _ = self.0.exec(["nft", "delete table inet away"]);
    }
}

/// The container of a Pod's sandbox, as containerd knows it.
fn sandbox_of(node: &Node<'_>, pod: &Value) -> Option<String> {
    let uid = pod["metadata"]["uid"].as_str()?;
    let filter =
        format!("labels.\"io.kubernetes.pod.uid\"=={uid},labels.\"io.cri-containerd.kind\"==sandbox");
    let said = node.run(["ctr", "-n", "k8s.io", "containers", "ls", "-q", &filter]).ok()?;
    let running = node.run(["ctr", "-n", "k8s.io", "tasks", "ls"]).ok()?;
    let alive = |id: &&str| running.lines().any(|line| line.starts_with(id) && line.contains("RUNNING"));
    said.split_whitespace().find(alive).map(str::to_owned)
}

/// Kills the agent or the holder of a node as by the kernel's out-of-memory killer.
#[track_caller]
fn kill(node: &Node<'_>, verb: &str) {
    let script = format!("pkill -9 -f '^/portolan {verb}'");
    // kubelet waits longer each time before it starts it again.
    eventually(SOON * 3, || node.exec(["sh", "-c", &script]).is_ok_and(|output| output.status.success()));
}

#[track_caller]
fn wait_for_agents(cluster: &Cluster) {
    cluster
        .wait_for_rollout("portolan", "daemonset/portolan-agent", SOON * 3)
        .unwrap_or_else(|error| panic!("{error:#}"));
}
