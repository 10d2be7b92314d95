//! What breaks on real nodes, and that Pods keep their ports. These tests break nodes, so they run one after the other.

use std::{
    collections::BTreeMap,
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

    /// That a new connection works so soon.
    #[track_caller]
    fn is_back_within(&self, patience: Duration) {
        let connected = eventually_ok(patience, || {
            let open = || TcpStream::connect_timeout(&self.server, Duration::from_millis(200));
            let stream = self.outside.namespace().run(open).map_err(|error| error.to_string())?;
            echoes(&stream, "back")
        });
        assert!(connected.is_ok(), "{} within {patience:?}: {connected:?}", self.server);
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
fn a_firewall_that_is_reloaded_takes_no_port_away_and_finds_its_tables_as_it_left_them() {
    need_root!();
    let (cluster, _alone) = (need_cluster!(), alone());
    installed(cluster);
    let space = Space::new(cluster, "firewall");
    let node = cluster.node(1);
    let echo = Echo::start(&space, &node);
    let connection = echo.connect();
    let nft = |words: &[&str]| {
        let all: Vec<&str> = ["nft"].into_iter().chain(words.iter().copied()).collect();
        node.run(&all).unwrap_or_else(|error| panic!("{error:#}"))
    };
    // As firewalld's: chains of every hook, a set, and a policy; and what iptables-nft writes, which has no atomic reload.
    let _removed = Removed(&node);
    nft(&[FIREWALL]);
    let iptables = |words: &str| {
        let all: Vec<&str> =
            ["iptables-nft", "-w", "-t", "mangle"].into_iter().chain(words.split(' ')).collect();
        node.run(&all).unwrap_or_else(|error| panic!("{error:#}"))
    };
    iptables("-A PREROUTING -p tcp --dport 9 -j ACCEPT");
    let file = "/tmp/firewall.nft";
    let tables = || nft(&["list", "tables"]).lines().map(str::to_owned).collect::<Vec<_>>();
    let foreign = |flags: &[&str]| -> BTreeMap<String, String> {
        let of_others =
            tables().into_iter().filter_map(|line| line.strip_prefix("table ").map(str::to_owned));
        let show = |table: String| {
            let words: Vec<&str> = table.split(' ').collect();
            let text = nft(&[flags, &["list", "table"], &words].concat());
            (table, text)
        };
        of_others.filter(|table| !table.contains("portolan")).map(show).collect()
    };
    // kube-proxy writes its own all the time; nft shows rules of iptables with blanks of its own.
    let known = || -> BTreeMap<String, Vec<String>> {
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect();
        let all = foreign(&["-s"]).into_iter().filter(|(table, _)| !table.contains("kube-proxy"));
        all.map(|(table, text)| (table, words(text))).collect()
    };
    for round in 0..3 {
        let before = known();
        assert!(before.contains_key("inet firewall") && before.contains_key("ip mangle"), "{before:?}");
        let ruleset = node.root().join(file.trim_start_matches('/'));
        std::fs::write(
            &ruleset,
            format!("flush ruleset\n{}", foreign(&[]).into_values().collect::<String>()),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        match round {
            // In one transaction, as the service nftables does; in two, as firewalld did before 2.0.
            0 => drop(nft(&["-f", file])),
            1 => {
                nft(&["flush", "ruleset"]);
                nft(&["-f", file]);
            }
            // And one that knows each of its tables.
            _ => {
                nft(&["delete", "table", "inet", "firewall"]);
                nft(&[FIREWALL]);
                iptables("-F PREROUTING");
                iptables("-A PREROUTING -p tcp --dport 9 -j ACCEPT");
            }
        }
        echo.is_back_within(Duration::from_secs(1));
        echoes(&connection, "still").unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert_eq!(known(), before, "round {round}");
    }
}

/// Takes the firewall away again.
struct Removed<'a>(&'a Node<'a>);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = self.0.exec(["nft", "delete table inet firewall"]);
        let _ = self.0.exec(["iptables-nft", "-w", "-t", "mangle", "-F", "PREROUTING"]);
    }
}

/// A table that lets everything through and is none of ours.
const FIREWALL: &str = "table inet firewall { \
    set trusted { type ipv4_addr; elements = { 192.0.2.77, 192.0.2.78 }; }; \
    chain prerouting { type nat hook prerouting priority dstnat + 10; policy accept; ip saddr 192.0.2.99 tcp dport 7 redirect to :9; }; \
    chain input { type filter hook input priority filter + 10; policy accept; ip saddr @trusted accept; tcp dport 9 reject; }; \
    chain forward { type filter hook forward priority filter + 10; policy accept; ct state invalid drop; }; \
    chain postrouting { type nat hook postrouting priority srcnat + 10; policy accept; }; }";

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
        echoes(&connection, "still there").unwrap_or_else(|error| panic!("{error}"));
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
        eventually(SOON, || status() == before);
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
