//! `portolan webhook`: the part of a cluster that is there once, not on each node.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;

/// Flags of `portolan webhook`.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// How to reach the API server [default: the service account of the Pod].
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// Where the API server calls, by TLS.
    #[arg(long, value_name = "ADDRESS", env = "PORTOLAN_WEBHOOK_LISTEN", default_value = "0.0.0.0:10443")]
    pub listen: SocketAddr,

    /// Where /metrics, /healthz and /readyz listen.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PORTOLAN_WEBHOOK_HEALTH_LISTEN",
        default_value = "127.0.0.1:10084"
    )]
    pub health_listen: SocketAddr,

    /// The namespace of its Service, its Secret and its Lease.
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "portolan")]
    pub namespace: String,

    /// Which of its replicas this is, for the Lease [default: the host name].
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub identity: Option<String>,

    /// The Service by which the API server calls; the certificate is for its name.
    #[arg(long, value_name = "NAME", default_value = "portolan-webhook")]
    pub service: String,

    /// The Secret that the replicas share the certificate by. It is made, and renewed in time.
    #[arg(long, value_name = "NAME", default_value = "portolan-webhook")]
    pub secret: String,

    /// The Lease by which one replica writes EndpointSlices.
    #[arg(long, value_name = "NAME", default_value = "portolan-controller")]
    pub lease: String,

    /// The MutatingWebhookConfigurations that get the certificate's authority. Repeatable.
    #[arg(long = "configuration", value_name = "NAME", default_value = "portolan")]
    pub configurations: Vec<String>,

    /// The agents run with --no-nri: do not mark Pods as in need of the NRI plugin portolan. Where the runtime checks
    /// that mark, their containers would wait for it for ever.
    #[arg(long)]
    pub no_nri: bool,

    /// Take the twins of Services and their EndpointSlices out of the cluster and end.
    #[arg(long)]
    pub cleanup: bool,
}
