//! `portolan expose` and `portolan delete`: Services of this machine, with the flags of `kubectl`.
// The comments of flags are their help texts, in which brackets mean "may be left out".
#![allow(rustdoc::broken_intra_doc_links)]

use std::net::IpAddr;

use clap::{Args, ValueEnum};
use portolan_model::Protocol;

use crate::Label;

/// Flags of `portolan expose`.
#[derive(Args, Clone, Debug)]
pub struct ExposeArgs {
    /// What to expose: a service of the catalog (all its copies) or an instance; `service NAME`, `instance/NAME` and so
    /// on say which. May be left out with --selector.
    #[arg(value_name = "[KIND] NAME", num_args = 0..=2, required_unless_present = "selector")]
    pub what: Vec<String>,

    /// The port that clients use [default: the ports of what is exposed].
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Where it leads to: a number, or the name of a port [default: the port of that number, or the only one there is].
    #[arg(long, value_name = "PORT")]
    pub target_port: Option<String>,

    /// TCP, UDP or SCTP.
    #[arg(long, value_name = "PROTOCOL", default_value = "TCP", ignore_case = true)]
    pub protocol: Protocol,

    /// What the Service is called [default: as what is exposed].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Addresses within the machine, a port on each of its addresses, or addresses of a load balancer too.
    #[arg(long = "type", value_name = "TYPE", default_value = "ClusterIP", ignore_case = true)]
    pub kind: ServiceKind,

    /// The address; None for a name without one (headless) [default: a free one].
    #[arg(long, value_name = "IP")]
    pub cluster_ip: Option<String>,

    /// Another address by which it is reached. Repeatable.
    #[arg(long = "external-ip", value_name = "IP", value_delimiter = ',')]
    pub external_ips: Vec<IpAddr>,

    /// The address of its load balancer.
    #[arg(long, value_name = "IP")]
    pub load_balancer_ip: Option<IpAddr>,

    /// ClientIP: a client stays with the instance that it had [default: None].
    #[arg(long, value_name = "KIND", ignore_case = true)]
    pub session_affinity: Option<Affinity>,

    /// The labels of the instances that it leads to [default: those that name what is exposed].
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub selector: Vec<Label>,

    /// Labels of the Service itself.
    #[arg(short, long, value_name = "KEY=VALUE", value_delimiter = ',')]
    pub labels: Vec<Label>,

    /// The namespace of its name.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// client: only show what would be asked for.
    #[arg(long, value_name = "HOW", num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    pub dry_run: DryRun,

    /// How to print: yaml, json or name [default: a line for people].
    #[arg(short, long, value_name = "FORMAT")]
    pub output: Option<ObjectFormat>,
}

/// What a Service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceKind {
    /// An address within the machine.
    #[value(name = "ClusterIP")]
    ClusterIp,
    /// And a port on each of its addresses.
    #[value(name = "NodePort")]
    NodePort,
    /// And addresses of a load balancer.
    #[value(name = "LoadBalancer")]
    LoadBalancer,
}

impl ServiceKind {
    /// As in an object of Kubernetes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Whether clients stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Affinity {
    /// Each connection is given anew.
    #[value(name = "None")]
    None,
    /// By the client's address.
    #[value(name = "ClientIP")]
    ClientIp,
}

/// Whether anything is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// It is done.
    None,
    /// It is only shown.
    Client,
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ObjectFormat {
    /// As in a file of `portolan up -f`.
    Yaml,
    /// The same in JSON.
    Json,
    /// `service/NAME`.
    Name,
}

/// Flags of `portolan delete`.
#[derive(Args, Clone, Debug)]
pub struct DeleteArgs {
    /// `service NAME` or `service/NAME`.
    #[arg(value_name = "service NAME", num_args = 1..=2, required = true)]
    pub what: Vec<String>,

    /// The namespace of its name.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
}
