//! The words of `cargo xtask cluster`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use portolan_cluster::Options;

/// A real Kubernetes cluster of network namespaces on this machine (needs root).
#[derive(Debug, Parser)]
#[command(name = "cargo xtask cluster", bin_name = "cargo xtask cluster")]
pub(super) struct Words {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
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
pub(super) struct Name {
    /// The cluster's name.
    #[arg(long = "name", default_value = "playground", env = "PORTOLAN_CLUSTER")]
    pub(super) name: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    Text,
    Json,
}

/// How a cluster is to be.
#[derive(Clone, Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(super) name: Name,
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
    pub(super) fn options(self) -> Options {
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
