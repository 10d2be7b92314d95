//! Starting a cluster, and adding nodes to it.

use std::{
    net::TcpListener,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cluster::Cluster,
    command::without_package,
    down, images,
    layout::{CONTROL_V4, Layout, MOST_NODES},
    network,
    options::Options,
    secrets,
    tools::{Say, Tools},
};

impl Cluster {
    /// Starts the cluster `name` and waits until its nodes and its DNS are ready. What was left of one is removed first.
    ///
    /// `say` hears what is going on. When it fails everything is left as it is for a look; [`crate::down()`] removes it.
    pub fn up(name: &str, options: Options, say: Say<'_>) -> Result<Self> {
        let layout = Layout::new(name)?;
        if options.nodes > MOST_NODES {
            bail!("{} nodes are too many: {MOST_NODES} have addresses", options.nodes);
        }
        if !rustix::process::geteuid().is_root() {
            bail!("a cluster needs root: it makes namespaces, mounts and cgroups");
        }
        let _lock = down::lock(&layout)?;
        if Self::find(name).is_some() {
            bail!("the cluster {name} is up already: `cargo xtask cluster down --name {name}` takes it down");
        }
        let tools = Tools::new()?;
        let wanted: &[&str] = if options.nodes > 0 { &["kube", "node", "cni", "dns"] } else { &["kube"] };
        tools.build(wanted, say)?;
        let archives = archives(&tools, &options, say)?;

        let started = Instant::now();
        down::remove(&layout, &|_| {})?;
        std::fs::create_dir_all(&layout.folder)
            .with_context(|| format!("cannot make {}", layout.folder.display()))?;
        let listener = TcpListener::bind("127.0.0.1:0").context("no port of the loopback for the API")?;
        let port = listener.local_addr().context("no port of the loopback for the API")?.port();
        let cluster = Self { layout, options, port, tools };
        cluster.remember()?;
        network::make(&cluster.layout)?;
        secrets::make(&cluster.layout)?;
        std::thread::scope(|scope| -> Result<()> {
            let archives = &archives;
            let nodes: Vec<_> = cluster
                .nodes()
                .map(|node| {
                    scope.spawn(move || {
                        node.start_runtime()?;
                        archives.iter().try_for_each(|archive| node.load(archive))
                    })
                })
                .collect();
            cluster.start_control(listener)?;
            say(&format!("API server ready after {:.1} s", started.elapsed().as_secs_f32()));
            cluster.start_controllers()?;
            nodes
                .into_iter()
                .try_for_each(|node| node.join().unwrap_or_else(|_| bail!("a node's thread panicked")))
        })?;
        if cluster.options.nodes > 0 {
            cluster.start_nodes(say, started)?;
        }
        if let Some(hook) = &cluster.options.hook {
            say(&format!("hook: {hook}"));
            cluster.run_hook(hook)?;
        }
        say(&format!("cluster {name} ready after {:.1} s", started.elapsed().as_secs_f32()));
        Ok(cluster)
    }

    fn start_nodes(&self, say: Say<'_>, started: Instant) -> Result<()> {
        for node in self.nodes() {
            node.start_agents()?;
        }
        let manifest = include_str!("coredns.yaml")
            .replace("COREDNS_IMAGE", &images::coredns_name())
            .replace("CONTROL_ADDRESS", &CONTROL_V4.to_string());
        self.apply(&manifest)?;
        for node in self.nodes() {
            self.connect(node.number())?;
        }
        say(&format!("nodes ready after {:.1} s", started.elapsed().as_secs_f32()));
        // Pods are admitted in a namespace when its default service account is there.
        self.run_kubectl(&["wait", "--for=create", "--timeout=60s", "serviceaccount/default"])?;
        let dns = self.wait_for_rollout("kube-system", "deployment/coredns", Duration::from_secs(180));
        dns.with_context(|| {
            let pods = self.run_kubectl(&["-n", "kube-system", "describe", "pods"]).unwrap_or_default();
            let last: Vec<&str> = pods.lines().rev().take(12).collect();
            format!("no DNS in the cluster:\n{}", last.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
    }

    /// Adds a node, and waits until it is ready.
    pub fn join(&mut self, say: Say<'_>) -> Result<usize> {
        let _lock = down::lock(&self.layout)?;
        let number = self.options.nodes + 1;
        if self.options.nodes == 0 {
            bail!("{} is the light variant, without nodes: start it with --nodes", self.name());
        }
        if number > MOST_NODES {
            bail!("{MOST_NODES} nodes are all that have addresses");
        }
        let archives = archives(&self.tools, &self.options, say)?;
        self.options.nodes = number;
        self.remember()?;
        let node = self.node(number);
        node.start_runtime()?;
        archives.iter().try_for_each(|archive| node.load(archive))?;
        node.start_agents()?;
        self.connect(number)?;
        Ok(number)
    }

    fn run_hook(&self, hook: &str) -> Result<()> {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", hook]).env("KUBECONFIG", self.kubeconfig()).env("PORTOLAN_CLUSTER", self.name());
        let kubectl = PathBuf::from(self.tools.program("kubectl")?);
        if let (Some(folder), Some(path)) = (kubectl.parent(), std::env::var_os("PATH")) {
            let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
            command.env("PATH", std::env::join_paths(folders)?);
        }
        let status = without_package(&mut command).status().context("cannot start sh")?;
        if !status.success() {
            bail!("the hook ended with {status}");
        }
        Ok(())
    }
}

/// The images that every node has.
fn archives(tools: &Tools, options: &Options, say: Say<'_>) -> Result<Vec<PathBuf>> {
    if options.nodes == 0 {
        return Ok(Vec::new());
    }
    let mut archives =
        vec![images::pause(tools)?, images::coredns(tools, say)?, images::debian_tools(tools, say)?];
    if options.agnhost || tools.has("agnhost") {
        archives.push(images::agnhost(tools, say)?);
    }
    if options.agnhost {
        archives.push(images::regression(tools, say)?);
    }
    Ok(archives)
}
