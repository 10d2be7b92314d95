//! The proxies that are compared, each on a node of its own in the network of the cluster.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use portolan_cluster::Cluster;
use portolan_testkit::{Background, net::Namespace};
use tempfile::TempDir;

use super::place::Place;

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// `portolan proxy`.
    Portolan,
    /// kube-proxy in mode nftables.
    Nftables,
    /// kube-proxy in mode iptables.
    Iptables,
}

impl Which {
    pub(crate) const ALL: [Self; 3] = [Self::Portolan, Self::Nftables, Self::Iptables];

    /// As it is called in tables.
    pub(crate) fn heading(self) -> String {
        let kube = portolan_cluster::RECIPES.iter().find(|recipe| recipe.name == "kube");
        let version = kube.map_or("", |recipe| recipe.version);
        match self {
            Self::Portolan => "Portolan".to_owned(),
            Self::Nftables => format!("kube-proxy {version}, nftables"),
            Self::Iptables => format!("kube-proxy {version}, iptables"),
        }
    }
}

/// The name of the node that all of them are.
pub(crate) const NODE: &str = "bench";

/// A proxy that runs.
pub(crate) struct Running {
    pub(crate) process: Background,
    _folder: TempDir,
}

/// Connects the node of a place to the cluster, where the API server is.
pub(crate) fn join(place: &Place, cluster: &Cluster) {
    let lan = Namespace::existing(&format!("cluster-{}-lan", cluster.name()));
    let end = format!("b{}", place.node.name().rsplit('-').next().unwrap_or("0"));
    lan.ip(&format!("link add {end} type veth peer name lan0 netns {}", place.node.name()));
    lan.ip(&format!("link set {end} master br0 up"));
    place.node.ip("addr add 10.240.0.200/24 dev lan0");
    place.node.ip("link set lan0 up");
}

/// Starts a proxy on the node of a place.
pub(crate) fn start(which: Which, place: &Place, cluster: &Cluster) -> Result<Running> {
    let folder = TempDir::with_prefix("portolan-bench-").context("making a folder")?;
    let program: PathBuf = match which {
        Which::Portolan => portolan_testkit::binary().to_owned(),
        _ => portolan_cluster::Tools::new()?.program("kube-proxy")?.into(),
    };
    let mut command = place.node.command(&program.to_string_lossy());
    match which {
        Which::Portolan => {
            command.arg("proxy").arg(format!("--socket={}", folder.path().join("proxy.sock").display()));
        }
        Which::Nftables => drop(command.args(["--proxy-mode=nftables", "--oom-score-adj=0"])),
        Which::Iptables => drop(command.args(["--proxy-mode=iptables", "--oom-score-adj=0"])),
    }
    command
        .arg(format!("--kubeconfig={}", cluster.inside_kubeconfig().display()))
        .arg(format!("--hostname-override={NODE}"))
        .args(["--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-be-liberal", "-v=0"]);
    Ok(Running { process: Background::start(&mut command), _folder: folder })
}

/// How long a proxy may take to be ready, before it is said to take longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
