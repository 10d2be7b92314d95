//! `portolan relay`: Services in user space.
// The comments of flags are their help texts, in which brackets mean "may be left out".
#![allow(rustdoc::broken_intra_doc_links)]

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use clap::{Args, ValueEnum};

use crate::values::{duration, duration_or_zero};

/// Flags of `portolan relay`.
#[derive(Args, Clone, Debug)]
pub struct RelayArgs {
    /// A file of Kubernetes Services and EndpointSlices, or a folder of such; edits apply while this runs. Repeatable
    /// [default: those of the cluster, from its API server].
    #[arg(
        short = 'f',
        long = "services",
        visible_alias = "filename",
        value_name = "FILE",
        env = "PORTOLAN_SERVICES",
        value_delimiter = ','
    )]
    pub services: Vec<PathBuf>,

    /// The API server and who asks it [default: the service account of the Pod that this runs in].
    #[arg(long, value_name = "FILE", conflicts_with = "services")]
    pub kubeconfig: Option<PathBuf>,

    /// Of the API server's Services only those with this value of the label service.kubernetes.io/service-proxy-name
    /// [default: those without it].
    #[arg(long, value_name = "NAME", conflicts_with = "services")]
    pub service_proxy_name: Option<String>,

    /// Where a port of a Service is served, beside its nodePort on all addresses: [NAMESPACE/]SERVICE[:PORT]=ADDRESS:PORT,
    /// with the name or number of its port. Repeatable.
    #[arg(long, value_name = "SERVICE[:PORT]=ADDRESS", env = "PORTOLAN_RELAY_LISTEN", value_delimiter = ',')]
    pub listen: Vec<RelayListen>,

    /// The addresses on which node ports are served [default: all of both families]. Repeatable.
    #[arg(long, value_name = "IP", env = "PORTOLAN_RELAY_ADDRESS", value_delimiter = ',')]
    pub address: Vec<IpAddr>,

    /// Do not serve node ports, only what --listen names.
    #[arg(long)]
    pub no_node_ports: bool,

    /// What this machine is called in nodeName of endpoints, for the policy Local [default: its host name].
    #[arg(long, value_name = "NAME", env = "PORTOLAN_NODE_NAME")]
    pub node_name: Option<String>,

    /// The zone of this machine, for hints of endpoints.
    #[arg(long, value_name = "ZONE", env = "PORTOLAN_ZONE_NAME")]
    pub zone_name: Option<String>,

    /// Tell TCP backends who the client is: v1 or v2 of the PROXY protocol.
    #[arg(long, value_name = "VERSION", env = "PORTOLAN_PROXY_PROTOCOL")]
    pub proxy_protocol: Option<ProxyVersion>,

    /// TCP connections at once; further ones wait.
    #[arg(long, value_name = "NUMBER", env = "PORTOLAN_MAX_CONNECTIONS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// UDP clients at once; a further one takes the place of one that has been silent for long.
    #[arg(long, value_name = "NUMBER", env = "PORTOLAN_MAX_CLIENTS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_clients: u32,

    /// Connections and UDP clients of one address at once [default: any number].
    #[arg(long, value_name = "NUMBER", env = "PORTOLAN_MAX_PER_CLIENT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_per_client: Option<u32>,

    /// How long a connection to a backend may take before another one is tried.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub connect_timeout: Duration,

    /// A TCP connection that is silent for so long is cut [default: never].
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub idle_timeout: Option<Duration>,

    /// The same when one side has said its last.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    pub half_closed_timeout: Duration,

    /// A UDP client that is silent for so long is forgotten.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    pub udp_timeout: Duration,

    /// How long connections may go on after SIGTERM; a second signal ends them at once.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration_or_zero)]
    pub drain_timeout: Duration,

    /// Where /metrics and /healthz are served [default: nowhere].
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// `[NAMESPACE/]SERVICE[:PORT]=ADDRESS:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayListen {
    /// `default` when it was not said.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The name or number of its port; `None`: the only one.
    pub port: Option<String>,
    /// Where to listen.
    pub address: SocketAddr,
}

impl FromStr for RelayListen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} says not what to serve where: write web=0.0.0.0:8080 or default/web:http=[::]:8080"
            )
        };
        let (what, address) = text.split_once('=').ok_or_else(wrong)?;
        let (namespace, what) = what.split_once('/').unwrap_or(("default", what));
        let (service, port) = what.split_once(':').map_or((what, None), |(name, port)| (name, Some(port)));
        if namespace.is_empty() || service.is_empty() || port == Some("") {
            return Err(wrong());
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port: port.map(str::to_owned),
            address: address.parse().map_err(|_| wrong())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_where_is_one_word() {
        let listen: RelayListen = "web=0.0.0.0:8080".parse().unwrap();
        assert_eq!(
            (listen.namespace.as_str(), listen.service.as_str(), listen.port),
            ("default", "web", None)
        );
        let listen: RelayListen = "x/web:http=[::]:80".parse().unwrap();
        assert_eq!((listen.namespace.as_str(), listen.port.as_deref()), ("x", Some("http")));
        for wrong in ["web", "web=80", "=0.0.0.0:80", "web:=0.0.0.0:80", "/web=0.0.0.0:1"] {
            assert!(wrong.parse::<RelayListen>().unwrap_err().contains("default/web:http"), "{wrong}");
        }
    }
}
