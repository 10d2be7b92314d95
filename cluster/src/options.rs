//! What a cluster can be asked to be.

use serde::{Deserialize, Serialize};

/// What a cluster is made of. The default is one node with kube-proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes. None makes the light variant: etcd and API server alone.
    pub nodes: usize,
    /// Whether nodes are in zones: `zone-a`, `zone-b` and `zone-c` in turn.
    pub zones: bool,
    /// kube-proxy's mode, `nftables` or `iptables`; without it there is no kube-proxy, and Services have no effect.
    pub proxy: Option<String>,
    /// The CNI plugin that gives Pods their addresses: `bridge` or `ptp`.
    pub network: String,
    /// Whether the portmap plugin is there and in the chain.
    pub portmap: bool,
    /// Whether the light variant has a controller manager.
    pub controllers: bool,
    /// Whether agnhost, the server of the e2e tests, is loaded (a build of some minutes when it is not in the cache).
    pub agnhost: bool,
    /// A command of the shell that runs when the nodes are ready, with `KUBECONFIG` and `PORTOLAN_CLUSTER` set.
    pub hook: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            zones: false,
            proxy: Some("nftables".to_owned()),
            network: "bridge".to_owned(),
            portmap: true,
            controllers: false,
            agnhost: false,
            hook: None,
        }
    }
}

/// What is remembered of a running cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Remembered {
    pub(crate) options: Options,
    /// The port of the loopback where the API is.
    pub(crate) port: u16,
    /// The versions it runs.
    pub(crate) versions: Vec<(String, String)>,
}
