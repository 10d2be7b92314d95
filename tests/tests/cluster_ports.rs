//! Pods that ask for ports get them, are told, and are reached from outside, on a real cluster.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use portolan_cluster::need_cluster;
use portolan_testkit::{ask, eventually, eventually_ok, need_root};
use portolan_tests::cluster::{Asking, Outside, Space, installed, public_address, told};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_pod_that_asks_is_reached_from_outside_and_knows_its_ports() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "asks");
    let outside = Outside::new(cluster, space.name(), "examples");
    let pod = Asking::new("asks", "game/tcp+udp, media/udp:100").start(&space);

    let ports = told(&pod);
    let (game, media) = (&ports[0], &ports[1]);
    assert_eq!((game.name.as_str(), media.name.as_str()), ("game", "media"));
    assert_eq!(media.host.len(), 100);
    let node = public_address(&pod);
    assert_eq!(pod["status"]["hostIP"], node.to_string());

    let page = eventually_ok(SOON, || outside.http(node, *game.host.start(), "/"));
    assert!(page.is_ok_and(|page| page.contains("asks")));
    let echoed = outside.namespace().run(|| ask::udp(SocketAddr::new(node, *game.host.start())));
    assert!(echoed.is_ok(), "{echoed:?}");

    // Another Pod on the other node reaches it at the same address.
    let other =
        cluster.nodes().find(|one| IpAddr::from(one.address()) != node).unwrap_or_else(|| cluster.node(1));
    let script = format!("curl -s --max-time 5 http://{node}:{}/ && exec sleep 1000", game.host.start());
    let asker = Asking::script("asker", "", &script).silent().on(&other).start(&space);
    let name = asker["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    eventually(SOON, || space.kubectl(&["logs", &name]).contains("asks"));
}

#[test]
fn a_container_knows_its_ports_before_it_starts() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "told");
    let script = "env | grep -E '^PORT' | sort; echo; cat /run/portolan/ports.json; echo; \
                  curl -s http://169.254.86.80/v1/self/ports; echo; echo end; exec sleep 1000";
    let pod = Asking::script("told", "http, media/udp:10", script)
        .container_ports(json!([{"name": "http", "containerPort": 8080}]))
        .start(&space);
    let ports = told(&pod);
    eventually(SOON, || space.kubectl(&["logs", "told"]).contains("end"));
    let said = space.kubectl(&["logs", "told"]);
    let node = public_address(&pod);
    let (http, media) = (ports[0].host.start(), &ports[1].host);
    assert_eq!(ports[0].container, 8080, "{ports:?}");
    for line in [
        format!("PORTOLAN_ADDR_HTTP={node}:{http}"),
        format!("PORTOLAN_PORT_MEDIA={}-{}", media.start(), media.end()),
    ] {
        assert!(said.contains(&line), "no {line} in {said}");
    }
    // The file and the node's own answer say the same as the annotation.
    let after: Vec<&str> = said.lines().filter(|line| line.starts_with(['{', '['])).collect();
    assert_eq!(after.len(), 2, "{said}");
    for text in after {
        assert!(text.contains(&format!("\"{http}\"")), "{text} says nothing of {http}");
    }
    assert!(
        space.events("told").iter().any(|event| event.contains(&http.to_string())),
        "{:?}",
        space.events("told")
    );
}

#[test]
fn static_host_ports_are_served_where_portmap_is_not() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::without_ports(cluster, "static");
    let outside = Outside::new(cluster, space.name(), "examples");
    let pod = Asking::script("static", "", "exec socat TCP-LISTEN:8080,fork,reuseaddr SYSTEM:'echo here'")
        .silent()
        .container_ports(json!([{"containerPort": 8080, "hostPort": 18080}]))
        .start(&space);
    let node: IpAddr =
        pod["status"]["hostIP"].as_str().and_then(|ip| ip.parse().ok()).unwrap_or([0, 0, 0, 0].into());
    let hello = || outside.namespace().run(|| ask::tcp(SocketAddr::new(node, 18080)));
    let said = eventually_ok(SOON, || hello().map_err(|error| error.to_string()));
    assert!(said.as_ref().is_ok_and(|said| said.contains("here")), "{said:?}");
    space.kubectl(&["delete", "pod", "static", "--grace-period=1"]);
    eventually(SOON, || hello().is_err());
}

#[test]
fn who_may_not_ask_learns_why() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::without_ports(cluster, "refused");
    let pod = Asking::new("refused", "http");
    space.create(&pod.manifest());
    let events = eventually_ok(SOON, || {
        let events = space.events("refused");
        let ours = events
            .iter()
            .any(|event| event.starts_with("Warning") && event.contains("portolan.dev/ports=allowed"));
        let runtimes = events.iter().any(|event| event.contains("FailedCreatePodSandBox"));
        if ours && runtimes { Ok(()) } else { Err(events) }
    });
    assert!(events.is_ok(), "{events:#?}");
    assert_ne!(space.get("pod/refused")["status"]["phase"], "Running");
    // As soon as it may, it does.
    space.kubectl(&["label", "namespace", space.name(), "portolan.dev/ports=allowed"]);
    space.wait_for_pod("refused");
}

#[test]
fn a_wrong_ask_says_what_to_write() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "wrong");
    // The webhook is asked first: such a Pod does not come to be.
    let refused = space.try_create(&Asking::new("wrong", "http/quic").manifest());
    assert!(
        refused.as_ref().is_err_and(|said| said.contains("\"quic\" is no protocol: use tcp, udp or sctp")),
        "{refused:?}"
    );
}

#[test]
fn a_stateful_pod_that_is_made_anew_keeps_its_number() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "stateful");
    let node = cluster.node(1);
    space.create(&Asking::new("db", "http").on(&node).controlled("StatefulSet", 2));
    let before = space.wait_for_pods("app=db", 2);
    let number = |pods: &[Value], name: &str| {
        let pod = pods.iter().find(|pod| pod["metadata"]["name"] == name);
        pod.and_then(|pod| told(pod).first().cloned()).map(|port| *port.host.start())
    };
    let uid =
        |pods: &[Value]| pods.iter().map(|pod| pod["metadata"]["uid"].to_string()).collect::<BTreeSet<_>>();
    space.kubectl(&["delete", "pod", "db-0", "--grace-period=1"]);
    let old = uid(&before);
    eventually(SOON * 3, || uid(&space.wait_for_pods("app=db", 2)) != old);
    let after = space.wait_for_pods("app=db", 2);
    assert_eq!(number(&after, "db-0"), number(&before, "db-0"));
    assert_eq!(number(&after, "db-1"), number(&before, "db-1"));
    let outside = Outside::new(cluster, space.name(), "examples");
    let port = number(&after, "db-0").unwrap_or_default();
    let page = eventually_ok(SOON, || outside.http(node.address().into(), port, "/"));
    assert!(page.is_ok_and(|page| page.contains("db-0")));
}

#[test]
fn a_thousand_ports_are_one_ask() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "block");
    let pod = Asking::script(
        "block",
        "media/udp:1000",
        "exec socat UDP-RECVFROM:${PORTOLAN_PORT_MEDIA#*-},fork EXEC:cat",
    )
    .start(&space);
    let ports = told(&pod);
    assert_eq!(ports[0].host.len(), 1000, "{ports:?}");
    // The last of them, since the first is served as one port would be.
    let outside = Outside::new(cluster, space.name(), "examples");
    let last = SocketAddr::new(public_address(&pod), *ports[0].host.end());
    let echoed =
        eventually_ok(SOON, || outside.namespace().run(|| ask::udp(last)).map_err(|error| error.to_string()));
    assert!(echoed.is_ok(), "{echoed:?}");
}

#[test]
fn sixty_pods_at_once_have_sixty_ports() {
    need_root!();
    let cluster = need_cluster!();
    installed(cluster);
    let space = Space::new(cluster, "sixty");
    space.create(&Asking::new("many", "http, echo/udp").controlled("Deployment", 60));
    let pods = space.wait_for_many("app=many", 60);
    let mut taken = BTreeSet::new();
    for pod in &pods {
        let ports = told(pod);
        assert_eq!(ports.len(), 2, "{}", pod["metadata"]["annotations"]);
        // A number of TCP and the same of UDP are two ports.
        for port in ports {
            assert!(
                taken.insert((public_address(pod), port.name.clone(), *port.host.start())),
                "{port:?} twice"
            );
        }
    }
    let nodes: BTreeSet<String> = pods.iter().map(|pod| pod["spec"]["nodeName"].to_string()).collect();
    assert_eq!(nodes.len(), cluster.node_count().min(2));
    let outside = Outside::new(cluster, space.name(), "examples");
    for pod in &pods {
        let (node, name) = (public_address(pod), pod["metadata"]["name"].as_str().unwrap_or_default());
        let port = told(pod)[0].clone();
        let page = eventually_ok(SOON, || outside.http(node, *port.host.start(), "/"));
        assert!(
            page.as_ref().is_ok_and(|page| page.contains(name)),
            "{node}:{port:?} is not {name}: {page:?}"
        );
    }
}
