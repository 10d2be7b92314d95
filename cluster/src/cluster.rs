//! A running cluster: found by its name, asked and driven.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::{
    cgroup::Cgroup,
    command,
    layout::{self, Layout},
    network,
    node::Node,
    options::{Options, Remembered},
    tools::Tools,
};

/// A cluster of network namespaces that is up.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) layout: Layout,
    pub(crate) options: Options,
    pub(crate) port: u16,
    pub(crate) tools: Tools,
}

impl Cluster {
    /// The cluster of this name, if it was started and its API server runs.
    pub fn find(name: &str) -> Option<Self> {
        let layout = Layout::new(name).ok()?;
        let text = std::fs::read_to_string(layout.options()).ok()?;
        let remembered: Remembered = serde_json::from_str(&text).ok()?;
        let cluster =
            Self { layout, options: remembered.options, port: remembered.port, tools: Tools::new().ok()? };
        let running = cluster.cgroup().below("control").processes().ok()?;
        (!running.is_empty()).then_some(cluster)
    }

    /// The names of the clusters that are up, or were not taken down.
    pub fn names() -> Vec<String> {
        let folders = std::fs::read_dir(layout::base()).into_iter().flatten().flatten();
        let folders = folders.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut names: Vec<String> =
            folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// What it was asked to be; nodes that joined since are counted.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All of its files.
    pub fn folder(&self) -> &Path {
        &self.layout.folder
    }

    /// The kubeconfig of an administrator, for programs on this machine.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The kubeconfig of an administrator, for programs in the namespaces of the control plane or the client.
    pub fn inside_kubeconfig(&self) -> PathBuf {
        self.layout.inside_kubeconfig()
    }

    /// Where programs on this machine reach the API.
    pub fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The file of a network namespace: `control`, `client`, `lan` or a node's name.
    pub fn network_namespace(&self, part: &str) -> PathBuf {
        self.layout.network_namespace_file(part)
    }

    /// Runs kubectl as the administrator.
    pub fn kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Output> {
        command::output(&mut self.kubectl_command(arguments)?)
    }

    /// Runs a kubectl that must succeed, and gives what it says.
    pub fn run_kubectl<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<String> {
        command::run(&mut self.kubectl_command(arguments)?)
    }

    /// Applies manifests.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        use std::io::Write as _;
        let mut command =
            self.kubectl_command(&["apply", "--server-side", "--force-conflicts", "-f", "-"])?;
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(manifests.as_bytes()).context("cannot write to kubectl")?;
        }
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        if !output.status.success() {
            bail!("kubectl apply: {}", command::said(&output));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// A kubectl that is the administrator, to be started as one likes.
    pub fn kubectl_command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Command> {
        let mut command = Command::new(self.tools.program("kubectl")?);
        // Discovery is cached in the cluster's folder: it goes with the cluster, and another one must not read it.
        command.env("KUBECACHEDIR", self.layout.folder.join("kubectl-cache"));
        command.env("KUBECONFIG", self.kubeconfig()).args(arguments);
        Ok(command)
    }

    /// How many nodes it has.
    pub fn node_count(&self) -> usize {
        self.options.nodes
    }

    /// The node of this number, which begins at 1.
    pub fn node(&self, number: usize) -> Node<'_> {
        Node::new(self, number)
    }

    /// Its nodes.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> {
        (1..=self.options.nodes).map(|number| self.node(number))
    }

    /// The command that enters the client's network namespace, outside of every node.
    pub fn client(&self) -> Command {
        self.within("client")
    }

    /// Runs a command in the client's network namespace to its end.
    pub fn client_exec<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Output> {
        command::output(self.client().args(words))
    }

    /// The command that enters the control plane's network namespace.
    pub fn control(&self) -> Command {
        self.within("control")
    }

    fn within(&self, part: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network_namespace(part).display()));
        command
    }

    /// Loads an OCI archive into every node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        std::thread::scope(|scope| {
            let all: Vec<_> = self.nodes().map(|node| scope.spawn(move || node.load(archive))).collect();
            all.into_iter()
                .try_for_each(|one| one.join().unwrap_or_else(|_| bail!("a thread that loads panicked")))
        })
    }

    /// Waits until a Deployment, StatefulSet or DaemonSet has rolled out.
    pub fn wait_for_rollout(&self, namespace: &str, what: &str, patience: Duration) -> Result<()> {
        let patience = format!("--timeout={}s", patience.as_secs());
        self.run_kubectl(&["-n", namespace, "rollout", "status", what, &patience]).map(|_| ())
    }

    /// Waits until a node is ready after it was started, and its Pods can be reached.
    pub(crate) fn connect(&self, number: usize) -> Result<()> {
        let node = self.node(number);
        let pods = self.pod_networks(&node.name(), Duration::from_secs(60))?;
        node.configure_network(&pods)?;
        // Both ways: the others' routes to this node, and this node's, which went with its namespace, to the others.
        network::route_pods(&self.layout, "control", number, &pods)?;
        for other in self.nodes().filter(|other| other.number() != number) {
            let Ok(theirs) = self.pod_networks(&other.name(), Duration::ZERO) else { continue };
            if other.network_namespace().exists() {
                network::route_pods(&self.layout, &other.name(), number, &pods)?;
            }
            network::route_pods(&self.layout, &node.name(), other.number(), &theirs)?;
        }
        let ready = format!("node/{}", node.name());
        self.run_kubectl(&["wait", "--for=condition=Ready", "--timeout=120s", &ready])?;
        Ok(())
    }

    /// The networks that the controller manager gave to a node.
    fn pod_networks(&self, node: &str, patience: Duration) -> Result<Vec<String>> {
        let deadline = Instant::now() + patience;
        loop {
            let answer = self.kubectl(&["get", "node", node, "-o", "json", "--request-timeout=5s"])?;
            let found: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
            let networks = found["spec"]["podCIDRs"].as_array().map(Vec::as_slice).unwrap_or_default();
            let networks: Vec<String> =
                networks.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
            if !networks.is_empty() {
                return Ok(networks);
            }
            if Instant::now() >= deadline {
                bail!("{node} has no networks for its Pods: {}", command::said(&answer));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::new(self.layout.cgroup())
    }

    pub(crate) fn remember(&self) -> Result<()> {
        let versions = self.tools.versions();
        let remembered = Remembered { options: self.options.clone(), port: self.port, versions };
        let file = self.layout.options();
        let written = std::fs::write(&file, serde_json::to_string_pretty(&remembered)?);
        written.with_context(|| format!("cannot write {}", file.display()))
    }
}
