//! A node: containerd, kubelet and kube-proxy in namespaces and on a root of their own.
//!
//! The root is made by `cluster/src/node.sh`: programs are the machine's, read-only; `/etc`, `/var`, `/opt`, `/run` and
//! `/tmp` are the node's own, with the paths that a real node has. So a Pod that mounts `/opt/cni/bin`, `/run/netns`
//! or `/var/run/nri` of its host gets those of its node, and kubelet sees only the processes of its node.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::{
    cgroup::{self, Cgroup},
    cluster::Cluster,
    command,
    layout::{DNS_V4, POD_NETWORKS, node_addresses, node_name},
    network, secrets,
    spawn::{Daemon, tail},
};

/// Programs that are put into `/opt/bin` of each node.
const PROGRAMS: [&str; 7] =
    ["pause", "containerd", "containerd-shim-runc-v2", "ctr", "kubelet", "kube-proxy", "kubectl"];
/// CNI plugins that are copied into `/opt/cni/bin` of each node.
const PLUGINS: [&str; 5] = ["bridge", "ptp", "loopback", "host-local", "portmap"];

/// kubelet sets these for the whole machine unless they are as it wants them: it is shown them so.
/// (`setupKernelTunables` in pkg/kubelet/cm/container_manager_linux.go of Kubernetes v1.36)
const TUNABLES: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
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
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.exec(["ctr", "--connect-timeout", "1s", "version"])?.status.success() {
            let log = self.log("containerd");
            if self.daemon_cgroup("containerd").processes_of("containerd")?.is_empty()
                || Instant::now() > deadline
            {
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

    /// Loads an OCI archive from a file of the machine.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let file = fs::File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
        let mut command = self.nsenter()?;
        command.args(["ctr", "--namespace", "k8s.io", "images", "import", "--local", "-"]).stdin(file);
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
        let folder = self.folder();
        let programs = PROGRAMS.iter().map(|program| self.cluster.tools.program(program));
        let mut words: Vec<String> =
            ["sh", "-c", include_str!("node.sh"), "node"].map(str::to_owned).to_vec();
        words.extend([folder.display().to_string(), self.name()]);
        words.extend(programs.collect::<Result<Vec<_>>>()?);
        let net = format!("--net={}", self.network_namespace().display());
        let enter = [
            "nsenter",
            &net,
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--propagation=private",
        ];
        let log = self.log("init");
        let cgroup = self.daemon_cgroup("init");
        // `unshare` stays and waits for the first process: it must be the one that leaves us, not its child.
        let enter_words = std::mem::take(&mut words);
        let mut all: Vec<String> = enter.map(str::to_owned).to_vec();
        all.extend(enter_words);
        Daemon { cgroup: cgroup.clone(), enter: Vec::new(), words: all, environment: Vec::new(), log }
            .start()?;
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

    /// Gives the node the CNI configuration for its Pods' networks, unless it has one.
    pub(crate) fn configure_network(&self, pods: &[String]) -> Result<()> {
        let options = &self.cluster.options;
        let ranges: Vec<_> = pods.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        let mut plugin = json!({
            "type": options.network,
            "ipam": {
                "type": "host-local",
                // As on a real node, addresses are forgotten with the sandboxes that had them.
                "dataDir": "/run/cni-ipam-state",
                "ranges": ranges,
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            },
        });
        if options.network == "bridge" {
            plugin["bridge"] = "cni0".into();
            plugin["isGateway"] = true.into();
            plugin["hairpinMode"] = true.into();
        }
        let mut plugins = vec![plugin];
        if options.portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        let list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins });
        let script = "[ -e /etc/cni/net.d/10-pods.conflist ] || { printf %s \"$1\" >/etc/cni/net.d/.new && mv /etc/cni/net.d/.new /etc/cni/net.d/10-pods.conflist; }";
        self.run(["sh", "-c", script, "sh", &serde_json::to_string_pretty(&list)?])?;
        Ok(())
    }

    fn write_files(&self) -> Result<()> {
        let cluster = self.cluster;
        let (folder, root) = (self.folder(), self.root());
        for name in ["bin", "dev", "etc", "home", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "usr"] {
            // Those that are links on the machine are made by node.sh.
            if !fs::symlink_metadata(Path::new("/").join(name)).is_ok_and(|found| found.is_symlink()) {
                make(&root.join(name))?;
            }
        }
        for name in [
            "opt/bin",
            "opt/cni/bin",
            "opt/nri/plugins",
            "var/lib/kubelet",
            "var/lib/containerd",
            "var/log/pods",
            "var/tmp",
            "var/cache",
        ] {
            make(&root.join(name))?;
        }
        for name in ["tmp", "var/tmp"] {
            let _ = fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777));
        }
        if !root.join("var/run").is_symlink() {
            symlink("/run", root.join("var/run")).context("cannot make the node's /var/run")?;
        }
        let etc = folder.join("etc");
        make(&folder.join("etc-work"))?;
        for name in ["cni/net.d", "containerd", "kubernetes/pki", "nri/conf.d"] {
            make(&etc.join(name))?;
        }
        for plugin in PLUGINS.iter().filter(|plugin| **plugin != "portmap" || cluster.options.portmap) {
            let target = root.join("opt/cni/bin").join(plugin);
            if !target.exists() {
                let source = cluster.tools.program(plugin)?;
                fs::copy(&source, &target).with_context(|| format!("cannot copy {source}"))?;
            }
        }
        let authority = fs::read_to_string(cluster.layout.secrets().join("ca.crt"))?;
        secrets::write(&etc.join("kubernetes/pki/ca.crt"), &authority)?;
        for (file, user) in [("kubelet", self.name()), ("kube-proxy", "system:kube-proxy".to_owned())] {
            let authority = Path::new("/etc/kubernetes/pki/ca.crt");
            let text = secrets::kubeconfig(&cluster.layout, &user, &cluster.inside_server(), authority)?;
            secrets::write(&etc.join(format!("kubernetes/{file}.kubeconfig")), &text)?;
        }
        let mode = cluster.options.proxy.as_deref().unwrap_or("nftables");
        let settings = [
            ("hostname", format!("{}\n", self.name())),
            ("hosts", format!("127.0.0.1 localhost\n::1 localhost\n{} {}\n", self.address(), self.name())),
            // There is nothing outside to ask; without a name server here CoreDNS has nobody to forward to.
            ("resolv.conf", "# The names of this cluster are known to its Pods only.\n".to_owned()),
            ("containerd/config.toml", include_str!("containerd.toml").to_owned()),
            ("kubernetes/kubelet.yaml", kubelet_configuration(&self.cgroup())),
            ("kubernetes/kube-proxy.yaml", proxy_configuration(mode)),
        ];
        for (file, text) in settings {
            write(&etc.join(file), &text)?;
        }
        for (setting, value) in TUNABLES {
            let file = etc.join("kubernetes/tunables").join(setting);
            if Path::new("/proc/sys").join(setting).exists() {
                make(file.parent().unwrap_or(&etc))?;
                write(&file, &format!("{value}\n"))?;
            }
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

fn kubelet_configuration(cgroup: &Cgroup) -> String {
    let text = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": "/etc/kubernetes/pki/ca.crt" },
        },
        "authorization": { "mode": "Webhook" },
        "cgroupDriver": "cgroupfs",
        // Each kubelet kills Pods below its root that it does not know: two of them must not share one.
        "cgroupRoot": cgroup.path(),
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [DNS_V4.to_string()],
        "clusterDomain": "cluster.local",
        // The disk is shared with everything else on the machine; how full it is says nothing about the node.
        "evictionHard": { "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "memory.available": "10Mi" },
        "imageGCHighThresholdPercent": 100,
        "resolvConf": "/etc/resolv.conf",
        "maxPods": 300,
        "oomScoreAdj": 0,
        "registerNode": true,
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        // What is cached is asked for again when it is used: a change of a ConfigMap is seen in seconds.
        "syncFrequency": "20s",
        "nodeStatusUpdateFrequency": "5s",
    });
    text.to_string()
}

fn proxy_configuration(mode: &str) -> String {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": { "kubeconfig": "/etc/kubernetes/kube-proxy.kubeconfig" },
        "mode": mode,
        "clusterCIDR": POD_NETWORKS.join(","),
        // nf_conntrack_max is the machine's, not the namespace's.
        "conntrack": { "maxPerCore": 0, "min": 0, "tcpBeLiberal": true },
        "oomScoreAdj": 0,
    })
    .to_string()
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}
