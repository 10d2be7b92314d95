//! `portolan agent`: ports for the Pods of a Kubernetes node, and the DaemonSet that runs it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, ValueEnum};
use ipnet::IpNet;
use portolan_model::PortRange;

use crate::{Pool, values::duration_or_zero};

/// Flags of `portolan agent`.
#[derive(Args, Clone, Debug)]
pub struct AgentArgs {
    /// The Node that this is the agent of [default: the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// How to reach the API server [default: the service account of the Pod].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Work without an API server: static ports and what the runtime tells of annotations, for every namespace.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub standalone: bool,

    /// Where the CNI plugin asks.
    #[arg(
        long,
        value_name = "PATH",
        env = "PORTOLAN_AGENT_SOCKET",
        default_value = portolan_model::AGENT_SOCKET
    )]
    pub socket: PathBuf,

    /// The socket of a `portolan holder` that runs beside [default: start holders as needed].
    #[arg(long, value_name = "PATH", env = "PORTOLAN_HOLDER_SOCKET")]
    pub holder_socket: Option<PathBuf>,

    /// A pool of host ports: NAME=FIRST-LAST, or a range alone for the default pool. Repeatable. PortPools of the
    /// cluster take their place, if there are any.
    #[arg(
        long = "pool",
        value_name = "[NAME=]RANGE",
        env = "PORTOLAN_POOL",
        value_delimiter = ',',
        default_value = "20000-29999"
    )]
    pub pools: Vec<Pool>,

    /// How long a freed port is given to no other Pod, unless its PortPool says.
    #[arg(
        long,
        value_name = "DURATION",
        env = "PORTOLAN_QUARANTINE",
        default_value = "120s",
        value_parser = duration_or_zero
    )]
    pub quarantine: Duration,

    /// An address by which clients reach this node; one of each family [default: the Node's ExternalIP, else its
    /// InternalIP].
    #[arg(long, value_name = "IP", env = "PORTOLAN_ADVERTISE", value_delimiter = ',')]
    pub advertise: Vec<IpAddr>,

    /// Where /metrics, /healthz and /readyz listen.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_AGENT_LISTEN", default_value = "127.0.0.1:10083")]
    pub listen: SocketAddr,

    /// The address at which Pods of this node ask for their own ports: http://IP/v1/self/ports. It is added to lo.
    #[arg(long, value_name = "IP", default_value = "169.254.86.80", value_parser = self_address)]
    pub self_address: Ipv4Addr,

    /// Have no such address.
    #[arg(long)]
    pub no_self_address: bool,

    /// The runtime's NRI socket: by it containers get their ports in the environment and as a file.
    #[arg(long, value_name = "PATH", env = "PORTOLAN_NRI_SOCKET", default_value = "/var/run/nri/nri.sock")]
    pub nri_socket: PathBuf,

    /// Do without NRI: no environment, no file, no ports for Pods on the host network.
    #[arg(long)]
    pub no_nri: bool,

    /// Serve the Pods' ports on the node's loopback addresses too, by a relay in this process.
    #[arg(long)]
    pub localhost: bool,

    /// What is counted for each published port and shown by /metrics. Connections cost an established connection
    /// nothing; the traffic costs a lookup for each packet.
    #[arg(long, value_name = "WHAT", env = "PORTOLAN_COUNT", default_value = "connections")]
    pub count: Count,

    /// A network of Pods: between them nothing is translated. Repeatable [default: those of the Nodes and Services].
    #[arg(long = "direct", value_name = "CIDR", env = "PORTOLAN_DIRECT", value_delimiter = ',')]
    pub direct: Vec<IpNet>,

    /// The ports of Services of type NodePort, which no pool may have (the API server's --service-node-port-range).
    #[arg(long, value_name = "RANGE", env = "PORTOLAN_NODE_PORTS", default_value = "30000-32767")]
    pub node_ports: PortRange,

    /// Where the kernel is told which ports it must not choose by itself. In a container without privileges /proc/sys
    /// is read-only: mount the file at another path, and say it here.
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTOLAN_RESERVED_PORTS_FILE",
        default_value = "/proc/sys/net/ipv4/ip_local_reserved_ports"
    )]
    pub reserved_ports_file: PathBuf,

    /// A catalog to register Pods with ports in; it is asked with --token.
    #[arg(long, value_name = "URL", env = "PORTOLAN_REGISTRY")]
    pub registry: Option<String>,

    /// Install the CNI plugin on this node at the start, at the end of the chain of its configuration.
    #[arg(long)]
    pub install_cni: bool,

    /// Where the runtime has its CNI plugins.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,

    /// Where the runtime has its CNI configuration.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,

    /// Take everything of ours off this node and end: plugin, rules, holds, settings, the Node's resources.
    #[arg(long)]
    pub cleanup: bool,
}

/// What is counted for each published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Count {
    /// Nothing.
    Off,
    /// Connections, or UDP clients.
    Connections,
    /// These, and packets and bytes in each direction.
    Traffic,
}

/// A link-local address (RFC 3927): it means this node wherever it is asked, and nothing outside.
fn self_address(text: &str) -> Result<Ipv4Addr, String> {
    let address: Ipv4Addr = text.parse().map_err(|_| format!("{text:?} is no IPv4 address"))?;
    if !address.is_link_local() {
        return Err(format!("{address} is no link-local address: choose one of 169.254.0.0/16"));
    }
    Ok(address)
}
