//! What `portolan proxy` tells those who ask over HTTP: kube-proxy's metrics, that move when something happens, and the
//! pages beside them; and what it leaves behind when it is to leave nothing.

use std::{collections::BTreeMap, net::UdpSocket, time::Duration};

use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::{
    proxy::{
        api::SERVICES,
        probe::udp_by,
        program::{Program, Running},
        service::{Protocol, Service},
        stage::{PATIENCE, Stage},
        world::{Family, Place, node_address},
    },
    world::json,
};
use serde_json::json as object;

const POD: Place = Place::Pod(1, 'c');
const TABLE: &str = "table inet portolan-services";

/// Every metric of kube-proxy 1.36 (`pkg/proxy/metrics/metrics.go`) that its nftables mode has, as samples of it are
/// called, and whether what the test does makes it grow.
const METRICS: [(&str, bool); 17] = [
    ("kubeproxy_sync_proxy_rules_duration_seconds_count", true),
    ("kubeproxy_sync_full_proxy_rules_duration_seconds_count", false),
    ("kubeproxy_sync_partial_proxy_rules_duration_seconds_count", true),
    ("kubeproxy_network_programming_duration_seconds_count", true),
    ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", true),
    ("kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", true),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_pending", false),
    ("kubeproxy_sync_proxy_rules_endpoint_changes_total", true),
    ("kubeproxy_sync_proxy_rules_service_changes_pending", false),
    ("kubeproxy_sync_proxy_rules_service_changes_total", true),
    ("kubeproxy_sync_proxy_rules_no_local_endpoints_total", true),
    ("kubeproxy_proxy_healthz_total", true),
    ("kubeproxy_proxy_livez_total", true),
    ("kubeproxy_conntrack_reconciler_sync_duration_seconds_count", true),
    ("kubeproxy_conntrack_reconciler_deleted_entries_total", true),
    ("kubeproxy_sync_proxy_rules_nftables_sync_failures_total", false),
    ("kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total", false),
];

/// The samples of a page, those with different labels added up.
fn samples(stage: &Stage, proxy: &Running) -> BTreeMap<String, f64> {
    let (status, page) = proxy.metrics(&stage.world, "/metrics").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(status, 200, "{page}");
    let mut samples = BTreeMap::new();
    for line in body(&page).lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let name = name.split('{').next().unwrap_or_default();
        *samples.entry(name.to_owned()).or_insert(0.0) += value.parse::<f64>().unwrap_or(0.0);
    }
    samples
}

fn body(page: &str) -> &str {
    page.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

#[test]
fn metrics_of_kube_proxy_are_there_by_name_and_move_with_what_happens() {
    need_root!();
    let Some(stage) = Stage::new("metrics") else { return };
    let udp = Service::new(Family::V4, Protocol::Udp).at(&["1a"]);
    let local = Service::new(Family::V4, Protocol::Tcp).node_ports().external_local().internal_local();
    let local = local.at(&["1a"]);
    [&udp, &local].into_iter().for_each(|service| service.create(&stage.api));
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let proxy = &proxies[0];
    // One who talks to an endpoint that will be gone.
    let target = udp.cluster(Family::V4, Protocol::Udp);
    let socket = stage.world.at(POD).run(|| UdpSocket::bind((POD.address(Family::V4), 0)));
    let socket = socket.unwrap_or_else(|error| panic!("{error}"));
    let answer = eventually_ok(PATIENCE, || udp_by(&socket, target.address));
    assert!(answer.is_ok(), "{answer:?}");
    let before = samples(&stage, proxy);
    let missing: Vec<&str> =
        METRICS.iter().map(|(name, _)| *name).filter(|name| !before.contains_key(*name)).collect();
    // Those with a label for what has happened begin when it has.
    assert!(missing.iter().all(|name| before_anything(name)), "{missing:?} of {before:#?}");
    assert!(before["kubeproxy_sync_full_proxy_rules_duration_seconds_count"] >= 1.0, "{before:#?}");

    let now = jiff_now(&stage);
    for path in [udp.slice_path(0), local.slice_path(0)] {
        let trigger = object!({"endpoints.kubernetes.io/last-change-trigger-time": now});
        stage.api.patch(&path, &object!({"metadata": {"annotations": trigger}}));
    }
    udp.move_to(&stage.api, &["2a"]);
    local.move_to(&stage.api, &["2a"]);
    stage.api.patch(&local.path(), &object!({"spec": {"sessionAffinity": "ClientIP"}}));
    for path in ["/healthz", "/livez"] {
        let answer = proxy.health(&stage.world, path);
        assert!(matches!(answer, Ok((200, _))), "{answer:?}");
    }
    let moved = eventually_ok(PATIENCE, || {
        let after = samples(&stage, proxy);
        let of = |all: &BTreeMap<String, f64>, name: &str| all.get(name).copied().unwrap_or(-1.0);
        let still: Vec<&str> = METRICS
            .iter()
            .filter(|(name, moves)| of(&after, name) < 0.0 || *moves && of(&after, name) <= of(&before, name))
            .map(|(name, _)| *name)
            .collect();
        if still.is_empty() { Ok(()) } else { Err((still, after)) }
    });
    assert_eq!(moved.map_err(|(still, _)| still), Ok(()));
    let after = samples(&stage, proxy);
    for name in ["endpoint_changes_pending", "service_changes_pending", "nftables_sync_failures_total"] {
        assert_eq!(after[&format!("kubeproxy_sync_proxy_rules_{name}")], 0.0, "{name}");
    }
}

/// Of these kube-proxy has no sample either before the first one.
fn before_anything(name: &str) -> bool {
    ["healthz_total", "livez_total", "network_programming", "conntrack_reconciler_sync", "partial", "queued"]
        .iter()
        .any(|part| name.contains(part))
}

/// The machine's time, as the slice controller writes it.
fn jiff_now(stage: &Stage) -> String {
    stage.on_node(1, "date", &["-u", "+%Y-%m-%dT%H:%M:%S.%NZ"]).trim().to_owned()
}

#[test]
fn every_page_of_kube_proxy_says_what_kube_proxys_says() {
    need_root!();
    let Some(stage) = Stage::new("pages") else { return };
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let proxy = &proxies[0];
    let page = |path: &str| match proxy.metrics(&stage.world, path) {
        Ok((200, page)) => body(&page).to_owned(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(page("/healthz"), "ok");
    assert_eq!(page("/proxyMode"), "nftables");
    let config = json(&page("/configz"));
    let config = &config["kubeproxy.config.k8s.io"];
    assert_eq!(config["kind"], "KubeProxyConfiguration", "{config:#}");
    assert_eq!(config["mode"], "nftables", "{config:#}");
    assert_eq!(config["hostnameOverride"], "node1", "{config:#}");
    assert_eq!(config["conntrack"]["tcpBeLiberal"], true, "{config:#}");
    assert!(config["clusterCIDR"].as_str().is_some_and(|text| text.contains("10.244.0.0/16")), "{config:#}");
    let status = page("/statusz");
    for part in
        ["kube-proxy statusz", "Started: ", "Up: ", "Binary version: ", "Paths: ", "/configz", "/metrics"]
    {
        assert!(status.contains(part), "{part}: {status}");
    }
    let flags = page("/flagz");
    for part in ["kube-proxy flagz", "cluster-cidr=10.244.0.0/16", "hostname-override=node1"] {
        assert!(flags.contains(part), "{part}: {flags}");
    }
    let slis = page("/metrics/slis");
    assert!(slis.contains("kubernetes_healthcheck{name=\"service-proxy\",type=\"healthz\"} 1"), "{slis}");
    // What load balancers and kubelet read.
    for (path, eligible) in [("/healthz", true), ("/livez", false)] {
        let (status, page) = proxy.health(&stage.world, path).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status, 200, "{page}");
        let answer = json(body(&page));
        assert_eq!(answer["healthy"], true, "{answer:#}");
        assert_eq!(answer["nodeEligible"] == true, eligible, "{path}: {answer:#}");
        for field in ["lastUpdated", "currentTime"] {
            let time = answer[field].as_str().unwrap_or_default();
            assert!(time.starts_with("20"), "{field} of {answer:#}");
        }
        for family in ["IPv4", "IPv6"] {
            assert_eq!(answer["status"][family]["healthy"], true, "{answer:#}");
        }
    }
}

#[test]
fn a_clean_up_leaves_nothing_whoever_ends_how_and_can_be_had_twice() {
    need_root!();
    let Some(stage) = Stage::new("cleanup") else { return };
    let service = Service::new(Family::V4, Protocol::Tcp).balancer().affinity(600).at(&["1a", "2a"]);
    service.create(&stage.api);
    let theirs = "table inet theirs { chain forward { type filter hook forward priority 5; }; }";
    stage.on_node(1, "nft", &[theirs]);
    let before = stage.on_node(1, "nft", &["list", "ruleset"]);
    let mut proxies = vec![stage.start(Program::Portolan, 1, &[])];
    stage.fence(&mut proxies);
    let target = service.at_node(node_address(1, Family::V4), Protocol::Tcp);
    stage.answered_within(PATIENCE, Place::Outside(1), target);
    // While a proxy runs it would write its rules again.
    let said = clean_up(&stage);
    assert!(said.0 != 0 && said.1.contains("a proxy runs") && rules(&stage).contains(TABLE), "{said:?}");

    proxies[0].process.signal(rustix::process::Signal::KILL);
    proxies[0].process.wait(PATIENCE);
    assert!(rules(&stage).contains(TABLE), "the rules stay for the next proxy");
    let (code, said) = clean_up(&stage);
    assert!(code == 0 && said.contains("removed the table inet portolan-services"), "{said}");
    assert_eq!(rules(&stage), before, "something is left, or something of others is gone");
    let (code, said) = clean_up(&stage);
    assert!(code == 0 && said.contains("there is no table inet portolan-services"), "{said}");
    assert_eq!(rules(&stage), before);
    // And the next one serves again.
    proxies[0] = stage.start(Program::Portolan, 1, &[]);
    stage.answered_within(PATIENCE, Place::Outside(1), target);
    assert!(stage.api.try_send("GET", SERVICES, None).is_ok());
}

fn rules(stage: &Stage) -> String {
    stage.on_node(1, "nft", &["list", "ruleset"])
}

fn clean_up(stage: &Stage) -> (i32, String) {
    let mut proxy = stage.start(Program::Portolan, 1, &["--cleanup"]);
    let status = proxy.process.wait(Duration::from_secs(60));
    (status.code().unwrap_or(-1), proxy.process.transcript())
}
