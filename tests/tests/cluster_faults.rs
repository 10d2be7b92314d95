//! What breaks on real nodes, and that Pods keep their ports. These tests break nodes, so they run one after the other.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use portolan_cluster::{Cluster, Node, need_cluster};
use portolan_testkit::{ask, eventually, eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Outside, Space, installed, public_address, told};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(30);

/// One at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A Pod on a node that echoes lines, and a client outside.
struct Echo {
    outside: Outside,
    server: SocketAddr,
    pod: Value,
}

impl Echo {
    #[track_caller]
    fn start(space: &Space, node: &Node<'_>) -> Self {
        let script = "exec socat TCP-LISTEN:$PORTOLAN_PORT_ECHO,fork,reuseaddr EXEC:cat";
        let pod = Asking::script("echo", "echo", script).on(node).start(space);
        let outside = Outside::new(space.cluster(), space.name(), "examples");
        let server = SocketAddr::new(public_address(&pod), *told(&pod)[0].host.start());
        let echo = Self { outside, server, pod };
        echo.connect();
        echo
    }

    /// A connection that works.
    #[track_caller]
    fn connect(&self) -> TcpStream {
        let connected = eventually_ok(SOON, || {
            let open = || TcpStream::connect_timeout(&self.server, Duration::from_secs(2));
            let stream = self.outside.namespace().run(open).map_err(|error| error.to_string())?;
            echoes(&stream, "hello").map(|()| stream)
        });
        connected.unwrap_or_else(|error| panic!("{}: {error}", self.server))
    }

    /// That nobody answers, or somebody else.
    fn is_away(&self) -> bool {
        let open = || TcpStream::connect_timeout(&self.server, Duration::from_secs(1));
        !self.outside.namespace().run(open).is_ok_and(|stream| echoes(&stream, "hello").is_ok())
    }
}

fn echoes(mut stream: &TcpStream, word: &str) -> Result<(), String> {
    stream.write_all(format!("{word}\n").as_bytes()).map_err(|error| error.to_string())?;
    match ask::first_line(stream, Duration::from_secs(3)) {
        Ok(line) if line == word => Ok(()),
        other => Err(format!("{other:?}")),
    }
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
        echoes(&connection, "without").unwrap_or_else(|error| panic!("{error}"));
        echo.connect();
        wait_for_agents(cluster);
        echoes(&connection, "with a new one").unwrap_or_else(|error| panic!("{error}"));
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
    echoes(&connection, "without").unwrap_or_else(|error| panic!("{error}"));
    eventually(SOON * 2, held);
    echo.connect();
}

#[test]
fn rules_that_somebody_flushes_come_back() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "flushed");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    // Of the node, which has a network namespace of its own: as a firewall that is loaded anew.
    let tables = node.run(["nft", "list", "tables"]).unwrap_or_default();
    assert!(tables.contains("portolan"), "{tables}");
    for table in tables.lines().filter(|table| table.contains("portolan")) {
        let words: Vec<&str> = ["nft", "delete"].into_iter().chain(table.split_whitespace()).collect();
        node.run(&words).unwrap_or_else(|error| panic!("{error:#}"));
    }
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
