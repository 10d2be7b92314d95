//! `portolan proxy`: what kube-proxy does. Its flags have the names, forms and defaults of kube-proxy 1.36
//! (`cmd/kube-proxy/app/options.go`) in nftables mode; those of ours come after them.
//!
//! A flag is `None` unless it was given: with `--config` the file speaks, and a flag beside it is told.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Subcommand, ValueEnum};

use crate::Format;

/// Where requests for the state of a proxy on this node are answered.
pub const PROXY_SOCKET: &str = "/run/portolan/proxy.sock";

/// Flags of `portolan proxy`.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct ProxyArgs {
    /// A question to a proxy that runs.
    #[command(subcommand)]
    pub verb: Option<ProxyVerb>,

    /// A KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1). It takes the place of the flags.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How to reach the API server [default: the service account of the Pod].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// The address of the API server, in place of that of the kubeconfig.
    #[arg(long, value_name = "URL")]
    pub master: Option<String>,

    /// The Node that this is the proxy of [default: the host name].
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub hostname_override: Option<String>,

    /// The node's primary address, if the Node does not say. Nothing listens on it.
    #[arg(long, value_name = "IP")]
    pub bind_address: Option<IpAddr>,

    /// End when an address of --healthz-bind-address or --metrics-bind-address cannot be listened on.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub bind_address_hard_fail: Option<bool>,

    /// Where /healthz and /livez listen; empty: nowhere [default: 0.0.0.0:10256].
    #[arg(long, value_name = "IP[:PORT]", value_parser = bind_address)]
    pub healthz_bind_address: Option<BindAddress>,

    /// Where /metrics, /proxyMode, /configz, /statusz and /flagz listen; empty: nowhere [default: 127.0.0.1:10249].
    #[arg(long, value_name = "IP[:PORT]", value_parser = bind_address)]
    pub metrics_bind_address: Option<BindAddress>,

    /// How traffic of local Pods is told from other traffic [default: ClusterCIDR].
    #[arg(long, value_name = "MODE")]
    pub detect_local_mode: Option<LocalMode>,

    /// The networks of the cluster's Pods, at most one of each family, for --detect-local-mode ClusterCIDR.
    #[arg(long, value_name = "CIDR[,CIDR]")]
    pub cluster_cidr: Option<String>,

    /// The bridge of the node's Pods, for --detect-local-mode BridgeInterface.
    #[arg(long, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,

    /// What the names of the Pods' interfaces begin with, for --detect-local-mode InterfaceNamePrefix.
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,

    /// Translate the source of all traffic to cluster addresses.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub masquerade_all: Option<bool>,

    /// The bit of the packet mark that says "translate the source": 0 to 31 [default: 14].
    #[arg(long, value_name = "BIT")]
    pub iptables_masquerade_bit: Option<i32>,

    /// Where node ports answer: `primary`, or networks of the node's addresses [default: primary].
    #[arg(long, value_name = "primary|CIDR,…", value_delimiter = ',')]
    pub nodeport_addresses: Option<Vec<String>>,

    /// Connections to track for each core; 0: leave nf_conntrack_max as it is [default: 32768].
    #[arg(long, value_name = "N")]
    pub conntrack_max_per_core: Option<i32>,

    /// Connections to track at least [default: 131072].
    #[arg(long, value_name = "N")]
    pub conntrack_min: Option<i32>,

    /// nf_conntrack_tcp_timeout_established; 0: leave it as it is [default: 24h].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub conntrack_tcp_timeout_established: Option<Duration>,

    /// nf_conntrack_tcp_timeout_close_wait; 0: leave it as it is [default: 1h].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub conntrack_tcp_timeout_close_wait: Option<Duration>,

    /// Set nf_conntrack_tcp_be_liberal: packets outside of a connection's window are not INVALID.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub conntrack_tcp_be_liberal: Option<bool>,

    /// nf_conntrack_udp_timeout; 0: leave it as it is [default: 0].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub conntrack_udp_timeout: Option<Duration>,

    /// nf_conntrack_udp_timeout_stream; 0: leave it as it is [default: 0].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub conntrack_udp_timeout_stream: Option<Duration>,

    /// This process's /proc/self/oom_score_adj [default: -999].
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub oom_score_adj: Option<i32>,

    /// `nftables` is the only one.
    #[arg(long, value_name = "MODE")]
    pub proxy_mode: Option<String>,

    /// Changes that wait for longer than twice this make /healthz say 503 [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = go_duration)]
    pub iptables_sync_period: Option<Duration>,

    /// NAME=BOOL,…: `AllowServiceExternalIPs=false` is the only one that means something.
    #[arg(long, value_name = "NAME=BOOL,…", value_delimiter = ',')]
    pub feature_gates: Option<Vec<String>>,

    /// Take our rules off this node and end, and say whose other rules for Services are there.
    #[arg(long)]
    pub cleanup: bool,

    /// With --cleanup or at the start: remove the tables of a kube-proxy in nftables mode, once ours is in place.
    #[arg(long)]
    pub cleanup_kube_proxy: bool,

    /// Set the kernel's settings, which needs more privileges than the rest, and end.
    #[arg(long)]
    pub init_only: bool,

    /// Own only Services whose label service.kubernetes.io/service-proxy-name is NAME, beside another proxy.
    #[arg(long, value_name = "NAME", env = "PORTOLAN_SERVICE_PROXY_NAME")]
    pub service_proxy_name: Option<String>,

    /// Serve node ports on the loopback addresses too, by a relay in this process.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub nodeport_localhost: Option<bool>,

    /// What is counted for each frontend and each backend.
    #[arg(long, value_name = "WHAT", default_value = "off")]
    pub counting: CountingMode,

    /// How many clients' affinities are remembered, for each family.
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub affinity_size: u32,

    /// The name of the nftables table.
    #[arg(long, value_name = "NAME", default_value = "portolan-services")]
    pub table: String,

    /// Where this node's administrator asks: `portolan proxy status`, `portolan trace`.
    #[arg(long, value_name = "PATH", env = "PORTOLAN_PROXY_SOCKET", default_value = PROXY_SOCKET)]
    pub socket: PathBuf,

    /// Flags of kube-proxy that mean nothing here.
    #[command(flatten)]
    pub unused: UnusedProxyArgs,
}

/// Flags of kube-proxy that mean nothing here. They are taken, so that its command line can be, and told.
#[derive(Args, Clone, Debug, Default)]
pub struct UnusedProxyArgs {
    #[arg(long, hide = true)]
    config_sync_period: Option<String>,
    #[arg(long, hide = true)]
    iptables_min_sync_period: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    iptables_localhost_nodeports: Option<String>,
    #[arg(long, hide = true)]
    kube_api_burst: Option<String>,
    #[arg(long, hide = true)]
    kube_api_content_type: Option<String>,
    #[arg(long, hide = true)]
    kube_api_qps: Option<String>,
    #[arg(long, hide = true)]
    log_flush_frequency: Option<String>,
    #[arg(long, hide = true)]
    show_hidden_metrics_for_version: Option<String>,
    #[arg(long, hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true)]
    healthz_port: Option<String>,
    #[arg(long, hide = true)]
    metrics_port: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    profiling: Option<String>,
    #[arg(long, hide = true)]
    write_config_to: Option<String>,
    #[arg(long, hide = true)]
    ipvs_sync_period: Option<String>,
    #[arg(long, hide = true)]
    ipvs_min_sync_period: Option<String>,
    #[arg(long, hide = true)]
    ipvs_scheduler: Option<String>,
    #[arg(long, hide = true)]
    ipvs_exclude_cidrs: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipvs_strict_arp: Option<String>,
    #[arg(long, hide = true)]
    ipvs_tcp_timeout: Option<String>,
    #[arg(long, hide = true)]
    ipvs_tcpfin_timeout: Option<String>,
    #[arg(long, hide = true)]
    ipvs_udp_timeout: Option<String>,
}

impl UnusedProxyArgs {
    /// Those that were given and change nothing, with the reason.
    pub fn ignored(&self) -> Vec<(&'static str, &'static str)> {
        let told = "changes are told by the API server, and looked for at no interval";
        let few = "there are few requests to limit";
        let all = [
            ("--config-sync-period", &self.config_sync_period, told),
            ("--iptables-min-sync-period", &self.iptables_min_sync_period, "a change is made at once"),
            (
                "--iptables-localhost-nodeports",
                &self.iptables_localhost_nodeports,
                "as in nftables mode; say --nodeport-localhost to have node ports on the loopback",
            ),
            ("--kube-api-burst", &self.kube_api_burst, few),
            ("--kube-api-qps", &self.kube_api_qps, few),
            ("--kube-api-content-type", &self.kube_api_content_type, "objects come as JSON"),
            ("--log-flush-frequency", &self.log_flush_frequency, "each line is written at once"),
            (
                "--show-hidden-metrics-for-version",
                &self.show_hidden_metrics_for_version,
                "no metric is hidden",
            ),
            ("--vmodule", &self.vmodule, "say --log-level"),
        ];
        all.into_iter().filter(|(_, value, _)| value.is_some()).map(|(name, _, why)| (name, why)).collect()
    }

    /// The first that asks for something that there is not, with the reason.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        let ipvs = "there is no IPVS mode; a Service chooses by the annotation portolan.dev/balance";
        let all = [
            ("--healthz-port", &self.healthz_port, "say --healthz-bind-address"),
            ("--metrics-port", &self.metrics_port, "say --metrics-bind-address"),
            (
                "--write-config-to",
                &self.write_config_to,
                "what is in use is at /configz of the metrics address",
            ),
            ("--ipvs-sync-period", &self.ipvs_sync_period, ipvs),
            ("--ipvs-min-sync-period", &self.ipvs_min_sync_period, ipvs),
            ("--ipvs-scheduler", &self.ipvs_scheduler, ipvs),
            ("--ipvs-exclude-cidrs", &self.ipvs_exclude_cidrs, ipvs),
            ("--ipvs-strict-arp", &self.ipvs_strict_arp, ipvs),
            ("--ipvs-tcp-timeout", &self.ipvs_tcp_timeout, ipvs),
            ("--ipvs-tcpfin-timeout", &self.ipvs_tcpfin_timeout, ipvs),
            ("--ipvs-udp-timeout", &self.ipvs_udp_timeout, ipvs),
        ];
        if self.profiling.as_deref() == Some("true") {
            return Some(("--profiling", "there is no profile to serve"));
        }
        all.into_iter().find(|(_, value, _)| value.is_some()).map(|(name, _, why)| (name, why))
    }
}

/// Questions to a proxy that runs on this node.
#[derive(Subcommand, Clone, Debug)]
pub enum ProxyVerb {
    /// Show what the proxy of this node serves, and whether it is live
    Status(ProxyStatusArgs),
}

/// Flags of `portolan proxy status`.
#[derive(Args, Clone, Debug)]
pub struct ProxyStatusArgs {
    /// One Service.
    #[arg(value_name = "[NAMESPACE/]NAME")]
    pub service: Option<String>,

    /// How to print.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,

    /// Where the proxy answers.
    #[arg(long, value_name = "PATH", env = "PORTOLAN_PROXY_SOCKET", default_value = PROXY_SOCKET)]
    pub socket: PathBuf,
}

/// How traffic of local Pods is told from other traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LocalMode {
    /// Its source is in the networks of the cluster's Pods.
    #[default]
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// Its source is in the networks of the Node's Pods.
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// It comes by a bridge.
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// It comes by an interface whose name begins so.
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

/// What is counted for each frontend and backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CountingMode {
    /// Nothing.
    #[default]
    Off,
    /// New connections.
    Connections,
    /// Packets and bytes, which costs a look-up for each packet.
    Traffic,
}

/// Where to listen: nowhere, or an address with or without a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress(pub Option<(IpAddr, Option<u16>)>);

/// Reads `IP`, `IP:PORT`, `[IP]:PORT` or nothing.
pub fn bind_address(text: &str) -> Result<BindAddress, String> {
    if text.is_empty() {
        return Ok(BindAddress(None));
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Ok(BindAddress(Some((address.ip(), Some(address.port())))));
    }
    match text.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(address) => Ok(BindAddress(Some((address, None)))),
        Err(_) => {
            Err(format!("{text:?} is no address: write IP:PORT, [IP]:PORT or IP, or nothing for nowhere"))
        }
    }
}

/// Reads a duration as Go's `time.ParseDuration` does: `1h0m0s`, `1.5h`, `300ms`, `0`.
pub fn go_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write 30s, 1h30m or 500ms");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut sum) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let units = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..units] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[units..];
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        sum = sum.checked_add(part).ok_or_else(wrong)?;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(sum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, milliseconds) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("24h0m0s", Some(86_400_000)),
            ("1.5h", Some(5_400_000)),
            ("1h30m", Some(5_400_000)),
            ("300ms", Some(300)),
            ("10", None),
            ("", None),
            ("-1s", None),
            ("1d", None),
            ("s", None),
        ] {
            let expected = milliseconds.map(Duration::from_millis);
            assert_eq!(go_duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_may_be_without_a_port_or_empty() {
        let at = |address: &str, port| Some((address.parse().unwrap(), port));
        for (text, expected) in [
            ("", Some(None)),
            ("0.0.0.0", Some(at("0.0.0.0", None))),
            ("127.0.0.1:10249", Some(at("127.0.0.1", Some(10249)))),
            ("[::]:10256", Some(at("::", Some(10256)))),
            ("[::1]", Some(at("::1", None))),
            ("::", Some(at("::", None))),
            ("localhost:80", None),
        ] {
            assert_eq!(bind_address(text).ok().map(|read| read.0), expected, "{text}");
        }
    }
}
