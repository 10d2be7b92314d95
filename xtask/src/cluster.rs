//! `cargo xtask cluster`: the command line of the crate in `cluster/`; docs/cluster.md is its manual.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use portolan_cluster::{Cluster, Options, RECIPES, Status, Tools, down, images};

/// A real Kubernetes cluster of network namespaces on this machine (needs root).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cluster", bin_name = "cargo xtask cluster")]
struct Words {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster and wait until it is ready.
    Up(Box<Up>),
    /// Remove a cluster with everything that belongs to it; one that is not there is fine.
    Down(Name),
    /// Show a cluster.
    Status {
        #[command(flatten)]
        name: Name,
        /// How.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// List the clusters.
    List,
    /// Run kubectl as the administrator.
    Kubectl {
        #[command(flatten)]
        name: Name,
        /// For kubectl.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Load OCI archives into every node.
    Load {
        #[command(flatten)]
        name: Name,
        /// Files, or `portolan`, `agnhost`, `regression`, `debian-tools`, which are made when they are not there.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Run a command on a node, or in the namespace of `client` or `control`; a shell without one.
    Shell {
        #[command(flatten)]
        name: Name,
        /// node1, node2, …, client, control.
        place: String,
        /// The command.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Start a program on every node, which goes on without us; one of the same name is ended first.
    Start {
        #[command(flatten)]
        name: Name,
        /// What it is called among the node's programs and logs.
        program: String,
        /// A file of this machine that is copied into `/opt/bin` of each node before.
        #[arg(long)]
        install: Option<PathBuf>,
        /// The command, as the node sees it.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Show the logs: their names, or the last lines of one.
    Logs {
        #[command(flatten)]
        name: Name,
        /// kube-apiserver, node1-kubelet, node1-containerd, …
        log: Option<String>,
    },
    /// Add a node.
    Join(Name),
    /// Kill everything on a node, forget its network and `/run`, and start it again.
    Reboot {
        #[command(flatten)]
        name: Name,
        /// node1, node2, …
        node: String,
    },
    /// Run a command while a cluster is up: it is started before and removed after, unless it was up already.
    With {
        #[command(flatten)]
        up: Box<Up>,
        /// The command; it gets KUBECONFIG and PORTOLAN_TEST_CLUSTER.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Build programs into the cache, without starting anything.
    Build {
        /// Which; all without any.
        recipes: Vec<String>,
    },
}

#[derive(Clone, Debug, Args)]
struct Name {
    /// The cluster's name.
    #[arg(long = "name", default_value = "playground", env = "PORTOLAN_CLUSTER")]
    name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How a cluster is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    name: Name,
    /// How many nodes.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// The light variant: etcd and API server alone.
    #[arg(long, conflicts_with_all = ["nodes", "zones"])]
    without_nodes: bool,
    /// With the controller manager, where there are no nodes.
    #[arg(long, requires = "without_nodes")]
    controllers: bool,
    /// Put the nodes into zones: zone-a, zone-b and zone-c in turn.
    #[arg(long)]
    zones: bool,
    /// kube-proxy's mode.
    #[arg(long, default_value = "nftables", value_parser = ["nftables", "iptables"])]
    proxy: String,
    /// No kube-proxy: Services have no effect.
    #[arg(long)]
    without_proxy: bool,
    /// The CNI plugin that gives Pods their addresses.
    #[arg(long, default_value = "bridge", value_parser = ["bridge", "ptp"])]
    cni: String,
    /// No portmap plugin: hostPort has no effect until another plugin serves it.
    #[arg(long)]
    without_portmap: bool,
    /// With the images that Kubernetes' own tests want: agnhost is their server.
    #[arg(long)]
    agnhost: bool,
    /// A shell command that runs when the nodes are ready, with KUBECONFIG and PORTOLAN_CLUSTER set.
    #[arg(long, value_name = "COMMAND")]
    hook: Option<String>,
}

impl Up {
    fn options(self) -> Options {
        Options {
            nodes: if self.without_nodes { 0 } else { self.nodes },
            zones: self.zones,
            proxy: (!self.without_proxy).then_some(self.proxy),
            network: self.cni,
            portmap: !self.without_portmap,
            controllers: self.controllers,
            agnhost: self.agnhost,
            hook: self.hook,
        }
    }
}

/// Progress is talk: standard error.
pub(crate) fn say(line: &str) {
    eprintln!("[{line}]");
}

pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let words = match Words::try_parse_from(std::iter::once("cluster").chain(words.iter().copied())) {
        Ok(words) => words,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    match words.verb {
        Verb::Up(up) => {
            let cluster = Cluster::up(&up.name.name.clone(), up.options(), &say)?;
            println!("export KUBECONFIG={}", cluster.kubeconfig().display());
        }
        Verb::Down(name) => down(&name.name, &say)?,
        Verb::Status { name, output } => show(&find(&name)?.status()?, output)?,
        Verb::List => Cluster::names().iter().for_each(|name| println!("{name}")),
        Verb::Kubectl { name, arguments } => return become_it(find(&name)?.kubectl_command(&arguments)?),
        Verb::Load { name, images } => load(&find(&name)?, &images)?,
        Verb::Shell { name, place, command } => return become_it(shell(&find(&name)?, &place, command)?),
        Verb::Start { name, program, install, command } => {
            for node in find(&name)?.nodes() {
                node.stop(&program)?;
                if let Some(file) = &install {
                    node.install(file)?;
                }
                node.start(&program, &command)?;
            }
        }
        Verb::Logs { name, log } => return logs(&name, log.as_deref()),
        Verb::Join(name) => println!("node{}", find(&name)?.join(&say)?),
        Verb::Reboot { name, node } => find_node(&find(&name)?, &node)?.reboot()?,
        Verb::With { up, command } => return with(*up, &command),
        Verb::Build { recipes } => {
            let all: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            let chosen: Vec<&str> = recipes.iter().map(String::as_str).collect();
            let tools = Tools::new()?;
            tools.build(if chosen.is_empty() { &all } else { &chosen }, &say)?;
            for recipe in RECIPES.iter().filter(|one| chosen.is_empty() || chosen.contains(&one.name)) {
                println!("{}", tools.folder(recipe).display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends as the command ends.
fn with(up: Up, command: &[String]) -> Result<ExitCode> {
    let name = up.name.name.clone();
    let found = Cluster::find(&name);
    let ours = found.is_none();
    let cluster = match found {
        Some(cluster) => Ok(cluster),
        None => Cluster::up(&name, up.options(), &say),
    };
    let done = cluster.and_then(|cluster| {
        let mut child = Command::new(&command[0]);
        child.args(&command[1..]).env("KUBECONFIG", cluster.kubeconfig()).env("PORTOLAN_TEST_CLUSTER", &name);
        portolan_cluster::without_package(&mut child)
            .status()
            .with_context(|| format!("cannot start {}", command[0]))
    });
    if ours {
        down(&name, &say)?;
    }
    let code = done?.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

fn find(name: &Name) -> Result<Cluster> {
    let name = &name.name;
    Cluster::find(name)
        .with_context(|| format!("the cluster {name} is not up: cargo xtask cluster up --name {name}"))
}

fn find_node<'a>(cluster: &'a Cluster, name: &str) -> Result<portolan_cluster::Node<'a>> {
    cluster
        .nodes()
        .find(|node| node.name() == name)
        .with_context(|| format!("{} has no {name}", cluster.name()))
}

fn show(status: &Status, output: Output) -> Result<()> {
    if matches!(output, Output::Json) {
        println!("{}", serde_json::to_string_pretty(status)?);
        return Ok(());
    }
    let words = |good: bool, yes: &'static str, no: &'static str| if good { yes } else { no };
    let versions: Vec<String> =
        status.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    println!("name        {}", status.name);
    println!("API server  {} ({})", status.server, words(status.ready, "ready", "not ready"));
    println!("kubeconfig  {}", status.kubeconfig);
    println!("memory      {} MiB", status.memory_bytes >> 20);
    println!("versions    {}", versions.join(", "));
    for node in &status.nodes {
        let state = if node.up { words(node.ready, "ready", "not ready") } else { "down" };
        println!("{:<10}  {:<12} {state}, {} Pods", node.name, node.address, node.pods);
    }
    Ok(())
}

fn load(cluster: &Cluster, images: &[String]) -> Result<()> {
    let tools = Tools::new()?;
    for image in images {
        let archive = match image.as_str() {
            "portolan" => crate::image::build(&crate::root(), "release", None)?,
            "agnhost" => images::agnhost(&tools, &say)?,
            "debian-tools" => images::debian_tools(&tools, &say)?,
            "regression" => images::regression(&tools, &say)?,
            file => PathBuf::from(file),
        };
        cluster.load(&archive)?;
        say(&format!("{} is on every node of {}", archive.display(), cluster.name()));
    }
    Ok(())
}

fn shell(cluster: &Cluster, place: &str, command: Vec<String>) -> Result<Command> {
    let mut enter = match place {
        "client" => cluster.client(),
        "control" => cluster.control(),
        node => find_node(cluster, node)?.nsenter()?,
    };
    match command.is_empty() {
        true => enter.args(["env", &format!("PS1={place}# "), "sh", "-i"]),
        false => enter.args(command),
    };
    Ok(enter)
}

fn logs(name: &Name, log: Option<&str>) -> Result<ExitCode> {
    let cluster = find(name)?;
    let folder = cluster.folder().join("log");
    let Some(log) = log else {
        let mut command = Command::new("ls");
        command.arg("-l").arg(&folder);
        return become_it(command);
    };
    let file = folder.join(format!("{log}.log"));
    if !file.is_file() {
        bail!("there is no {}", file.display());
    }
    let mut command = Command::new("tail");
    command.args(["-n", "100"]).arg(file);
    become_it(command)
}

/// Becomes the command, which so gets our terminal and our signals.
fn become_it(mut command: Command) -> Result<ExitCode> {
    Err(command.exec()).with_context(|| format!("cannot start {}", command.get_program().display()))
}
