//! `portolan relay` that learns of Services from an API server: node ports on sockets, which follow the cluster.

use std::{net::SocketAddr, time::Duration};

use portolan_testkit::{Background, eventually_ok, need_root};
use portolan_tests::proxy::{
    program::get,
    service::{Protocol, Service, Target},
    stage::{PATIENCE, Stage},
    world::{FAMILIES, Family, Place, node_address},
};
use serde_json::json;

const OUTSIDE: Place = Place::Outside(1);
const NODE: Place = Place::Node(1);

fn relay(stage: &Stage, more: &[&str]) -> Background {
    let program = portolan_testkit::binary().to_string_lossy().into_owned();
    let mut command = stage.world.at(NODE).command(&program);
    command.args(["relay", "--node-name", "node1", "--metrics-listen", "127.0.0.1:9090", "--kubeconfig"]);
    Background::start(command.arg(stage.api.kubeconfig()).args(more))
}

fn page(stage: &Stage, path: &str) -> (u16, String) {
    let at = SocketAddr::from(([127, 0, 0, 1], 9090));
    get(&stage.world, NODE, at, path).unwrap_or_else(|error| (0, error))
}

fn at(service: &Service, family: Family, protocol: Protocol) -> Target {
    service.at_node(node_address(1, family), protocol)
}

#[test]
fn node_ports_of_a_cluster_are_served_on_sockets_and_follow_it() {
    need_root!();
    let (tcp, udp) = (Protocol::Tcp, Protocol::Udp);
    let Some(stage) = Stage::new("relay") else { return };
    let open = Service::bare(&FAMILIES).port(tcp, 80, 8080).port(udp, 80, 8080).node_ports();
    let open = open.at(&["1a", "2a"]);
    let local = Service::new(Family::V4, tcp).node_ports().external_local().at(&["1a", "2a"]);
    let remote = Service::new(Family::V4, tcp).node_ports().external_local().at(&["2a"]);
    let all = [&open, &local, &remote];
    all.into_iter().for_each(|service| service.create(&stage.api));
    let mut relay = relay(&stage, &[]);
    // Backends see an address of the node: a relay is their client.
    for family in FAMILIES {
        for protocol in [tcp, udp] {
            stage.expect(OUTSIDE, at(&open, family, protocol), "1a 2a +m");
        }
    }
    stage.expect(OUTSIDE, at(&local, Family::V4, tcp), "1a +m");
    stage.expect(OUTSIDE, at(&remote, Family::V4, tcp), "refused");
    assert_eq!(page(&stage, "/healthz").0, 200);
    let metrics = page(&stage, "/metrics").1;
    let port = open.node_port();
    let name = format!("service=\"proxy/{}:tcp-80\",listen=\"0.0.0.0:{port}\",protocol=\"tcp\"", open.name());
    for line in ["portolan_relay_synced 1", &format!("portolan_relay_open{{{name}}} 0"), "# EOF"] {
        assert!(metrics.lines().any(|known| known == line), "{line}:\n{metrics}");
    }
    let opened = format!("portolan_relay_opened_total{{{name}}} ");
    let opened = metrics.lines().find_map(|line| line.strip_prefix(&opened)?.parse::<u64>().ok());
    assert!(opened.is_some_and(|count| count >= 23), "{metrics}");

    open.move_to(&stage.api, &["2a"]);
    stage.expect(OUTSIDE, at(&open, Family::V6, udp), "2a +m");
    stage.expect(OUTSIDE, at(&open, Family::V4, tcp), "2a +m");
    // What is another proxy's is not ours, and may become ours again.
    let label = |value: serde_json::Value| json!({"metadata": {"labels": {"service.kubernetes.io/service-proxy-name": value}}});
    stage.api.patch(&local.path(), &label("other".into()));
    stage.expect(OUTSIDE, at(&local, Family::V4, tcp), "refused");
    stage.api.patch(&local.path(), &label(serde_json::Value::Null));
    stage.expect(OUTSIDE, at(&local, Family::V4, tcp), "1a +m");

    // Without an API server what was known holds.
    stage.api.cluster().stop_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    stage.expect(OUTSIDE, at(&open, Family::V4, tcp), "2a +m");
    stage.api.cluster().start_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    open.move_to(&stage.api, &["1b"]);
    stage.expect(OUTSIDE, at(&open, Family::V4, tcp), "1b +m");
    stage.api.delete(&open.path());
    stage.expect(OUTSIDE, at(&open, Family::V4, tcp), "refused");
    relay.signal(rustix::process::Signal::TERM);
    assert!(relay.wait(PATIENCE).success(), "{}", relay.transcript());
}

#[test]
fn only_services_that_name_the_relay_are_its_own_and_nothing_is_served_before_all_is_known() {
    need_root!();
    let Some(stage) = Stage::new("relays") else { return };
    let mine = Service::new(Family::V4, Protocol::Tcp).node_ports();
    let mine = mine.label("service.kubernetes.io/service-proxy-name", "relay").at(&["1a"]);
    let others = Service::new(Family::V4, Protocol::Tcp).node_ports().at(&["1a"]);
    [&mine, &others].into_iter().for_each(|service| service.create(&stage.api));
    stage.api.cluster().stop_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    let elsewhere = format!("proxy/{}=0.0.0.0:8080", mine.name());
    let mut relay = relay(&stage, &["--service-proxy-name=relay", "--listen", &elsewhere]);
    let waits = eventually_ok(PATIENCE, || match page(&stage, "/healthz") {
        (503, text) if text.contains("not known yet") => Ok(()),
        other => Err(other),
    });
    assert_eq!(waits, Ok(()), "{}", relay.transcript());
    stage.expect(OUTSIDE, at(&mine, Family::V4, Protocol::Tcp), "refused");
    stage.api.cluster().start_apiserver().unwrap_or_else(|error| panic!("{error:#}"));
    stage.expect(OUTSIDE, at(&mine, Family::V4, Protocol::Tcp), "1a +m");
    let elsewhere = SocketAddr::new(node_address(1, Family::V4), 8080);
    stage.expect(OUTSIDE, Target { protocol: Protocol::Tcp, address: elsewhere }, "1a +m");
    stage.expect_within(Duration::from_secs(20), OUTSIDE, at(&others, Family::V4, Protocol::Tcp), "refused");
    relay.signal(rustix::process::Signal::TERM);
    assert!(relay.wait(PATIENCE).success(), "{}", relay.transcript());
}
