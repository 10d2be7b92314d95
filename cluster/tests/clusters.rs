//! What a cluster promises, on clusters of their own. The programs are built when `PORTOLAN_NO_SKIP` is set; without it
//! these tests are skipped where nobody has built them.

use std::{path::Path, process::Command, time::Duration};

use portolan_cluster::{Cluster, Options, Tools, down, remains};
use portolan_testkit::{eventually, need_root, programs};

/// Long enough for a machine that runs every other test at the same time.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns from the test where there are no programs to start.
macro_rules! need_programs {
    () => {
        let built = Tools::new().is_ok_and(|tools| tools.has("kube-apiserver") && tools.has("coredns"));
        if !built && std::env::var_os("PORTOLAN_NO_SKIP").is_none() {
            portolan_testkit::skip("the programs are not built: cargo xtask cluster build");
            return;
        }
    };
}

/// A cluster that is gone at the end of the test, however that comes.
struct Ours(String);

impl Ours {
    fn new(test: &str) -> Self {
        Self(format!("{test}-{}", std::process::id()))
    }

    fn up(&self, options: Options) -> anyhow::Result<Cluster> {
        Cluster::up(&self.0, options, &|_| {})
    }

    /// What others than we see of it on this machine.
    fn seen(&self) -> Vec<String> {
        let mut seen = Vec::new();
        let namespaces = programs::run(&mut programs::command("ip", ["netns", "list"]));
        seen.extend(namespaces.lines().filter(|line| line.contains(&self.0)).map(str::to_owned));
        let mounts = programs::run(Command::new("cat").arg("/proc/self/mountinfo"));
        seen.extend(mounts.lines().filter(|line| line.contains(&self.0)).map(str::to_owned));
        let find = ["/sys/fs/cgroup", "-maxdepth", "2", "-name"];
        let cgroups = programs::run(Command::new("find").args(find).arg(format!("*{}*", self.0)));
        seen.extend(cgroups.lines().map(str::to_owned));
        let processes = programs::run(&mut programs::command("ps", ["-eo", "pid,args"]));
        let others = processes.lines().filter(|line| line.contains(&self.0) && !line.contains("ps -eo"));
        seen.extend(others.map(str::to_owned));
        seen
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let gone = down(&self.0, &|_| {});
        // A second panic would hide the first.
        assert!(std::thread::panicking() || gone.is_ok(), "{gone:?}");
    }
}

fn light() -> Options {
    Options { nodes: 0, ..Options::default() }
}

const POD: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: sleeper}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: sleeper, image: "debian-tools:1", command: [sleep, "86400"]}
"#;

fn restarts(cluster: &Cluster) -> Option<u32> {
    let path = "jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}";
    let said = cluster.run_kubectl(&["get", "pod", "sleeper", "-o", path]).unwrap_or_default();
    said.strip_suffix(" true")?.parse().ok()
}

#[test]
fn a_node_is_a_machine_of_its_own_and_nothing_of_it_is_left_behind() {
    need_root!();
    need_programs!();
    let ours = Ours::new("node");
    let cluster = ours.up(Options::default()).unwrap();
    cluster.apply(POD).unwrap();
    eventually(PATIENCE, || restarts(&cluster) == Some(0));
    let node = cluster.node(1);

    // Its files are its own, where a real node has them.
    assert_eq!(node.run(["hostname"]).unwrap().trim(), "node1");
    node.run(["touch", "/run/portolan-marker", "/etc/portolan-marker", "/opt/cni/bin/portolan-marker"])
        .unwrap();
    for file in ["/run/portolan-marker", "/etc/portolan-marker", "/opt/cni/bin/portolan-marker"] {
        assert!(!Path::new(file).exists(), "{file} is on the machine");
    }
    assert!(!node.exec(["touch", "/usr/portolan-marker"]).unwrap().status.success());
    for socket in ["/run/containerd/containerd.sock", "/var/run/nri/nri.sock"] {
        node.run(["test", "-S", socket]).unwrap();
    }

    // containerd dies and the Pod does not.
    node.kill_containerd().unwrap();
    assert!(!node.exec(["ctr", "--connect-timeout", "1s", "version"]).unwrap().status.success());
    node.start_containerd().unwrap();
    eventually(PATIENCE, || restarts(&cluster) == Some(0));

    // The API is away for a while.
    cluster.stop_apiserver().unwrap();
    assert!(!cluster.kubectl(&["get", "--raw", "/readyz"]).unwrap().status.success());
    cluster.start_apiserver().unwrap();
    cluster.run_kubectl(&["get", "--raw", "/readyz"]).unwrap();

    // The node loses its power: what it had in memory is gone, what it had on disk is there, and its Pods come back.
    node.run(["nft", "add", "table", "inet", "portolan_marker"]).unwrap();
    node.reboot().unwrap();
    assert!(!node.exec(["nft", "list", "table", "inet", "portolan_marker"]).unwrap().status.success());
    node.run(["test", "-e", "/etc/portolan-marker", "-a", "!", "-e", "/run/portolan-marker"]).unwrap();
    eventually(PATIENCE, || restarts(&cluster) == Some(1));

    assert!(ours.seen().len() > 5);
    down(&ours.0, &|_| {}).unwrap();
    assert_eq!(ours.seen(), [""; 0]);
    assert_eq!(remains(&ours.0).unwrap(), [""; 0]);
}

#[test]
fn a_start_that_failed_is_taken_down_too() {
    need_root!();
    need_programs!();
    let ours = Ours::new("failed");
    let error = ours.up(Options { hook: Some("exit 7".to_owned()), ..light() }).unwrap_err();
    assert!(error.to_string().contains('7'), "{error:#}");
    // And half of it is gone already.
    programs::run(&mut programs::command("ip", ["netns", "del", &format!("cluster-{}-client", ours.0)]));
    std::fs::remove_file(Cluster::find(&ours.0).unwrap().folder().join("cluster.json")).unwrap();
    assert!(Cluster::find(&ours.0).is_none());
    assert!(!remains(&ours.0).unwrap().is_empty());
    down(&ours.0, &|_| {}).unwrap();
    assert_eq!(ours.seen(), [""; 0]);
    assert_eq!(remains(&ours.0).unwrap(), [""; 0]);
    // Once more does no harm.
    down(&ours.0, &|_| {}).unwrap();
}

#[test]
fn clusters_live_side_by_side() {
    need_root!();
    need_programs!();
    let (one, other) = (Ours::new("one"), Ours::new("one-2"));
    let first = one.up(light()).unwrap();
    let second = other.up(light()).unwrap();
    assert!(Cluster::up(&one.0, light(), &|_| {}).is_err(), "it is up already");
    first.run_kubectl(&["create", "configmap", "here"]).unwrap();
    assert!(!second.kubectl(&["get", "configmap", "here"]).unwrap().status.success());
    down(&one.0, &|_| {}).unwrap();
    assert!(Cluster::find(&one.0).is_none());
    Cluster::find(&other.0).unwrap().run_kubectl(&["get", "--raw", "/readyz"]).unwrap();
}
