//! What the proxy runs with: the flags, or the file in their place, made whole by kube-proxy's defaults.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use ipnet::IpNet;
use portolan_apply::Counting;
use portolan_cli::{BindAddress, CountingMode, LocalMode, ProxyArgs, bind_address};
use serde_json::json;

use super::file::{self, KubeProxyConfiguration};

/// The port of /healthz (k8s.io/kubernetes `pkg/cluster/ports`).
const HEALTHZ: u16 = 10256;
/// The port of /metrics.
const METRICS: u16 = 10249;
/// The same beside another proxy, which has those.
const BESIDE: (u16, u16) = (10085, 10086);
/// kube-proxy's (`pkg/kubelet/qos`).
const OOM_SCORE: i32 = -999;
/// The gate of addresses that any user may claim (KEP-5707).
const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ProxyConfig {
    pub(crate) node: String,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) master: Option<String>,
    /// Own only Services with this name of a proxy.
    pub(crate) proxy_name: Option<String>,
    pub(crate) bind_address: Option<IpAddr>,
    pub(crate) healthz: Option<SocketAddr>,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) hard_fail: bool,
    pub(crate) detector: Detector,
    pub(crate) masquerade_all: bool,
    pub(crate) masquerade_mark: u32,
    pub(crate) node_ports: NodePorts,
    pub(crate) localhost_node_ports: bool,
    pub(crate) external_ips: bool,
    pub(crate) conntrack: ConntrackConfig,
    pub(crate) oom_score: i32,
    /// Changes that wait for twice as long are a failure.
    pub(crate) sync_period: Duration,
    pub(crate) counting: Counting,
    pub(crate) affinity_size: u32,
    pub(crate) table: String,
    pub(crate) socket: PathBuf,
}

/// How traffic of local Pods is told from other traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Detector {
    /// By these networks, one of each family.
    ClusterNetworks(Vec<IpNet>),
    /// By those of the Node.
    NodeNetworks,
    /// By a bridge.
    Bridge(String),
    /// By the beginning of an interface's name.
    Prefix(String),
}

/// Where node ports answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodePorts {
    /// On the Node's primary addresses.
    Primary,
    /// On the local addresses in these networks; a family without a network here: on all.
    Networks(Vec<IpNet>),
}

/// The kernel's settings for connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConntrackConfig {
    pub(crate) max_per_core: u32,
    pub(crate) min: u32,
    pub(crate) tcp_established: Duration,
    pub(crate) tcp_close_wait: Duration,
    pub(crate) tcp_be_liberal: bool,
    pub(crate) udp: Duration,
    pub(crate) udp_stream: Duration,
}

/// The values of kube-proxy's settings, wherever they come from.
struct Settings {
    hostname_override: String,
    kubeconfig: Option<PathBuf>,
    bind_address: Option<IpAddr>,
    healthz: Option<BindAddress>,
    metrics: Option<BindAddress>,
    hard_fail: bool,
    mode: String,
    local_mode: LocalMode,
    cluster_cidr: String,
    bridge: String,
    prefix: String,
    masquerade_all: bool,
    masquerade_bit: i32,
    node_port_addresses: Vec<String>,
    localhost_node_ports: bool,
    gates: BTreeMap<String, bool>,
    max_per_core: Option<i32>,
    min: Option<i32>,
    tcp_established: Option<Duration>,
    tcp_close_wait: Option<Duration>,
    tcp_be_liberal: bool,
    udp: Duration,
    udp_stream: Duration,
    oom_score: Option<i32>,
    sync_period: Duration,
}

impl ProxyConfig {
    /// Reads the file, if one is named, and checks everything. Also gives what is to be told.
    pub(crate) fn new(args: &ProxyArgs) -> anyhow::Result<(Self, Vec<String>)> {
        if let Some((flag, why)) = args.unused.refused() {
            bail!("{flag}: {why}");
        }
        let mut told: Vec<String> =
            args.unused.ignored().iter().map(|(flag, why)| format!("{flag} is ignored: {why}")).collect();
        let mut settings = match &args.config {
            Some(path) => {
                let (file, ignored) = file::read(path)?;
                told.extend(ignored);
                told.extend(beside_a_file(args));
                of_file(file, path)?
            }
            None => of_flags(args)?,
        };
        // A file is the same on all nodes, so that the name comes beside it.
        if let Some(name) = &args.hostname_override {
            settings.hostname_override.clone_from(name);
        }
        told.extend(settings.gates.keys().filter(|gate| *gate != EXTERNAL_IPS).map(|gate| {
            format!(
                "the feature gate {gate} is ignored: {EXTERNAL_IPS} is the only one that means something here"
            )
        }));
        Ok((Self::of(args, settings)?, told))
    }

    fn of(args: &ProxyArgs, settings: Settings) -> anyhow::Result<Self> {
        mode(&settings.mode)?;
        let bit = u32::try_from(settings.masquerade_bit).ok().filter(|bit| *bit < 32);
        let bit = bit.with_context(|| {
            format!("the masquerade bit {} is none of a mark: use 0 to 31", settings.masquerade_bit)
        })?;
        let v6 = settings.bind_address.is_some_and(|address| address.is_ipv6());
        let (all, here) = if v6 {
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST))
        } else {
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::LOCALHOST))
        };
        let listen = |given: Option<BindAddress>, address: IpAddr, port: u16| match given {
            None => Some(SocketAddr::new(address, port)),
            Some(BindAddress(given)) => {
                given.map(|(address, given)| SocketAddr::new(address, given.unwrap_or(port)))
            }
        };
        let proxy_name = args.service_proxy_name.clone().filter(|name| !name.is_empty());
        let (healthz, metrics) = if proxy_name.is_some() { BESIDE } else { (HEALTHZ, METRICS) };
        let count = |given: Option<i32>, default: u32, name: &str| match given {
            None => Ok(default),
            Some(number) => {
                u32::try_from(number).map_err(|_| anyhow!("{name} is {number}: it must not be less than 0"))
            }
        };
        Ok(Self {
            node: node_name(&settings.hostname_override)?,
            kubeconfig: settings.kubeconfig,
            master: args.master.clone(),
            proxy_name,
            bind_address: settings.bind_address.filter(|address| !address.is_unspecified()),
            healthz: listen(settings.healthz, all, healthz),
            metrics: listen(settings.metrics, here, metrics),
            hard_fail: settings.hard_fail,
            detector: detector(
                &settings.local_mode,
                &settings.cluster_cidr,
                settings.bridge,
                settings.prefix,
            )?,
            masquerade_all: settings.masquerade_all,
            masquerade_mark: 1 << bit,
            node_ports: node_ports(&settings.node_port_addresses)?,
            localhost_node_ports: args.nodeport_localhost.unwrap_or(settings.localhost_node_ports),
            external_ips: settings.gates.get(EXTERNAL_IPS).copied().unwrap_or(true),
            conntrack: ConntrackConfig {
                max_per_core: count(settings.max_per_core, 32 * 1024, "conntrack-max-per-core")?,
                min: count(settings.min, 128 * 1024, "conntrack-min")?,
                tcp_established: settings.tcp_established.unwrap_or(Duration::from_secs(24 * 3600)),
                tcp_close_wait: settings.tcp_close_wait.unwrap_or(Duration::from_secs(3600)),
                tcp_be_liberal: settings.tcp_be_liberal,
                udp: settings.udp,
                udp_stream: settings.udp_stream,
            },
            oom_score: match settings.oom_score.unwrap_or(OOM_SCORE) {
                score @ -1000..=1000 => score,
                score => bail!("oom-score-adj is {score}: use -1000 to 1000"),
            },
            sync_period: settings.sync_period,
            counting: match args.counting {
                CountingMode::Off => Counting::Off,
                CountingMode::Connections => Counting::Connections,
                CountingMode::Traffic => Counting::Traffic,
            },
            affinity_size: args.affinity_size,
            table: args.table.clone(),
            socket: args.socket.clone(),
        })
    }

    /// What is in use, in the words of the file: `/configz`.
    pub(crate) fn describe(&self) -> serde_json::Value {
        let (mode, cidr, bridge, prefix) = match &self.detector {
            Detector::ClusterNetworks(networks) => ("ClusterCIDR", joined(networks), "", ""),
            Detector::NodeNetworks => ("NodeCIDR", String::new(), "", ""),
            Detector::Bridge(name) => ("BridgeInterface", String::new(), name.as_str(), ""),
            Detector::Prefix(name) => ("InterfaceNamePrefix", String::new(), "", name.as_str()),
        };
        let node_ports = match &self.node_ports {
            NodePorts::Primary => vec!["primary".to_owned()],
            NodePorts::Networks(networks) => networks.iter().map(ToString::to_string).collect(),
        };
        let text = |address: &Option<SocketAddr>| address.map(|at| at.to_string()).unwrap_or_default();
        let seconds = |duration: Duration| format!("{}s", duration.as_secs());
        let conntrack = &self.conntrack;
        json!({
            "kind": "KubeProxyConfiguration",
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "mode": "nftables",
            "hostnameOverride": self.node,
            "bindAddress": self.bind_address.map(|address| address.to_string()).unwrap_or_default(),
            "bindAddressHardFail": self.hard_fail,
            "healthzBindAddress": text(&self.healthz),
            "metricsBindAddress": text(&self.metrics),
            "detectLocalMode": mode,
            "clusterCIDR": cidr,
            "detectLocal": {"bridgeInterface": bridge, "interfaceNamePrefix": prefix},
            "nodePortAddresses": node_ports,
            "nftables": {
                "masqueradeBit": self.masquerade_mark.trailing_zeros(),
                "masqueradeAll": self.masquerade_all,
                "syncPeriod": seconds(self.sync_period),
                "minSyncPeriod": "0s"
            },
            "iptables": {"localhostNodePorts": self.localhost_node_ports},
            "conntrack": {
                "maxPerCore": conntrack.max_per_core,
                "min": conntrack.min,
                "tcpEstablishedTimeout": seconds(conntrack.tcp_established),
                "tcpCloseWaitTimeout": seconds(conntrack.tcp_close_wait),
                "tcpBeLiberal": conntrack.tcp_be_liberal,
                "udpTimeout": seconds(conntrack.udp),
                "udpStreamTimeout": seconds(conntrack.udp_stream)
            },
            "clientConnection": {
                "kubeconfig": self.kubeconfig.as_deref().map(Path::to_string_lossy).unwrap_or_default()
            },
            "featureGates": {EXTERNAL_IPS: self.external_ips},
            "oomScoreAdj": self.oom_score,
            "portolan": {
                "serviceProxyName": self.proxy_name,
                "table": self.table,
                "counting": format!("{:?}", self.counting).to_lowercase(),
                "affinitySize": self.affinity_size
            }
        })
    }
}

fn joined(networks: &[IpNet]) -> String {
    networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// The file wins, as with kube-proxy: a flag beside it that says something else would be missed.
fn beside_a_file(args: &ProxyArgs) -> Vec<String> {
    let given = [
        ("--kubeconfig", args.kubeconfig.is_some()),
        ("--bind-address", args.bind_address.is_some()),
        ("--bind-address-hard-fail", args.bind_address_hard_fail.is_some()),
        ("--healthz-bind-address", args.healthz_bind_address.is_some()),
        ("--metrics-bind-address", args.metrics_bind_address.is_some()),
        ("--detect-local-mode", args.detect_local_mode.is_some()),
        ("--cluster-cidr", args.cluster_cidr.is_some()),
        ("--pod-bridge-interface", args.pod_bridge_interface.is_some()),
        ("--pod-interface-name-prefix", args.pod_interface_name_prefix.is_some()),
        ("--masquerade-all", args.masquerade_all.is_some()),
        ("--iptables-masquerade-bit", args.iptables_masquerade_bit.is_some()),
        ("--nodeport-addresses", args.nodeport_addresses.is_some()),
        ("--conntrack-max-per-core", args.conntrack_max_per_core.is_some()),
        ("--conntrack-min", args.conntrack_min.is_some()),
        ("--conntrack-tcp-timeout-established", args.conntrack_tcp_timeout_established.is_some()),
        ("--conntrack-tcp-timeout-close-wait", args.conntrack_tcp_timeout_close_wait.is_some()),
        ("--conntrack-tcp-be-liberal", args.conntrack_tcp_be_liberal.is_some()),
        ("--conntrack-udp-timeout", args.conntrack_udp_timeout.is_some()),
        ("--conntrack-udp-timeout-stream", args.conntrack_udp_timeout_stream.is_some()),
        ("--oom-score-adj", args.oom_score_adj.is_some()),
        ("--proxy-mode", args.proxy_mode.is_some()),
        ("--iptables-sync-period", args.iptables_sync_period.is_some()),
        ("--feature-gates", args.feature_gates.is_some()),
    ];
    let given = given.into_iter().filter(|(_, given)| *given);
    given.map(|(flag, _)| format!("{flag} is ignored: the file of --config says it all")).collect()
}

fn of_flags(args: &ProxyArgs) -> anyhow::Result<Settings> {
    Ok(Settings {
        hostname_override: args.hostname_override.clone().unwrap_or_default(),
        kubeconfig: args.kubeconfig.clone(),
        bind_address: args.bind_address,
        healthz: args.healthz_bind_address,
        metrics: args.metrics_bind_address,
        hard_fail: args.bind_address_hard_fail.unwrap_or(false),
        mode: args.proxy_mode.clone().unwrap_or_default(),
        local_mode: args.detect_local_mode.unwrap_or_default(),
        cluster_cidr: args.cluster_cidr.clone().unwrap_or_default(),
        bridge: args.pod_bridge_interface.clone().unwrap_or_default(),
        prefix: args.pod_interface_name_prefix.clone().unwrap_or_default(),
        masquerade_all: args.masquerade_all.unwrap_or(false),
        masquerade_bit: args.iptables_masquerade_bit.unwrap_or(14),
        node_port_addresses: args.nodeport_addresses.clone().unwrap_or_default(),
        localhost_node_ports: false,
        gates: gates(args.feature_gates.as_deref().unwrap_or_default())?,
        max_per_core: args.conntrack_max_per_core,
        min: args.conntrack_min,
        tcp_established: args.conntrack_tcp_timeout_established,
        tcp_close_wait: args.conntrack_tcp_timeout_close_wait,
        tcp_be_liberal: args.conntrack_tcp_be_liberal.unwrap_or(false),
        udp: args.conntrack_udp_timeout.unwrap_or_default(),
        udp_stream: args.conntrack_udp_timeout_stream.unwrap_or_default(),
        oom_score: args.oom_score_adj,
        sync_period: positive(args.iptables_sync_period.unwrap_or_default()),
    })
}

fn of_file(file: KubeProxyConfiguration, path: &Path) -> anyhow::Result<Settings> {
    let wrong = |field: &str, message: String| anyhow!("in {}: {field}: {message}", path.display());
    let listen = |field: &str, text: &str| match text {
        // An empty text is kube-proxy's default here, not "nowhere" as for the flag.
        "" => Ok(None),
        text => bind_address(text).map(Some).map_err(|message| wrong(field, message)),
    };
    let bind = match file.bind_address.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|_| wrong("bindAddress", format!("{text:?} is no address")))?),
    };
    let local_mode = match file.detect_local_mode.as_str() {
        "" | "ClusterCIDR" => LocalMode::ClusterCidr,
        "NodeCIDR" => LocalMode::NodeCidr,
        "BridgeInterface" => LocalMode::BridgeInterface,
        "InterfaceNamePrefix" => LocalMode::InterfaceNamePrefix,
        other => {
            let known = "use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
            return Err(wrong("detectLocalMode", format!("{other:?} is none: {known}")));
        }
    };
    let kubeconfig = &file.client_connection.kubeconfig;
    Ok(Settings {
        hostname_override: file.hostname_override,
        kubeconfig: (!kubeconfig.is_empty()).then(|| kubeconfig.into()),
        bind_address: bind,
        healthz: listen("healthzBindAddress", &file.healthz_bind_address)?,
        metrics: listen("metricsBindAddress", &file.metrics_bind_address)?,
        hard_fail: file.bind_address_hard_fail,
        mode: file.mode,
        local_mode,
        cluster_cidr: file.cluster_cidr,
        bridge: file.detect_local.bridge_interface,
        prefix: file.detect_local.interface_name_prefix,
        masquerade_all: file.nftables.masquerade_all || file.iptables.masquerade_all,
        masquerade_bit: file.nftables.masquerade_bit.or(file.iptables.masquerade_bit).unwrap_or(14),
        node_port_addresses: file.node_port_addresses.unwrap_or_default(),
        localhost_node_ports: file.iptables.localhost_node_ports == Some(true),
        gates: file.feature_gates.unwrap_or_default(),
        max_per_core: file.conntrack.max_per_core,
        min: file.conntrack.min,
        tcp_established: file.conntrack.tcp_established_timeout.map(|duration| duration.0),
        tcp_close_wait: file.conntrack.tcp_close_wait_timeout.map(|duration| duration.0),
        tcp_be_liberal: file.conntrack.tcp_be_liberal,
        udp: file.conntrack.udp_timeout.0,
        udp_stream: file.conntrack.udp_stream_timeout.0,
        oom_score: file.oom_score_adj,
        sync_period: positive(file.nftables.sync_period.0.max(file.iptables.sync_period.0)),
    })
}

fn positive(period: Duration) -> Duration {
    if period.is_zero() { Duration::from_secs(30) } else { period }
}

fn mode(mode: &str) -> anyhow::Result<()> {
    match mode {
        "" | "nftables" => Ok(()),
        "iptables" | "ipvs" => bail!(
            "the proxy mode {mode} is not there: rules are nftables; say nftables or nothing, and run `portolan proxy \
             --cleanup` on nodes that had a kube-proxy in that mode to see what it has left"
        ),
        "kernelspace" => bail!("the proxy mode kernelspace is for Windows"),
        other => bail!("{other:?} is no proxy mode: say nftables"),
    }
}

/// As kube-proxy and kubelet name a node: lower case, no white space around it.
fn node_name(given: &str) -> anyhow::Result<String> {
    let name = match given {
        "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        given => given.to_owned(),
    };
    match name.trim() {
        "" => bail!("the node has an empty name: say --hostname-override"),
        name => Ok(name.to_lowercase()),
    }
}

fn detector(mode: &LocalMode, cidr: &str, bridge: String, prefix: String) -> anyhow::Result<Detector> {
    Ok(match mode {
        LocalMode::ClusterCidr => {
            Detector::ClusterNetworks(one_of_each(&networks(cidr.split(','), "cluster-cidr")?))
        }
        LocalMode::NodeCidr => Detector::NodeNetworks,
        LocalMode::BridgeInterface if bridge.is_empty() => {
            bail!("detect-local-mode BridgeInterface needs the bridge's name: say pod-bridge-interface")
        }
        LocalMode::InterfaceNamePrefix if prefix.is_empty() => {
            bail!("detect-local-mode InterfaceNamePrefix needs a name: say pod-interface-name-prefix")
        }
        LocalMode::BridgeInterface => Detector::Bridge(bridge),
        LocalMode::InterfaceNamePrefix => Detector::Prefix(prefix),
    })
}

/// The first of each family; kube-proxy looks at no other.
pub(crate) fn one_of_each(networks: &[IpNet]) -> Vec<IpNet> {
    let first = |v4: bool| networks.iter().find(move |network| network.addr().is_ipv4() == v4).copied();
    [first(true), first(false)].into_iter().flatten().collect()
}

fn networks<'a>(texts: impl Iterator<Item = &'a str>, name: &str) -> anyhow::Result<Vec<IpNet>> {
    let network = |text: &str| {
        let network: Result<IpNet, _> = text.trim().parse();
        network
            .map(|network| network.trunc())
            .map_err(|_| anyhow!("in {name}: {text:?} is no network: write 10.0.0.0/8"))
    };
    texts.filter(|text| !text.trim().is_empty()).map(network).collect()
}

fn node_ports(given: &[String]) -> anyhow::Result<NodePorts> {
    let given: Vec<&str> = given.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    match given.as_slice() {
        [] | ["primary"] => Ok(NodePorts::Primary),
        many if many.contains(&"primary") => {
            bail!("in nodeport-addresses: primary cannot be beside networks: say one or the other")
        }
        many => Ok(NodePorts::Networks(networks(many.iter().copied(), "nodeport-addresses")?)),
    }
}

fn gates(given: &[String]) -> anyhow::Result<BTreeMap<String, bool>> {
    let gate = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        let value = value
            .parse()
            .map_err(|_| anyhow!("in feature-gates: {text:?}: write NAME=true or NAME=false"))?;
        Ok((name.to_owned(), value))
    };
    given.iter().filter(|text| !text.is_empty()).map(gate).collect()
}
