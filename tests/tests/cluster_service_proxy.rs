//! The service proxy on real nodes: by its chart in kube-proxy's place, from kube-proxy and back, and by its flags.
//!
//! Whoever served the cluster's Services before these tests serves them again after each.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use portolan_cluster::{Cluster, Node, POD_NETWORKS, need_cluster};
use portolan_testkit::{ask, binary, eventually, eventually_ok, need_root, net::Namespace};
use portolan_tests::cluster::{Asking, Chart, Space, load_image};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);
/// Of `portolan proxy` and kube-proxy alike.
const HEALTH: u16 = 10256;
const METRICS: u16 = 10249;
/// kube-proxy's own settings, which every node of a cluster has.
const SETTINGS: &str = "/etc/kubernetes/kube-proxy.yaml";

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
        eventually(SOON, || remains(&node).is_empty());
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
    let said = run(&node, "portolan proxy --cleanup");
    assert!(said.contains("removed the table inet portolan-services"), "{said}");
    assert!(!tables(&node).contains("portolan"), "{}", tables(&node));
    let said = run(&node, "portolan proxy --cleanup");
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
        settings.iter().map(|(name, _)| run(&node, &format!("cat {}", path(name)))).collect();
    for (name, _) in settings {
        run(&node, &format!("echo {} >{}", if name == "tcp_be_liberal" { 0 } else { 77 }, path(name)));
    }
    // kube-proxy's file says that nf_conntrack_max, which is the whole machine's, stays as it is.
    run(&node, &format!("timeout 20 portolan proxy --config={SETTINGS} --init-only"));
    for ((name, wanted), before) in settings.iter().zip(before) {
        let now = run(&node, &format!("cat {}", path(name)));
        run(&node, &format!("echo {before} >{}", path(name)));
        assert_eq!(now.trim(), *wanted, "{name}");
    }
    assert!(!tables(&node).contains("portolan-services"), "{}", tables(&node));
}

/// Nobody serves the cluster's Services. When dropped, whoever did before does again.
struct Vacancy {
    cluster: &'static Cluster,
    /// One test at a time.
    _turn: MutexGuard<'static, ()>,
}

impl Vacancy {
    fn new(cluster: &'static Cluster) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { cluster, _turn: turn }
    }

    /// Ends whoever serves, and takes the rules away.
    fn clear(&self) {
        for node in self.cluster.nodes() {
            stop(&node, "kube-proxy");
            stop(&node, "portolan-proxy");
            for table in ["inet portolan-services", "ip kube-proxy", "ip6 kube-proxy"] {
                let _ = node.exec(["sh", "-c", &format!("nft delete table {table}")]);
            }
            let _ = node.exec(["rm", "-f", "/run/portolan/proxy.sock"]);
        }
    }

    fn start_kube_proxy(&self) {
        for node in self.cluster.nodes() {
            start(&node, "kube-proxy", &["kube-proxy", &format!("--config={SETTINGS}")]);
        }
        for node in self.cluster.nodes() {
            eventually(SOON, || tables(&node).contains("ip6 kube-proxy"));
        }
    }

    fn start_ours(&self, flags: &[&str]) {
        for node in self.cluster.nodes() {
            install(&node);
            start(&node, "portolan-proxy", &[&["portolan", "proxy"][..], flags].concat());
        }
        for node in self.cluster.nodes() {
            let healthy = eventually_ok(SOON, || on(&node, || ask::http_get(loopback(HEALTH), "/healthz")));
            assert!(healthy.is_ok(), "{}: {healthy:?}", node.name());
        }
    }
}

impl Drop for Vacancy {
    fn drop(&mut self) {
        self.clear();
        // A panic in here would hide the one that is being told.
        for node in self.cluster.nodes() {
            let settings = format!("--config={SETTINGS}");
            let _ = match self.cluster.options().proxy {
                Some(_) => node.start("kube-proxy", &["kube-proxy", &settings]),
                None => node.start("portolan-proxy", &["portolan", "proxy", &settings]),
            };
        }
    }
}

/// The chart with the proxy in kube-proxy's place. Uninstalled when dropped.
struct Release {
    cluster: &'static Cluster,
    chart: Chart,
}

impl Release {
    #[track_caller]
    fn install(cluster: &'static Cluster, more: &[&str]) -> Self {
        let Some(chart) = Chart::new(Some(cluster)) else {
            panic!("helm is not built: `cargo xtask cluster build helm` does it")
        };
        let release = Self { cluster, chart };
        release.upgrade(&[&["--install", "--create-namespace"], more].concat());
        release
    }

    #[track_caller]
    fn upgrade(&self, more: &[&str]) {
        let values = format!(
            "proxy.enabled=true,proxy.apiServer={},proxy.clusterCIDR={}",
            self.cluster.inside_server(),
            POD_NETWORKS.join("\\,")
        );
        let words = ["upgrade", "portolan", "CHART", "--namespace", "portolan", "--set", &values];
        self.chart.run(&[&words[..], more].concat());
        for what in ["daemonset/portolan-proxy", "daemonset/portolan-agent"] {
            if let Err(error) = self.cluster.wait_for_rollout("portolan", what, SOON * 2) {
                let told =
                    self.cluster.run_kubectl(&["-n", "portolan", "describe", "pods"]).unwrap_or_default();
                let logs = ["-n", "portolan", "logs", what, "--all-pods", "--tail=30"];
                panic!("{error:#}\n{told}\n{}", self.cluster.run_kubectl(&logs).unwrap_or_default());
            }
        }
    }

    #[track_caller]
    fn uninstall(self) {
        self.chart.run(&["uninstall", "portolan", "--namespace", "portolan", "--timeout", "3m"]);
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        let words =
            ["uninstall", "portolan", "--namespace", "portolan", "--timeout", "3m", "--ignore-not-found"];
        let _ = self.chart.command(&words).output();
    }
}

/// A Pod on the second node that gives back what it is given, behind a Service with a node port.
struct Echo {
    cluster: &'static Cluster,
    address: IpAddr,
    node_port: u16,
}

impl Echo {
    #[track_caller]
    fn start(space: &Space) -> Self {
        let script = "exec socat TCP-LISTEN:7000,fork,reuseaddr,backlog=128 EXEC:cat";
        Asking::script("echo", "", script).silent().on(&space.cluster().node(2)).start(space);
        space.kubectl(&["expose", "pod", "echo", "--type=NodePort", "--port=80", "--target-port=7000"]);
        let spec = space.get("service/echo")["spec"].clone();
        let address = spec["clusterIP"].as_str().and_then(|address| address.parse().ok());
        let node_port = spec["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let (Some(address), Some(node_port)) = (address, node_port) else { panic!("{spec}") };
        Self { cluster: space.cluster(), address, node_port }
    }

    fn cluster_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, 80)
    }

    /// A connection from outside to the node port of the node where the Pod is not.
    #[track_caller]
    fn outside(&self) -> Line {
        let server = SocketAddr::new(self.cluster.node(1).address().into(), self.node_port);
        Line::soon(|| client(self.cluster).run(|| Line::to(server)))
    }

    /// A connection from a node to the cluster address.
    #[track_caller]
    fn inside(&self) -> Line {
        Line::soon(|| on(&self.cluster.node(1), || Line::to(self.cluster_address())))
    }

    /// New connections all the time while `work` is done: why some failed.
    fn while_asked(&self, work: impl FnOnce()) -> Vec<String> {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = SocketAddr::new(self.cluster.node(1).address().into(), self.node_port);
            let askers =
                [(client(self.cluster), server), (of(&self.cluster.node(1)), self.cluster_address())];
            let askers = askers.map(|(namespace, server)| {
                let ended = &ended;
                scope.spawn(move || asked_until(ended, &namespace, server))
            });
            // Also when it panics: the others would never end.
            let _ending = Ending(&ended);
            work();
            drop(_ending);
            askers.into_iter().flat_map(|asker| asker.join().unwrap_or_default()).collect()
        })
    }
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn asked_until(ended: &AtomicBool, namespace: &Namespace, server: SocketAddr) -> Vec<String> {
    let (mut tries, mut failed) = (0, Vec::new());
    while !ended.load(Ordering::Relaxed) {
        tries += 1;
        if let Err(error) = namespace.run(|| Line::to(server)?.ask("anew")) {
            failed.push(format!("try {tries} of {server}: {error}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if tries < 20 {
        failed.push(format!("{server} was asked {tries} times only"));
    }
    failed
}

/// A connection that is kept.
struct Line(TcpStream);

impl Line {
    fn to(server: SocketAddr) -> std::io::Result<Self> {
        TcpStream::connect_timeout(&server, Duration::from_secs(5)).map(Self)
    }

    #[track_caller]
    fn soon(open: impl Fn() -> std::io::Result<Self>) -> Self {
        let opened = eventually_ok(SOON, || {
            let mut line = open().map_err(|error| error.to_string())?;
            line.ask("hello").map_err(|error| error.to_string()).map(|()| line)
        });
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    fn ask(&mut self, word: &str) -> std::io::Result<()> {
        self.0.write_all(format!("{word}\n").as_bytes())?;
        let answer = ask::first_line(&self.0, Duration::from_secs(5))?;
        if answer == word {
            Ok(())
        } else {
            Err(std::io::Error::other(format!("{word:?} came back as {answer:?}")))
        }
    }

    #[track_caller]
    fn says(&mut self, word: &str) {
        if let Err(error) = self.ask(word) {
            panic!("{word}: {error}");
        }
    }
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn service_labels(space: &Space) -> String {
    format!("namespace=\"{}\"", space.name())
}

fn client(cluster: &Cluster) -> Namespace {
    named(&cluster.network_namespace("client"))
}

fn of(node: &Node<'_>) -> Namespace {
    named(&node.network_namespace())
}

fn named(file: &std::path::Path) -> Namespace {
    Namespace::existing(file.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

/// In the network of a node.
fn on<T: Send>(node: &Node<'_>, work: impl FnOnce() -> T + Send) -> T {
    of(node).run(work)
}

/// What a script of the shell says on the node, where it must succeed.
#[track_caller]
fn run(node: &Node<'_>, script: &str) -> String {
    node.run(["sh", "-c", script]).unwrap_or_else(|error| panic!("{script}: {error:#}"))
}

#[track_caller]
fn install(node: &Node<'_>) {
    node.install(binary()).unwrap_or_else(|error| panic!("{error:#}"));
}

#[track_caller]
fn start(node: &Node<'_>, name: &str, words: &[&str]) {
    node.start(name, words).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Kills it, if it runs.
fn stop(node: &Node<'_>, name: &str) {
    // One that was never started is fine.
    let _ = node.stop(name);
}

fn tables(node: &Node<'_>) -> String {
    run(node, "nft list tables")
}

/// What is on a node that nobody but us puts there.
fn remains(node: &Node<'_>) -> Vec<String> {
    let places = [
        "nft list tables | grep portolan",
        "pgrep -fa '[p]ortolan proxy'",
        "find /run/portolan -mindepth 1 2>/dev/null",
        "grep -l portolan /etc/cni/net.d/* 2>/dev/null",
    ];
    let found = |script: &&str| {
        node.exec(["sh", "-c", script]).map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    places.iter().filter_map(|script| found(script).ok()).filter(|said| !said.trim().is_empty()).collect()
}
