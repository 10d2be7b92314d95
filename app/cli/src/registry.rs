//! `portolan registry`: the catalog alone, with the flag names of the tutorial's original beside those of `up`.

use std::{net::SocketAddr, time::Duration};

use clap::Args;
use ipnet::IpNet;

use crate::{up::zone, values::duration};

/// Flags of `portolan registry`.
#[derive(Args, Clone, Debug)]
pub struct RegistryArgs {
    /// Where the page, the API, /metrics, /healthz and /readyz listen.
    #[arg(
        long,
        visible_alias = "http",
        value_name = "ADDRESS",
        env = "PORTOLAN_LISTEN",
        default_value = "127.0.0.1:10080"
    )]
    pub listen: SocketAddr,

    /// Where servers register: the API, and the register API of the dynamic-ports tutorial.
    #[arg(
        long,
        visible_alias = "api",
        value_name = "ADDRESS",
        env = "PORTOLAN_REGISTER_LISTEN",
        default_value = "127.0.0.1:10081"
    )]
    pub register_listen: SocketAddr,

    /// Where DNS listens, UDP and TCP [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_DNS_LISTEN")]
    pub dns_listen: Option<SocketAddr>,

    /// The DNS zone that names are under.
    #[arg(long, value_name = "ZONE", env = "PORTOLAN_ZONE", default_value = "portolan.internal", value_parser = zone)]
    pub zone: String,

    /// Networks whose addresses register themselves without a token, at --register-listen only. Repeatable.
    #[arg(long, value_name = "CIDR", env = "PORTOLAN_ALLOW_ANONYMOUS_FROM", value_delimiter = ',')]
    pub allow_anonymous_from: Vec<IpNet>,

    /// What these may register beside the very address they come from. On Kubernetes the networks of the nodes: behind
    /// a Service, kube-proxy may have replaced that address. Repeatable.
    #[arg(
        long,
        value_name = "CIDR",
        env = "PORTOLAN_ANONYMOUS_ADDRESSES",
        value_delimiter = ',',
        requires = "allow_anonymous_from"
    )]
    pub anonymous_addresses: Vec<IpNet>,

    /// What this machine is called in the catalog [default: its host name].
    #[arg(long, value_name = "NAME", env = "PORTOLAN_NODE_NAME")]
    pub node_name: Option<String>,

    /// How long a registration lives without a renewal.
    #[arg(long, value_name = "DURATION", env = "PORTOLAN_TTL", default_value = "30s", value_parser = duration)]
    pub ttl: Duration,

    /// How long an expired registration is kept to look at.
    #[arg(
        long,
        value_name = "DURATION",
        env = "PORTOLAN_REMOVE_AFTER",
        default_value = "5m",
        value_parser = duration
    )]
    pub remove_after: Duration,
}
