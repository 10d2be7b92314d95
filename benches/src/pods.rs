//! What Portolan adds to the start of a Pod, on a real cluster of two nodes.
//!
//! A Pod's start is from the moment in which the API server tells of the new Pod to its container's first command, and
//! to the Pod's being ready. The command writes down when it runs; cluster and bench have one clock.
//! The cluster is one that is up already (`PORTOLAN_TEST_CLUSTER`) or else one of the bench's own. First without
//! Portolan, then with it.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use portolan_cluster::{Cluster, Tools, down, images, test_cluster_name};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    Options,
    stats::{Samples, ratio, show},
    table::Table,
};

/// The cluster, when none is up.
const OWN: &str = "bench";
/// The repository.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SPACE: &str = "portolan-bench";
/// Pods that are started one after the other, each time.
const SINGLE: usize = 6;
/// Pods that are started at once.
const AT_ONCE: usize = 60;
/// How long Pods may take until they are all ready, and until they are gone.
const PATIENCE: Duration = Duration::from_secs(300);
/// Where containerd has a folder for each sandbox, also for those that have ended.
const SANDBOXES: &str = "/run/containerd/io.containerd.grpc.v1.cri/sandboxes";

/// What Pods ask for: what it is called, and the annotation.
const PLAIN: (&str, Option<&str>) = ("without Portolan", None);
const WAYS: [(&str, Option<&str>); 4] = [
    ("with Portolan, asks for nothing", None),
    ("with Portolan, one port", Some("web")),
    ("with Portolan, 20 ports", Some("web, media/udp:16, a, b, c")),
    ("with Portolan, a block of 1,000", Some("media/udp:1000")),
];

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let name = test_cluster_name();
    let cluster = match Cluster::find(&name) {
        Some(cluster) => measure_on(&cluster, options),
        None => {
            down(OWN, &|_| {})?;
            let two = portolan_cluster::Options { nodes: 2, ..portolan_cluster::Options::default() };
            let measured =
                Cluster::up(OWN, two, &|text| eprintln!("[{text}]")).and_then(|up| measure_on(&up, options));
            down(OWN, &|_| {})?;
            measured
        }
    };
    cluster.with_context(|| format!("a cluster of two nodes is needed: docs/cluster.md ({name})"))
}

fn measure_on(cluster: &Cluster, options: Options) -> Result<String> {
    let rounds = if options.quick { 1 } else { 3 };
    let bench = Bench::new(cluster)?;
    let mut single: Vec<(&str, Started)> = vec![(PLAIN.0, Started::default())];
    let mut many: Vec<(&str, Started)> = vec![(PLAIN.0, Started::default())];
    // Once for nothing: programs and images are in memory then.
    bench.start(PLAIN, 2, &mut Started::default())?;
    for _ in 0..rounds {
        bench.one_by_one(PLAIN, &mut single[0].1)?;
        bench.at_once(PLAIN, &mut many[0].1)?;
    }
    install(cluster)?;
    for way in WAYS {
        bench.start(way, 1, &mut Started::default())?;
        single.push((way.0, Started::default()));
    }
    for way in &WAYS[..2] {
        many.push((way.0, Started::default()));
    }
    for _ in 0..rounds {
        for (way, (_, started)) in WAYS.into_iter().zip(&mut single[1..]) {
            bench.one_by_one(way, started)?;
        }
        for (way, (_, started)) in WAYS.into_iter().zip(&mut many[1..]) {
            bench.at_once(way, started)?;
        }
    }
    Ok(format!(
        "## The start of a Pod\n\n\
         On a cluster of two nodes (docs/cluster.md), from the API server's news of the Pod to its container's first\n\
         command, and to the Pod's being ready, which kubelet finds out once a second. Without Portolan the cluster has\n\
         portmap, as most have. One after the other:\n\n{}\n\
         {AT_ONCE} Pods at once, from the first to the last of them, when kubelet has removed what was left of those before;\n\
         on two cores, which is what it takes:\n\n{}",
        table(&single, |started| [&started.first_command, &started.ready]),
        table(&many, |started| [&started.all_run, &started.all_ready]),
    ))
}

fn table(ways: &[(&str, Started)], samples: impl Fn(&Started) -> [&Samples; 2]) -> String {
    let mut table = Table::new(&["", "runs", "longest", "against without", "ready", "samples"]);
    let [plain, _] = samples(&ways[0].1);
    for (name, started) in ways {
        let [run, ready] = samples(started);
        table.row([
            (*name).to_owned(),
            run.median_and_spread(),
            run.longest(),
            ratio(plain, run),
            ready.median_and_spread(),
            run.count().to_string(),
        ]);
    }
    table.markdown()
}

/// Portolan as it is in this tree; or the static program that `PORTOLAN_BIN` names.
fn install(cluster: &Cluster) -> Result<()> {
    match std::env::var_os("PORTOLAN_BIN") {
        Some(program) => install_program(cluster, Path::new(&program))?,
        None => run(Path::new(ROOT).join("scripts/install-on-cluster"), cluster, &[])?,
    }
    cluster.run_kubectl(&["label", "--overwrite", "namespace", SPACE, "portolan.dev/ports=allowed"])?;
    Ok(())
}

fn install_program(cluster: &Cluster, program: &Path) -> Result<()> {
    let folder = TempDir::with_prefix("portolan-bench-").context("making a folder")?;
    let archive = folder.path().join("portolan.tar");
    images::portolan(program, env!("CARGO_PKG_VERSION"))?.write(&archive)?;
    cluster.load(&archive)?;
    let chart = format!("{ROOT}/deploy/helm/portolan");
    let words = ["upgrade", "--install", "portolan", &chart, "--namespace", "portolan", "--create-namespace"];
    let words = [&words[..], &["--wait", "--timeout", "5m"]].concat();
    run(Tools::new()?.program("helm")?.into(), cluster, &words)
}

fn run(program: PathBuf, cluster: &Cluster, words: &[&str]) -> Result<()> {
    let status = Command::new(&program)
        .args(words)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("PORTOLAN_CLUSTER", cluster.name())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    if !status.success() {
        bail!("{} ended with {status}", program.display());
    }
    Ok(())
}

/// How long Pods took.
#[derive(Clone, Debug, Default)]
struct Started {
    first_command: Samples,
    ready: Samples,
    all_run: Samples,
    all_ready: Samples,
}

/// A namespace to start Pods in, and the API server's news of it.
struct Bench<'a> {
    cluster: &'a Cluster,
    watch: Child,
    news: Receiver<(Duration, Value)>,
    /// Where the containers write down when they run.
    folder: PathBuf,
}

/// What is known of one Pod.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    added: Option<Duration>,
    ready: Option<Duration>,
    gone: bool,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a Cluster) -> Result<Self> {
        cluster.run_kubectl(&["create", "namespace", SPACE])?;
        cluster.run_kubectl(&[
            "-n",
            SPACE,
            "wait",
            "--for=create",
            "--timeout=60s",
            "serviceaccount/default",
        ])?;
        let path = format!("/api/v1/namespaces/{SPACE}/pods?watch=true");
        let mut command = cluster.kubectl_command(&["get", "--raw", &path])?;
        let mut watch = command.stdout(Stdio::piped()).spawn().context("cannot start kubectl")?;
        let lines = BufReader::new(watch.stdout.take().context("stdout is piped")?).lines();
        let (sender, news) = mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let now = now();
                if let Ok(event) = serde_json::from_str(&line)
                    && sender.send((now, event)).is_err()
                {
                    return;
                }
            }
        });
        Ok(Self { cluster, watch, news, folder: PathBuf::from("/tmp/portolan-bench") })
    }

    /// Some Pods, each when the last one is gone.
    fn one_by_one(&self, way: (&str, Option<&str>), started: &mut Started) -> Result<()> {
        started.first_command.begin_round();
        started.ready.begin_round();
        (0..SINGLE).try_for_each(|_| self.start(way, 1, started))
    }

    /// Pods at once, as a round of its own.
    fn at_once(&self, way: (&str, Option<&str>), started: &mut Started) -> Result<()> {
        self.wait_for_quiet()?;
        for samples in [&mut started.all_run, &mut started.all_ready] {
            samples.begin_round();
        }
        self.start(way, AT_ONCE, started)
    }

    /// Starts Pods, waits until they are ready, and until they are gone.
    fn start(&self, way: (&str, Option<&str>), count: usize, started: &mut Started) -> Result<()> {
        let names: Vec<String> = (0..count).map(|index| format!("pod-{index}")).collect();
        let pods: Vec<Value> = names.iter().map(|name| self.pod(name, way.1)).collect();
        self.cluster.apply(&json!({"apiVersion": "v1", "kind": "List", "items": pods}).to_string())?;
        let mut times: BTreeMap<String, Times> =
            names.iter().map(|name| (name.clone(), Times::default())).collect();
        let what = format!("{count} Pods {}", way.0);
        self.follow(&mut times, &format!("{what} are ready"), |one| one.ready.is_some())?;
        let mut ran = Vec::new();
        for name in &names {
            ran.push(self.ran(name)?);
        }
        let added = |name| times.get(name).and_then(|one| one.added).unwrap_or_default();
        let first = names.iter().map(added).min().unwrap_or_default();
        for (name, ran) in names.iter().zip(&ran) {
            started.first_command.add(ran.saturating_sub(added(name)));
            let ready = times.get(name).and_then(|one| one.ready).unwrap_or_default();
            started.ready.add(ready.saturating_sub(added(name)));
        }
        let last = ran.iter().max().copied().unwrap_or_default().saturating_sub(first);
        started.all_run.add(last);
        let ready = times.values().filter_map(|one| one.ready).max().unwrap_or_default();
        started.all_ready.add(ready.saturating_sub(first));
        eprintln!("[{what}: run after {}]", show(last));
        self.cluster.run_kubectl(&["-n", SPACE, "delete", "pods", "--all", "--wait=false"])?;
        self.follow(&mut times, &format!("{what} are gone"), |one| one.gone)?;
        self.cluster
            .nodes()
            .try_for_each(|node| node.run(["rm", "-rf", &self.folder.display().to_string()]).map(drop))
    }

    /// Waits until no sandbox is left of Pods that are gone. kubelet removes them once a minute, 60 of them with as many
    /// calls of every CNI plugin: whoever starts Pods in that moment would pay for those before.
    fn wait_for_quiet(&self) -> Result<()> {
        let deadline = now() + PATIENCE;
        let pods = ["get", "pods", "--all-namespaces", "--output", "name"];
        let living = self.cluster.run_kubectl(&pods)?.lines().count();
        loop {
            let mut all = 0;
            for node in self.cluster.nodes() {
                all += node.run(["ls", SANDBOXES])?.lines().count();
            }
            if all <= living {
                return Ok(());
            }
            if now() > deadline {
                bail!("{all} sandboxes for {living} Pods: kubelet does not remove those that have ended");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Reads news until all are so.
    fn follow(
        &self,
        times: &mut BTreeMap<String, Times>,
        what: &str,
        done: impl Fn(&Times) -> bool,
    ) -> Result<()> {
        let deadline = now() + PATIENCE;
        while !times.values().all(&done) {
            let left = deadline.saturating_sub(now());
            let Ok((at, event)) = self.news.recv_timeout(left) else {
                let pods = self.cluster.run_kubectl(&["-n", SPACE, "get", "pods", "-o", "wide"])?;
                bail!("waited {} s until {what}:\n{pods}", PATIENCE.as_secs());
            };
            let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
            let Some(one) = times.get_mut(name) else { continue };
            match event["type"].as_str() {
                Some("ADDED") => *one = Times { added: Some(at), ..Times::default() },
                Some("DELETED") => one.gone = true,
                _ => {}
            }
            let conditions = event["object"]["status"]["conditions"].as_array();
            let ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            if one.ready.is_none() && conditions.is_some_and(|all| all.iter().any(ready)) {
                one.ready = Some(at);
            }
        }
        Ok(())
    }

    /// When the container's command ran.
    fn ran(&self, name: &str) -> Result<Duration> {
        let file = self.folder.join(name).display().to_string();
        let said = self.cluster.nodes().find_map(|node| node.run(["cat", &file]).ok());
        let said = said.with_context(|| format!("{name} wrote no {file} on any node"))?;
        Ok(Duration::from_nanos(said.trim().parse().with_context(|| format!("{file}: {said:?}"))?))
    }

    fn pod(&self, name: &str, ask: Option<&str>) -> Value {
        let script = format!("date +%s%N > /bench/{name}; exec sleep 100000");
        let annotations = ask.map(|ask| json!({"portolan.dev/ports": ask}));
        json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "annotations": annotations.unwrap_or(json!({}))},
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main", "image": "debian-tools:1", "command": ["/bin/sh", "-c", script],
                "volumeMounts": [{"name": "bench", "mountPath": "/bench"}],
            }],
            "volumes": [{"name": "bench", "hostPath": {"path": self.folder, "type": "DirectoryOrCreate"}}],
        }})
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        let _ = self.cluster.run_kubectl(&["delete", "namespace", SPACE, "--wait=false"]);
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
