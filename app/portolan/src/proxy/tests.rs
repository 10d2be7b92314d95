//! What flags and files say, and what they are told.

use std::time::Duration;

use portolan_cli::{ProxyArgs, Verb, parse_from};

use super::{
    config::{Detector, NodePorts, ProxyConfig},
    file,
};

fn args(line: &str) -> ProxyArgs {
    let words = format!("portolan proxy {line}");
    let words = words.split_whitespace().map(Into::into);
    match parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}")).verb {
        Verb::Proxy(args) => *args,
        other => panic!("{line}: {other:?}"),
    }
}

fn config(line: &str) -> ProxyConfig {
    ProxyConfig::new(&args(line)).unwrap_or_else(|error| panic!("{line}: {error:#}")).0
}

fn refusal(line: &str) -> String {
    match ProxyConfig::new(&args(line)) {
        Ok((config, _)) => panic!("{line}: {config:?}"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn without_flags_it_is_kube_proxy_in_nftables_mode() {
    let config = config("--hostname-override Node-1");
    assert_eq!(config.node, "node-1");
    assert_eq!(config.healthz, Some("0.0.0.0:10256".parse().unwrap()));
    assert_eq!(config.metrics, Some("127.0.0.1:10249".parse().unwrap()));
    assert_eq!(config.node_ports, NodePorts::Primary);
    assert_eq!(config.detector, Detector::ClusterNetworks(Vec::new()));
    assert_eq!((config.masquerade_mark, config.masquerade_all), (0x4000, false));
    assert_eq!((config.conntrack.max_per_core, config.conntrack.min), (32_768, 131_072));
    assert_eq!(config.conntrack.tcp_established, Duration::from_secs(86_400));
    assert_eq!(config.conntrack.tcp_close_wait, Duration::from_secs(3600));
    assert_eq!((config.oom_score, config.sync_period), (-999, Duration::from_secs(30)));
    assert!(config.external_ips && !config.hard_fail && !config.localhost_node_ports);
    assert_eq!((config.proxy_name, config.table.as_str()), (None, "portolan-services"));
}

#[test]
fn a_command_line_of_kube_proxy_is_taken_as_it_is() {
    let config = config(
        "--hostname-override=n --cluster-cidr=10.244.0.0/16,fd00:10:244::/56 --masquerade-all --iptables-masquerade-bit=7 \
         --nodeport-addresses=10.0.0.0/8,fd00::/8 --conntrack-max-per-core=0 --conntrack-tcp-be-liberal=true \
         --conntrack-udp-timeout=30s --conntrack-tcp-timeout-established=1h30m --healthz-bind-address=127.0.0.1:0 \
         --metrics-bind-address= --proxy-mode=nftables --kube-api-qps=50 --config-sync-period=15m -v=2",
    );
    let networks = ["10.244.0.0/16", "fd00:10:244::/56"].map(|network| network.parse().unwrap());
    assert_eq!(config.detector, Detector::ClusterNetworks(networks.to_vec()));
    let node_ports = ["10.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
    assert_eq!(config.node_ports, NodePorts::Networks(node_ports.to_vec()));
    assert_eq!((config.masquerade_mark, config.masquerade_all), (1 << 7, true));
    assert_eq!((config.healthz, config.metrics), (Some("127.0.0.1:0".parse().unwrap()), None));
    assert_eq!((config.conntrack.max_per_core, config.conntrack.tcp_be_liberal), (0, true));
    assert_eq!(config.conntrack.udp, Duration::from_secs(30));
    assert_eq!(config.conntrack.tcp_established, Duration::from_secs(5400));
}

#[test]
fn each_way_to_tell_local_traffic_is_read() {
    for (line, expected) in [
        ("--detect-local-mode NodeCIDR", Detector::NodeNetworks),
        (
            "--detect-local-mode BridgeInterface --pod-bridge-interface cni0",
            Detector::Bridge("cni0".to_owned()),
        ),
        (
            "--detect-local-mode InterfaceNamePrefix --pod-interface-name-prefix veth",
            Detector::Prefix("veth".to_owned()),
        ),
        (
            "--cluster-cidr 10.1.0.0/16,10.2.0.0/16",
            Detector::ClusterNetworks(vec!["10.1.0.0/16".parse().unwrap()]),
        ),
    ] {
        assert_eq!(config(line).detector, expected, "{line}");
    }
}

#[test]
fn an_ipv6_bind_address_moves_the_defaults() {
    let config = config("--bind-address fd00::1");
    assert_eq!(config.healthz, Some("[::]:10256".parse().unwrap()));
    assert_eq!(config.metrics, Some("[::1]:10249".parse().unwrap()));
    assert_eq!(config.bind_address, Some("fd00::1".parse().unwrap()));
    assert_eq!(super::tests::config("--bind-address 0.0.0.0").bind_address, None, "that is nobody's address");
}

#[test]
fn beside_another_proxy_it_has_ports_of_its_own() {
    let config = config("--service-proxy-name portolan");
    assert_eq!(config.proxy_name.as_deref(), Some("portolan"));
    assert_eq!(config.healthz, Some("0.0.0.0:10085".parse().unwrap()));
    assert_eq!(config.metrics, Some("127.0.0.1:10086".parse().unwrap()));
}

#[test]
fn what_is_not_there_is_refused_with_the_reason() {
    for (line, expected) in [
        ("--proxy-mode iptables", "rules are nftables"),
        ("--proxy-mode ipvs", "portolan proxy --cleanup"),
        ("--proxy-mode userspace", "is no proxy mode"),
        ("--ipvs-scheduler rr", "portolan.dev/balance"),
        ("--profiling", "no profile"),
        ("--healthz-port 10256", "--healthz-bind-address"),
        ("--write-config-to x", "/configz"),
        ("--iptables-masquerade-bit 32", "0 to 31"),
        ("--oom-score-adj=-2000", "-1000 to 1000"),
        ("--conntrack-min=-1", "must not be less than 0"),
        ("--nodeport-addresses primary,10.0.0.0/8", "one or the other"),
        ("--nodeport-addresses 10.0.0.1", "is no network"),
        ("--cluster-cidr 10.0.0.0", "is no network"),
        ("--detect-local-mode BridgeInterface", "pod-bridge-interface"),
        ("--detect-local-mode InterfaceNamePrefix", "pod-interface-name-prefix"),
        ("--feature-gates AllowServiceExternalIPs", "NAME=true"),
        ("--config /nonexistent/config.conf", "/nonexistent/config.conf"),
    ] {
        let refusal = refusal(line);
        assert!(refusal.contains(expected), "{line}: {refusal}");
    }
}

#[test]
fn what_changes_nothing_is_told() {
    let (_, told) = ProxyConfig::new(&args(
        "--iptables-min-sync-period 1s --vmodule x=2 --feature-gates AllowServiceExternalIPs=false,Other=true",
    ))
    .unwrap();
    for expected in ["--iptables-min-sync-period", "--vmodule", "feature gate Other"] {
        assert!(told.iter().any(|line| line.contains(expected)), "{expected}: {told:?}");
    }
    assert!(!config("--feature-gates AllowServiceExternalIPs=false").external_ips);
}

/// As kubeadm 1.36 writes it: every field, with the zero value of its type.
const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

fn of_file(text: &str) -> (ProxyConfig, Vec<String>) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let line = format!("--config {} --hostname-override n", file.path().display());
    ProxyConfig::new(&args(&line)).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn the_file_of_kubeadm_is_taken_as_it_is() {
    let (config, told) = of_file(KUBEADM);
    assert_eq!(told, Vec::<String>::new());
    assert_eq!(config.kubeconfig.as_deref(), Some("/var/lib/kube-proxy/kubeconfig.conf".as_ref()));
    assert_eq!(config.detector, Detector::ClusterNetworks(vec!["10.244.0.0/16".parse().unwrap()]));
    let (mut plain, _) =
        of_file("kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n");
    plain.kubeconfig.clone_from(&config.kubeconfig);
    plain.detector = config.detector.clone();
    assert_eq!(config, plain, "everything else is a default");
}

#[test]
fn fields_that_mean_something_are_used() {
    let (config, told) = of_file(
        r#"{"kind": "KubeProxyConfiguration", "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "mode": "nftables",
            "hostnameOverride": "other", "bindAddressHardFail": true, "healthzBindAddress": "10.0.0.1",
            "metricsBindAddress": "0.0.0.0:1234", "nodePortAddresses": ["0.0.0.0/0"], "oomScoreAdj": -5,
            "nftables": {"masqueradeBit": 3, "masqueradeAll": true, "syncPeriod": "10s"},
            "iptables": {"masqueradeBit": 5, "localhostNodePorts": true, "minSyncPeriod": "1s"},
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpBeLiberal": true},
            "featureGates": {"AllowServiceExternalIPs": false}, "logging": {"verbosity": 4},
            "clientConnection": {"qps": 5.5}, "detectLocalMode": "NodeCIDR"}"#,
    );
    assert_eq!(config.node, "n", "the flag for the name wins");
    assert_eq!(config.healthz, Some("10.0.0.1:10256".parse().unwrap()));
    assert_eq!(config.metrics, Some("0.0.0.0:1234".parse().unwrap()));
    assert_eq!(config.node_ports, NodePorts::Networks(vec!["0.0.0.0/0".parse().unwrap()]));
    assert_eq!((config.masquerade_mark, config.masquerade_all), (1 << 3, true));
    assert_eq!((config.sync_period, config.oom_score), (Duration::from_secs(10), -5));
    assert_eq!((config.conntrack.max_per_core, config.conntrack.tcp_established), (0, Duration::ZERO));
    assert!(config.hard_fail && config.localhost_node_ports && !config.external_ips);
    assert_eq!(config.detector, Detector::NodeNetworks);
    for expected in ["minSyncPeriod", "logging", "clientConnection"] {
        assert!(told.iter().any(|line| line.starts_with(expected)), "{expected}: {told:?}");
    }
}

#[test]
fn a_file_that_asks_for_what_is_not_there_is_refused_with_the_reason() {
    let head = "kind: KubeProxyConfiguration\napiVersion: kubeproxy.config.k8s.io/v1alpha1\n";
    for (text, expected) in [
        ("ipvs: {scheduler: rr}", "ipvs: there is no IPVS mode"),
        ("winkernel: {enableDSR: true}", "for Linux"),
        ("enableProfiling: true", "enableProfiling: there is no profile"),
        ("nodePortAddreses: [primary]", "nodePortAddreses"),
        ("conntrack: {udpTimeout: 10}", "write 10s"),
        ("nftables: {syncPeriod: soon}", "is no duration"),
    ] {
        let error = format!("{:#}", file::parse(&format!("{head}{text}\n")).unwrap_err());
        assert!(error.contains(expected), "{text}: {error}");
    }
    let error = format!("{:#}", file::parse("kind: KubeletConfiguration\n").unwrap_err());
    assert!(error.contains("kubeproxy.config.k8s.io/v1alpha1"), "{error}");
}

#[test]
fn a_flag_beside_a_file_is_told() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), KUBEADM).unwrap();
    let line = format!("--config {} --cluster-cidr 10.1.0.0/16 --masquerade-all", file.path().display());
    let (config, told) = ProxyConfig::new(&args(&line)).unwrap();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("--cluster-cidr is ignored") && !config.masquerade_all, "{told:?}");
}

#[test]
fn what_is_in_use_is_described_in_the_words_of_the_file() {
    let config = config("--hostname-override n --cluster-cidr 10.244.0.0/16 --nodeport-addresses 10.0.0.0/8");
    let text = config.describe();
    assert_eq!(text["clusterCIDR"], "10.244.0.0/16");
    assert_eq!(text["nodePortAddresses"][0], "10.0.0.0/8");
    assert_eq!(text["nftables"]["masqueradeBit"], 14);
    let mut text = text;
    text.as_object_mut().unwrap().remove("portolan");
    let (again, _) = of_file(&text.to_string());
    assert_eq!(again, config, "it can be used as a file");
}
