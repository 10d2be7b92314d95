//! Services as people make them, by kubectl alone, on a cluster of whoever serves them: `cargo xtask cluster with --without-proxy --hook
//! scripts/proxy-on-cluster` puts ours in kube-proxy's place.

use std::{collections::BTreeMap, fmt::Debug, process::Output, time::Duration};

use portolan_cluster::{Cluster, need_cluster};
use portolan_testkit::{eventually_ok, need_root};
use portolan_tests::cluster::Space;

/// How long a change may take until it is everywhere: kubelet, the controllers and the proxy are in it.
const SOON: Duration = Duration::from_secs(60);

/// Each replica says its name to whoever connects.
const HOSTNAMES: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hostnames
spec:
  replicas: 7
  selector:
    matchLabels: {app: hostnames}
  template:
    metadata:
      labels: {app: hostnames}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hostnames
        image: debian-tools:1
        command:
        - sh
        - -c
        - |
          cat >/tmp/answer <<'END'
          while read -r line && [ ${#line} -gt 1 ]; do :; done
          printf 'HTTP/1.0 200 OK\r\n\r\n'
          hostname
          END
          exec socat TCP-LISTEN:9376,fork,reuseaddr,backlog=64 "EXEC:sh /tmp/answer"
        readinessProbe:
          tcpSocket: {port: 9376}
          periodSeconds: 1
"#;

#[test]
fn every_one_of_seven_replicas_answers_at_the_address_of_the_service() {
    need_root!();
    let cluster = need_cluster!();
    let space = Space::without_ports(cluster, "hostnames");
    space.apply(HOSTNAMES);
    let pods = space.wait_for_many("app=hostnames", 7);
    let names: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();

    space.kubectl(&["expose", "deployment", "hostnames", "--port=80", "--target-port=9376"]);
    let address = space.kubectl(&["get", "service", "hostnames", "-o", "go-template={{.spec.clusterIP}}"]);
    let url = format!("http://{address}:80");
    all_answer(&names, || cluster.node(1).exec(curl(&url)));

    // The same from a Pod, by the name, and from outside by a port of any node.
    let pod = names[0];
    all_answer(&names, || {
        cluster.kubectl(&[
            "-n",
            space.name(),
            "exec",
            pod,
            "--",
            "curl",
            "-s",
            "--max-time",
            "2",
            "http://hostnames",
        ])
    });
    space.kubectl(&[
        "expose",
        "deployment",
        "hostnames",
        "--name=outside",
        "--type=NodePort",
        "--port=80",
        "--target-port=9376",
    ]);
    let template = "go-template={{(index .spec.ports 0).nodePort}}";
    let port = space.kubectl(&["get", "service", "outside", "-o", template]);
    for node in cluster.nodes() {
        let url = format!("http://{}:{port}", node.address());
        all_answer(&names, || cluster.client_exec(curl(&url)));
    }

    // One is left, and it alone answers; then none, and everybody is refused at once instead of waiting.
    space.kubectl(&["scale", "deployment", "hostnames", "--replicas=1"]);
    let left = space.wait_for_pods("app=hostnames", 1);
    let left = left[0]["metadata"]["name"].as_str().unwrap_or_default();
    let alone = eventually_ok(SOON, || {
        let answers: BTreeMap<String, usize> = ask(20, || cluster.node(1).exec(curl(&url)));
        if answers.keys().eq([left]) { Ok(()) } else { Err(answers) }
    });
    assert_eq!(alone, Ok(()));
    space.kubectl(&["scale", "deployment", "hostnames", "--replicas=0"]);
    let refused = eventually_ok(SOON, || match cluster.node(1).exec(curl(&url)) {
        // curl(1): 7 is a connection that was refused, 28 one that was waited for.
        Ok(output) if output.status.code() == Some(7) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(refused, Ok(()));
}

#[test]
fn a_client_keeps_its_source_address_where_the_policy_is_local() {
    need_root!();
    let cluster = need_cluster!();
    let space = Space::without_ports(cluster, "local");
    let peer = "          echo $SOCAT_PEERADDR\n";
    space.apply(&HOSTNAMES.replace("          hostname\n", peer).replace("replicas: 7", "replicas: 1"));
    let pod = space.wait_for_pods("app=hostnames", 1).remove(0);
    let host = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    space.kubectl(&[
        "expose",
        "deployment",
        "hostnames",
        "--type=NodePort",
        "--port=80",
        "--target-port=9376",
    ]);
    let port = space.kubectl(&[
        "get",
        "service",
        "hostnames",
        "-o",
        "go-template={{(index .spec.ports 0).nodePort}}",
    ]);
    let answers = |cluster: &Cluster, wanted: fn(&str, bool) -> bool| {
        for node in cluster.nodes() {
            let url = format!("http://{}:{port}", node.address());
            let here = node.name() == host;
            let seen = eventually_ok(SOON, || match cluster.client_exec(curl(&url)) {
                Ok(output) if wanted(String::from_utf8_lossy(&output.stdout).trim(), here) => Ok(()),
                other => Err(format!("{}: {other:?}", node.name())),
            });
            assert_eq!(seen, Ok(()));
        }
    };
    let client = portolan_cluster::CLIENT_V4.to_string();
    assert_eq!(client, "10.240.0.100", "the words below know it");
    answers(cluster, |seen, _| !seen.is_empty() && seen != "10.240.0.100");
    space.kubectl(&["patch", "service", "hostnames", "-p", r#"{"spec":{"externalTrafficPolicy":"Local"}}"#]);
    answers(cluster, |seen, here| if here { seen == "10.240.0.100" } else { seen.is_empty() });
}

fn curl(url: &str) -> [&str; 5] {
    ["curl", "-s", "--max-time", "2", url]
}

/// Asks until every one of these has answered, and nobody else.
#[track_caller]
fn all_answer<E: Debug>(names: &[&str], once: impl Fn() -> Result<Output, E>) {
    let mut seen = BTreeMap::new();
    let answered = eventually_ok(SOON, || {
        for (name, count) in ask(10, &once) {
            *seen.entry(name).or_insert(0) += count;
        }
        // Before the Service is known there are answers that are empty.
        let known: Vec<&String> = seen.keys().filter(|name| names.contains(&name.as_str())).collect();
        if known.len() == names.len() { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(answered, Ok(()));
    assert!(seen.keys().all(|name| name.is_empty() || names.contains(&name.as_str())), "{seen:?}");
}

/// What is answered how often.
fn ask<E: Debug>(times: usize, once: impl Fn() -> Result<Output, E>) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for _ in 0..times {
        let said = once().map_or_else(
            |error| format!("{error:?}"),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
        *seen.entry(said).or_insert(0) += 1;
    }
    seen
}
