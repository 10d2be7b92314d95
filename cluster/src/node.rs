//! A node: containerd, kubelet and kube-proxy in namespaces and on a root of their own.
//!
//! The root is made by `cluster/src/node/node.sh`: programs are the machine's, read-only; `/etc`, `/var`, `/opt`, `/run` and
//! `/tmp` are the node's own, with the paths that a real node has. So a Pod that mounts `/opt/cni/bin`, `/run/netns`
//! or `/var/run/nri` of its host gets those of its node, and kubelet sees only the processes of its node.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cgroup::{self, Cgroup},
    cluster::Cluster,
    command,
    layout::{node_addresses, node_name},
    network,
    spawn::{Daemon, tail},
};

mod files;

/// Programs that are put into `/opt/bin` of each node.
const PROGRAMS: [&str; 7] =
    ["pause", "containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy", "kubectl"];
/// Shows kubelet its tunables in a mount namespace of its own; what it mounts elsewhere is still the node's.
const KUBELET: &str = "mount --make-rprivate /proc && cd /etc/kubernetes/tunables && \
    for file in $(find . -type f); do mount --bind $file /proc/sys/$file; done; cd / && exec \"$@\"";

/// One node of a running cluster.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    number: usize,
}

impl<'a> Node<'a> {
    pub(crate) fn new(cluster: &'a Cluster, number: usize) -> Self {
        Self { cluster, number }
    }

    /// Its name in Kubernetes, and its hostname.
    pub fn name(&self) -> String {
        node_name(self.number)
    }

    /// Its number, which begins at 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Its address that other nodes and the client reach.
    pub fn address(&self) -> std::net::Ipv4Addr {
        node_addresses(self.number).0
    }

    /// Its address that other nodes and the client reach.
    pub fn address_v6(&self) -> std::net::Ipv6Addr {
        node_addresses(self.number).1
    }

    /// Where the node's root is for the machine; `/etc`, `/run` and what Pods mount can only be seen by [`Self::exec`].
    pub fn root(&self) -> PathBuf {
        self.folder().join("root")
    }

    /// The file of its network namespace.
    pub fn network_namespace(&self) -> PathBuf {
        self.cluster.layout.network_namespace_file(&self.name())
    }

    /// The process that is the first in all of its namespaces, as the machine sees it.
    pub fn first_process(&self) -> Result<i32> {
        let found = self.daemon_cgroup("init").processes_of("pause")?;
        found.first().copied().with_context(|| format!("{} is not up", self.name()))
    }

    /// The command that enters all of its namespaces; what is appended to it runs on the node.
    pub fn nsenter(&self) -> Result<Command> {
        let words = self.enter()?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.env("PATH", "/opt/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin");
        Ok(command)
    }

    /// Runs a command on the node to its end.
    pub fn exec<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<Output> {
        command::output(self.nsenter()?.args(words))
    }

    /// Runs a command on the node that must succeed, and gives what it says.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Result<String> {
        command::run(self.nsenter()?.args(words))
    }

    /// Kills everything on the node, forgets its network and what was in `/run`, and starts it again; `/etc`, `/var`
    /// and `/opt` stay, as on a machine that lost its power.
    pub fn reboot(&self) -> Result<()> {
        self.power_off()?;
        self.start_runtime()?;
        self.start_agents()?;
        self.cluster.connect(self.number)
    }

    /// Kills everything on the node and takes its network away.
    pub fn power_off(&self) -> Result<()> {
        let cgroup = self.cgroup();
        cgroup.kill()?;
        cgroup.remove()?;
        network::remove_namespace(&self.cluster.layout.network_namespace(&self.name()))
    }

    /// Kills containerd; containers and their shims stay.
    pub fn kill_containerd(&self) -> Result<()> {
        self.kill_program("containerd", "containerd")
    }

    /// Starts containerd and waits until it answers.
    pub fn start_containerd(&self) -> Result<()> {
        let words = ["containerd", "--config", "/etc/containerd/config.toml"];
        self.daemon("containerd", &words)?.start()?;
        let started = Instant::now();
        while !self.exec(["ctr", "--connect-timeout", "1s", "version"])?.status.success() {
            let log = self.log("containerd");
            // On a busy machine it takes a while until `setsid` and `env` have become containerd.
            let ended = started.elapsed() > Duration::from_secs(5)
                && self.daemon_cgroup("containerd").processes_of("containerd")?.is_empty();
            if ended || started.elapsed() > Duration::from_secs(60) {
                bail!("containerd of {} does not answer:\n{}", self.name(), tail(&log, 8));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Kills kubelet; Pods stay.
    pub fn kill_kubelet(&self) -> Result<()> {
        self.kill_program("kubelet", "kubelet")
    }

    /// Starts kubelet.
    pub fn start_kubelet(&self) -> Result<()> {
        let mut labels = vec!["portolan.dev/test-cluster=true".to_owned()];
        if self.cluster.options.zones {
            let zone = ["a", "b", "c"][(self.number - 1) % 3];
            labels.push(format!("topology.kubernetes.io/zone=zone-{zone}"));
            labels.push("topology.kubernetes.io/region=region-1".to_owned());
        }
        let (v4, v6) = node_addresses(self.number);
        let (labels, addresses) =
            (format!("--node-labels={}", labels.join(",")), format!("--node-ip={v4},{v6}"));
        self.daemon(
            "kubelet",
            &[
                "unshare",
                "--mount",
                "--propagation=unchanged",
                "sh",
                "-c",
                KUBELET,
                "kubelet",
                "kubelet",
                "--config=/etc/kubernetes/kubelet.yaml",
                "--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
                &labels,
                &addresses,
            ],
        )?
        .start()
    }

    /// Copies a program of the machine into `/opt/bin` of the node.
    pub fn install(&self, program: &Path) -> Result<()> {
        let name = program.file_name().with_context(|| format!("{} is no program", program.display()))?;
        let target = self.root().join("opt/bin").join(name);
        // A running program cannot be written to; it can be replaced.
        let new = target.with_extension("new");
        fs::copy(program, &new).with_context(|| format!("cannot copy {}", program.display()))?;
        fs::rename(&new, &target).with_context(|| format!("cannot write {}", target.display()))
    }

    /// Starts a program on the node that goes on, with a log of its name; it ends with the node, or by [`Self::stop`].
    pub fn start<S: AsRef<str>>(&self, name: &str, words: &[S]) -> Result<()> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        self.daemon(name, &words)?.start()
    }

    /// Kills what [`Self::start`] has started under this name.
    pub fn stop(&self, name: &str) -> Result<()> {
        self.daemon_cgroup(name).kill()
    }

    /// Loads an OCI archive from a file of the machine.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let file = fs::File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        let mut command = self.nsenter()?;
        command.args(["ctr", "--namespace", "k8s.io", "images", "import", "--local"]);
        // The archive is in the cache: a second copy of each layer on each node would only fill the disk.
        command.args(["--discard-unpacked-layers", "-"]).stdin(file);
        let output = command.output().context("cannot start ctr")?;
        if !output.status.success() {
            bail!("{} does not take {}: {}", self.name(), archive.display(), command::said(&output));
        }
        Ok(())
    }

    /// Makes the node's network, root and first process, and starts containerd.
    pub(crate) fn start_runtime(&self) -> Result<()> {
        network::make_node(&self.cluster.layout, self.number)?;
        self.write_files()?;
        // kubelet wants the root of its cgroups to be there.
        self.cgroup().make()?;
        let script = self.folder().join("node.sh");
        fs::write(&script, include_str!("node/node.sh"))
            .with_context(|| format!("cannot write {}", script.display()))?;
        let net = format!("--net={}", self.network_namespace().display());
        // `unshare` stays and waits for the node's first process.
        let mut words: Vec<String> =
            ["nsenter", &net, "unshare", "--mount", "--uts", "--ipc", "--pid", "--fork"]
                .map(str::to_owned)
                .to_vec();
        words.extend(["--propagation=private", "sh"].map(str::to_owned));
        words.extend([script, self.folder()].map(|path| path.display().to_string()));
        words.push(self.name());
        for program in PROGRAMS {
            words.push(self.cluster.tools.program(program)?);
        }
        let (cgroup, log) = (self.daemon_cgroup("init"), self.log("init"));
        let environment = Vec::new();
        Daemon { cgroup: cgroup.clone(), enter: Vec::new(), words, environment, log }.start()?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while cgroup.processes_of("pause")?.is_empty() {
            if Instant::now() > deadline || cgroup.processes()?.is_empty() {
                bail!("the root of {} cannot be made:\n{}", self.name(), tail(&self.log("init"), 8));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.start_containerd()
    }

    /// Starts what needs the API server: kubelet and kube-proxy.
    pub(crate) fn start_agents(&self) -> Result<()> {
        self.start_kubelet()?;
        if self.cluster.options.proxy.is_some() {
            self.daemon("kube-proxy", &["kube-proxy", "--config=/etc/kubernetes/kube-proxy.yaml"])?
                .start()?;
        }
        Ok(())
    }

    fn kill_program(&self, daemon: &str, program: &str) -> Result<()> {
        let cgroup = self.daemon_cgroup(daemon);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let running = cgroup.processes_of(program)?;
            if running.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{program} of {} does not end", self.name());
            }
            running.into_iter().for_each(cgroup::kill);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn daemon(&self, name: &str, words: &[&str]) -> Result<Daemon> {
        Ok(Daemon {
            cgroup: self.daemon_cgroup(name),
            enter: self.enter()?,
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: vec![("GOGC", "75".to_owned())],
            log: self.log(name),
        })
    }

    fn enter(&self) -> Result<Vec<String>> {
        let target = format!("--target={}", self.first_process()?);
        Ok(["nsenter", &target, "--mount", "--uts", "--ipc", "--net", "--pid", "--"]
            .map(str::to_owned)
            .to_vec())
    }

    fn cgroup(&self) -> Cgroup {
        self.cluster.cgroup().below(&self.name())
    }

    fn daemon_cgroup(&self, daemon: &str) -> Cgroup {
        self.cgroup().below("daemons").below(daemon)
    }

    fn folder(&self) -> PathBuf {
        self.cluster.layout.node_folder(self.number)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.cluster.layout.log(&format!("{}-{program}", self.name()))
    }
}
