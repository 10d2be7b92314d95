//! The KubeProxyConfiguration file, `kubeproxy.config.k8s.io/v1alpha1` (k8s.io/kube-proxy v0.36.3,
//! `config/v1alpha1/types.go`), as kubeadm writes it with all of its fields.
//!
//! A field that means something here is used. One that asks for something that there is not is refused with the reason;
//! its zero value asks for nothing. A field that nobody knows is refused: it may be a typing error of one that matters.

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use anyhow::{Context, bail};
use portolan_cli::go_duration;
use serde::{Deserialize, Deserializer, de};

/// What kubeadm and others write.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct KubeProxyConfiguration {
    api_version: String,
    kind: String,
    pub(crate) feature_gates: Option<BTreeMap<String, bool>>,
    pub(crate) client_connection: ClientConnection,
    logging: Option<serde_json::Value>,
    pub(crate) hostname_override: String,
    pub(crate) bind_address: String,
    pub(crate) healthz_bind_address: String,
    pub(crate) metrics_bind_address: String,
    pub(crate) bind_address_hard_fail: bool,
    enable_profiling: bool,
    show_hidden_metrics_for_version: String,
    pub(crate) mode: String,
    #[serde(rename = "iptables")]
    pub(crate) iptables: Iptables,
    ipvs: Ipvs,
    pub(crate) nftables: Nftables,
    winkernel: Winkernel,
    pub(crate) detect_local_mode: String,
    pub(crate) detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    pub(crate) cluster_cidr: String,
    pub(crate) node_port_addresses: Option<Vec<String>>,
    #[serde(rename = "oomScoreAdj")]
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) conntrack: Conntrack,
    config_sync_period: GoDuration,
    /// For the proxy mode of old that is no more: kube-proxy takes and ignores it.
    port_range: String,
    windows_run_as_service: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ClientConnection {
    pub(crate) kubeconfig: String,
    accept_content_types: String,
    content_type: String,
    qps: f64,
    burst: i32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Iptables {
    pub(crate) masquerade_bit: Option<i32>,
    pub(crate) masquerade_all: bool,
    pub(crate) localhost_node_ports: Option<bool>,
    pub(crate) sync_period: GoDuration,
    min_sync_period: GoDuration,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Nftables {
    pub(crate) masquerade_bit: Option<i32>,
    pub(crate) masquerade_all: bool,
    pub(crate) sync_period: GoDuration,
    min_sync_period: GoDuration,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Ipvs {
    sync_period: GoDuration,
    min_sync_period: GoDuration,
    scheduler: String,
    #[serde(rename = "excludeCIDRs")]
    exclude_cidrs: Option<Vec<String>>,
    #[serde(rename = "strictARP")]
    strict_arp: bool,
    tcp_timeout: GoDuration,
    tcp_fin_timeout: GoDuration,
    udp_timeout: GoDuration,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Winkernel {
    network_name: String,
    source_vip: String,
    #[serde(rename = "enableDSR")]
    enable_dsr: bool,
    root_hns_endpoint_name: String,
    forward_health_check_vip: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct DetectLocal {
    pub(crate) bridge_interface: String,
    pub(crate) interface_name_prefix: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Conntrack {
    pub(crate) max_per_core: Option<i32>,
    pub(crate) min: Option<i32>,
    pub(crate) tcp_established_timeout: Option<GoDuration>,
    pub(crate) tcp_close_wait_timeout: Option<GoDuration>,
    pub(crate) tcp_be_liberal: bool,
    pub(crate) udp_timeout: GoDuration,
    pub(crate) udp_stream_timeout: GoDuration,
}

/// `metav1.Duration`: `30s`, or `0` as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = GoDuration;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as 30s or 1h30m")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<GoDuration, E> {
                go_duration(text).map(GoDuration).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<GoDuration, E> {
                let wrong = || E::custom(format!("{number} has no unit: write {number}s"));
                if number == 0 { Ok(GoDuration::default()) } else { Err(wrong()) }
            }
            fn visit_unit<E: de::Error>(self) -> Result<GoDuration, E> {
                Ok(GoDuration::default())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// The file, and what of it changes nothing although somebody may think so.
pub(crate) fn read(path: &Path) -> anyhow::Result<(KubeProxyConfiguration, Vec<String>)> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("reading the configuration file {}", path.display()))?;
    parse(&text).with_context(|| format!("in the configuration file {}", path.display()))
}

pub(crate) fn parse(text: &str) -> anyhow::Result<(KubeProxyConfiguration, Vec<String>)> {
    let file: KubeProxyConfiguration = serde_saphyr::from_str(text)?;
    if file.kind != "KubeProxyConfiguration" || file.api_version != "kubeproxy.config.k8s.io/v1alpha1" {
        bail!(
            "it is {} of {}: expected a KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1",
            if file.kind.is_empty() { "no kind" } else { &file.kind },
            if file.api_version.is_empty() { "no apiVersion" } else { &file.api_version },
        );
    }
    if let Some((field, why)) = refused(&file) {
        bail!("{field}: {why}");
    }
    let ignored = ignored(&file);
    Ok((file, ignored))
}

/// The first field that asks for something that there is not.
fn refused(file: &KubeProxyConfiguration) -> Option<(&'static str, &'static str)> {
    let ipvs = &file.ipvs;
    let asks_ipvs = !ipvs.scheduler.is_empty()
        || ipvs.strict_arp
        || ipvs.exclude_cidrs.as_ref().is_some_and(|cidrs| !cidrs.is_empty())
        || [ipvs.tcp_timeout, ipvs.tcp_fin_timeout, ipvs.udp_timeout]
            .iter()
            .any(|timeout| *timeout != GoDuration::default());
    let windows = &file.winkernel;
    let asks_windows = file.windows_run_as_service
        || windows.enable_dsr
        || windows.forward_health_check_vip
        || [&windows.network_name, &windows.source_vip, &windows.root_hns_endpoint_name]
            .iter()
            .any(|text| !text.is_empty());
    if asks_ipvs {
        return Some((
            "ipvs",
            "there is no IPVS mode; remove it, and let Services choose by the annotation portolan.dev/balance",
        ));
    }
    if asks_windows {
        return Some(("winkernel", "this is a proxy for Linux; remove it"));
    }
    file.enable_profiling.then_some(("enableProfiling", "there is no profile to serve; say false"))
}

fn ignored(file: &KubeProxyConfiguration) -> Vec<String> {
    let connection = &file.client_connection;
    let told: [(&str, bool, &str); 7] = [
        (
            "configSyncPeriod",
            file.config_sync_period.0 > Duration::ZERO,
            "changes are told by the API server",
        ),
        (
            "minSyncPeriod",
            [file.iptables.min_sync_period, file.nftables.min_sync_period, file.ipvs.min_sync_period]
                .iter()
                .any(|period| period.0 > Duration::ZERO),
            "a change is made at once",
        ),
        ("ipvs.syncPeriod", file.ipvs.sync_period.0 > Duration::ZERO, "there is no IPVS mode"),
        (
            "clientConnection.qps, burst and contentType",
            connection.qps > 0.0
                || connection.burst > 0
                || !connection.content_type.is_empty()
                || !connection.accept_content_types.is_empty(),
            "there are few requests, and objects come as JSON",
        ),
        ("portRange", !file.port_range.is_empty(), "kube-proxy ignores it too"),
        (
            "showHiddenMetricsForVersion",
            !file.show_hidden_metrics_for_version.is_empty(),
            "no metric is hidden",
        ),
        ("logging", asks_logging(file.logging.as_ref()), "say --log-level and --log-format"),
    ];
    let told = told.into_iter().filter(|(_, given, _)| *given);
    told.map(|(field, _, why)| format!("{field} is ignored: {why}")).collect()
}

/// kubeadm writes the defaults of Go's structure, which ask for nothing.
fn asks_logging(logging: Option<&serde_json::Value>) -> bool {
    let Some(logging) = logging else { return false };
    let verbosity = logging.get("verbosity").and_then(serde_json::Value::as_u64).unwrap_or(0);
    let format = logging.get("format").and_then(serde_json::Value::as_str).unwrap_or("text");
    verbosity > 0 || !matches!(format, "" | "text")
}
