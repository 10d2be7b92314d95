//! The service proxy on real nodes: by its chart in kube-proxy's place, from kube-proxy and back, and by its flags.
//!
//! Whoever served the cluster's Services before these tests serves them again after each.
#![allow(unreachable_pub, reason = "modules of a test")]

mod echo;
mod release;
mod vacancy;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    time::Duration,
};

use echo::Echo;
use portolan_cluster::{Node, POD_NETWORKS, need_cluster};
use portolan_testkit::{ask, eventually, eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Line, Space, client, found, load_image, on, say};
use release::Release;
use serde_json::json;
use vacancy::{Vacancy, install, stop};

const SOON: Duration = Duration::from_secs(60);
/// Of `portolan proxy` and kube-proxy alike.
const HEALTH: u16 = 10256;
const METRICS: u16 = 10249;
/// kube-proxy's own settings, which every node of a cluster has.
const SETTINGS: &str = "/etc/kubernetes/kube-proxy.yaml";
/// Scripts that say what the proxy has left on a node.
const PLACES: [&str; 4] = [
    "nft list tables | grep portolan",
    "pgrep -fa '[p]ortolan proxy'",
    "find /run/portolan -mindepth 1 2>/dev/null",
    "grep -l portolan /etc/cni/net.d/* 2>/dev/null",
];

#[test]
fn a_release_serves_the_services_through_an_upgrade_and_leaves_nothing() {
    need_root!();
    let cluster = need_cluster!();
    let vacancy = Vacancy::new(cluster);
    vacancy.clear();
    load_image(cluster);
    let space = Space::without_ports(cluster, "proxy-chart");
    let release = Release::install(cluster, &[]);
    let echo = Echo::start(&space);
    let mut line = echo.outside();
    for node in cluster.nodes() {
        let healthy = on(&node, || ask::http_get(loopback(HEALTH), "/healthz"));
        assert!(healthy.is_ok(), "{}: {healthy:?}", node.name());
        let metrics = on(&node, || ask::http_get(loopback(METRICS), "/metrics")).unwrap_or_default();
        assert!(metrics.contains("kubeproxy_sync_proxy_rules_duration_seconds_count"), "{metrics}");
    }
    let service = format!("{}/echo", space.name());
    let words = ["-n", "portolan", "exec", "daemonset/portolan-proxy", "--", "portolan", "proxy", "status"];
    let told = cluster.run_kubectl(&[&words[..], &[service.as_str()]].concat());
    assert!(told.as_ref().is_ok_and(|told| told.contains(" yes ")), "{told:?}");

    // Other values change the rules themselves, and one proxy after the other is replaced.
    let failed = echo.while_asked(|| {
        release.upgrade(&["--set", "proxy.counting=connections,log.level=debug"]);
        line.says("upgraded");
    });
    assert_eq!(failed, [""; 0]);
    let counted = on(&cluster.node(1), || {
        TcpStream::connect_timeout(&echo.cluster_address(), Duration::from_secs(2))?;
        ask::http_get(loopback(METRICS), "/metrics/services")
    });
    assert!(counted.as_ref().is_ok_and(|text| text.contains(&service_labels(&space))), "{counted:?}");

    release.uninstall();
    for node in cluster.nodes() {
        eventually(SOON, || found(&node, &PLACES).is_empty());
    }
    let kinds = "all,serviceaccounts,roles,rolebindings,leases,configmaps,secrets";
    let label = "app.kubernetes.io/component=proxy";
    let left = cluster.run_kubectl(&["-n", "portolan", "get", kinds, "-l", label, "-o", "name"]);
    assert_eq!(left.ok().as_deref(), Some(""));
    let words = ["get", "clusterroles,clusterrolebindings", "-o", "name"];
    let global = cluster.run_kubectl(&words).unwrap_or_default();
    assert!(!global.contains("portolan"), "{global}");
}

#[test]
fn a_release_takes_over_from_kube_proxy_and_hands_back() {
    need_root!();
    let cluster = need_cluster!();
    let vacancy = Vacancy::new(cluster);
    vacancy.clear();
    vacancy.start_kube_proxy();
    load_image(cluster);
    let space = Space::without_ports(cluster, "proxy-takes-over");
    let echo = Echo::start(&space);
    let (mut outside, mut inside) = (echo.outside(), echo.inside());
    let mut all_say = |word: &str| {
        outside.says(word);
        inside.says(word);
    };
    all_say("by kube-proxy");

    let mut handed_back = None;
    let failed = echo.while_asked(|| {
        // As the manual says: kube-proxy ends and leaves its rules; the chart takes them away when its own are there.
        cluster.nodes().for_each(|node| stop(&node, "kube-proxy"));
        all_say("by the rules that kube-proxy has left");
        let release = Release::install(cluster, &["--set", "proxy.takeOver=true"]);
        for node in cluster.nodes() {
            eventually(SOON, || tables(&node).contains("portolan-services"));
            eventually(SOON, || !tables(&node).contains("kube-proxy"));
        }
        all_say("taken over");

        vacancy.start_kube_proxy();
        release.uninstall();
        for node in cluster.nodes() {
            eventually(SOON, || !tables(&node).contains("portolan"));
        }
        all_say("handed back");
        handed_back = Some(());
    });
    assert_eq!(handed_back, Some(()));
    assert_eq!(failed, [""; 0]);
    for node in cluster.nodes() {
        // It could not have the port while ours had it, and tries again every five seconds.
        let healthy = eventually_ok(SOON, || on(&node, || ask::http_get(loopback(HEALTH), "/healthz")));
        assert!(healthy.is_ok(), "{}: {healthy:?}", node.name());
    }
}

#[test]
fn node_ports_answer_on_both_loopbacks_of_each_node_when_asked_to() {
    need_root!();
    let cluster = need_cluster!();
    let vacancy = Vacancy::new(cluster);
    vacancy.clear();
    // The API server that the configuration names is not the one that answers: that is said by --master.
    let wrong =
        "sed s,https://10.240.0.2:,https://10.240.0.2:1, /etc/kubernetes/kube-proxy.kubeconfig >/run/wrong";
    for node in cluster.nodes() {
        node.run(["sh", "-c", wrong]).unwrap_or_else(|error| panic!("{error:#}"));
    }
    let master = format!("--master={}", cluster.inside_server());
    let networks = format!("--cluster-cidr={}", POD_NETWORKS.join(","));
    vacancy.start_ours(&["--kubeconfig=/run/wrong", &master, &networks, "--nodeport-localhost"]);

    let space = Space::without_ports(cluster, "proxy-loopback");
    let script = "socat UDP6-RECVFROM:7000,ipv6only=0,fork EXEC:cat & exec socat TCP6-LISTEN:7000,ipv6only=0,fork,reuseaddr EXEC:cat";
    Asking::script("echo", "", script).silent().on(&cluster.node(2)).start(&space);
    space.create(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "echo"},
        "spec": {"type": "NodePort", "selector": {"app": "echo"}, "ipFamilyPolicy": "RequireDualStack", "ports": [
            {"name": "tcp", "protocol": "TCP", "port": 7000, "nodePort": 30070},
            {"name": "udp", "protocol": "UDP", "port": 7000, "nodePort": 30070}]}}));
    for node in cluster.nodes() {
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let server = SocketAddr::new(address, 30070);
            let tcp = eventually_ok(SOON, || on(&node, || Line::to(server)?.ask("tcp")));
            assert!(tcp.is_ok(), "{} {server}: {tcp:?}", node.name());
            let udp = eventually_ok(SOON, || on(&node, || ask::udp(server)));
            assert_eq!(udp.as_deref().ok(), Some("who are you?"), "{} {server}: {udp:?}", node.name());
        }
        // Nobody from elsewhere reaches these sockets, and the node's own addresses are served by its rules as ever.
        for address in [IpAddr::from(node.address()), node.address_v6().into()] {
            let server = SocketAddr::new(address, 30070);
            let outside = eventually_ok(SOON, || client(cluster).run(|| Line::to(server)?.ask("outside")));
            assert!(outside.is_ok(), "{server}: {outside:?}");
        }
    }

    // The rules stay when it ends, the sockets do not.
    let node = cluster.node(1);
    stop(&node, "portolan-proxy");
    assert!(on(&node, || Line::to(loopback(30070))).is_err());
    assert!(tables(&node).contains("inet portolan-services"), "{}", tables(&node));
    let said = say(&node, "portolan proxy --cleanup");
    assert!(said.contains("removed the table inet portolan-services"), "{said}");
    assert!(!tables(&node).contains("portolan"), "{}", tables(&node));
    let said = say(&node, "portolan proxy --cleanup");
    assert!(said.contains("there is no table inet portolan-services"), "{said}");
}

#[test]
fn init_only_makes_the_settings_of_the_kernel_and_no_rules() {
    need_root!();
    let cluster = need_cluster!();
    let vacancy = Vacancy::new(cluster);
    vacancy.clear();
    let node = cluster.node(1);
    install(&node);
    let settings =
        [("tcp_timeout_close_wait", "3600"), ("tcp_timeout_established", "86400"), ("tcp_be_liberal", "1")];
    let path = |name: &str| format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
    let before: Vec<String> =
        settings.iter().map(|(name, _)| say(&node, &format!("cat {}", path(name)))).collect();
    for (name, _) in settings {
        say(&node, &format!("echo {} >{}", if name == "tcp_be_liberal" { 0 } else { 77 }, path(name)));
    }
    // kube-proxy's file says that nf_conntrack_max, which is the whole machine's, stays as it is.
    say(&node, &format!("timeout 20 portolan proxy --config={SETTINGS} --init-only"));
    for ((name, wanted), before) in settings.iter().zip(before) {
        let now = say(&node, &format!("cat {}", path(name)));
        say(&node, &format!("echo {before} >{}", path(name)));
        assert_eq!(now.trim(), *wanted, "{name}");
    }
    assert!(!tables(&node).contains("portolan-services"), "{}", tables(&node));
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn service_labels(space: &Space) -> String {
    format!("namespace=\"{}\"", space.name())
}

fn tables(node: &Node<'_>) -> String {
    say(node, "nft list tables")
}
