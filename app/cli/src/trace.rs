//! `portolan trace`: what happens to a packet that asks a Service.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use portolan_model::Protocol;

use crate::Format;

/// Flags of `portolan trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// Who sends: an address, a port may follow as in 10.1.0.7:4000 (IPv6 in brackets); `node` for this machine itself.
    #[arg(value_name = "SRC")]
    pub source: String,

    /// Who is asked: ADDRESS:PORT (IPv6 in brackets), a Service as NAMESPACE/NAME or NAMESPACE/NAME:PORT (by number or name),
    /// or :PORT for a node port of this machine.
    #[arg(value_name = "DST[:PORT]")]
    pub destination: String,

    /// TCP, UDP or SCTP; of a Service that is asked for by name, the port that has it.
    #[arg(long, value_name = "PROTOCOL", ignore_case = true)]
    pub protocol: Option<Protocol>,

    /// The interface by which the packet comes [default: the one by which SRC is reached].
    #[arg(long, value_name = "NAME")]
    pub interface: Option<String>,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Ask only who answers there [default: `portolan proxy` at /run/portolan/proxy.sock and `portolan up` in its data
    /// folder, see --data].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Services and EndpointSlices from this file (YAML) in the place of those that are served here.
    #[arg(long = "from", value_name = "FILE", conflicts_with = "table")]
    pub from: Option<PathBuf>,

    /// With --from: the node that this is, as endpoints name it [default: the host name].
    #[arg(long, value_name = "NAME", requires = "from")]
    pub node_name: Option<String>,

    /// With --from: the networks of Pods of this node.
    #[arg(long, value_name = "CIDR[,CIDR]", value_delimiter = ',', requires = "from")]
    pub cluster_cidr: Vec<String>,

    /// The rules of this table as the kernel has them, in the place of those that are wanted.
    #[arg(long, value_name = "NAME")]
    pub table: Option<String>,

    /// Follow the next such packet through the kernel (nftrace), and say whether it did what was expected.
    #[arg(long)]
    pub live: bool,

    /// With --live: send such a packet from this machine. Only where SRC is one of its addresses.
    #[arg(long, requires = "live")]
    pub send: bool,

    /// With --live: how long to wait for it.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = crate::values::duration)]
    pub wait: Duration,
}
