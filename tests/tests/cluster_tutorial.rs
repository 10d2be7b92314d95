//! The dynamic-ports tutorial, command by command as examples/tutorial tells it, with a real kubectl on a real cluster;
//! and what its reader does next.

use std::{collections::BTreeSet, path::Path, time::Duration};

use portolan_cluster::{Cluster, need_cluster};
use portolan_testkit::{browser::Browser, eventually_ok, need_root};
use portolan_tests::{
    cluster::{Outside, Space, load_image},
    console,
};
use serde_json::Value;

/// How long the page may take to show what has changed: a server that ends says so.
const SOON: Duration = Duration::from_secs(20);
/// Where the tutorial looks at the page.
const PAGE: &str = "http://127.0.0.1:8888/";

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/tutorial/README.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_tutorial_is_true_and_every_server_is_one_click_away() {
    need_root!();
    let cluster = need_cluster!();
    load_image(cluster);
    let space = Space::without_ports(cluster, "tutorial");
    let outside = Outside::new(cluster, space.name(), "examples/tutorial");
    let (told, cleaned) = split(&document());

    let forward = console::run(&outside, "examples/tutorial/README.md", &told);
    assert_eq!(forward.len(), 1, "the port-forward runs on");
    let browser = Browser::start(outside.namespace());
    browser.open(PAGE);
    browser.wait_text(SOON, "tbody", |text| text.matches("passing").count() == 3);

    // Each server's own page is one click away.
    for pod in space.wait_for_pods("app=dynamic-port-server", 3) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        browser.open(PAGE);
        browser.wait_text(SOON, "tbody", |text| text.contains(&name));
        let clicked = browser.script(&format!(
            "const row = [...document.querySelectorAll('tbody tr')].find(row => row.innerText.includes('{name}'));\
             const link = row.querySelector('a[href^=\"http://1\"]'); link.removeAttribute('target'); link.click();\
             return link.href"
        ));
        let address = pod["status"]["hostIP"].as_str().unwrap_or_default();
        assert!(
            clicked.as_str().is_some_and(|url| url.starts_with(&format!("http://{address}:"))),
            "{clicked}"
        );
        browser.wait_text(SOON, "h1", |text| text.contains(&name));
    }

    // One is deleted: another takes its place, and the page forgets the first at once.
    let victim = space.pods("app=dynamic-port-server")[0]["metadata"]["name"].to_string().replace('"', "");
    browser.open(PAGE);
    browser.wait_text(SOON, "tbody", |text| text.contains(&victim));
    space.kubectl(&["delete", "pod", &victim, "--wait=false"]);
    browser.wait_text(SOON, "tbody", |text| !text.contains(&victim) && text.matches("passing").count() == 3);

    // The outside reaches the page by the other Service as well.
    let port = &space.get("service/service-registry-http")["spec"]["ports"][0]["nodePort"];
    let port = port.as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    let node = cluster.node(1).address().into();
    let listed = eventually_ok(SOON, || outside.http(node, port, "/v1/instances"));
    assert!(listed.is_ok_and(|text| text.contains("dynamic-port-server")));

    console::run(&outside, "examples/tutorial/README.md", &cleaned);
}

#[test]
fn ten_servers_share_one_node_and_none_shares_a_port() {
    need_root!();
    let cluster = need_cluster!();
    load_image(cluster);
    let space = Space::without_ports(cluster, "tutorial-ten");
    for file in ["deployments/service-registry.yaml", "services/service-registry.yaml"] {
        space.kubectl(&["create", "-f", &example(file)]);
    }
    space.wait_for_pods("app=service-registry", 1);
    space.kubectl(&["create", "-f", &example("deployments/dynamic-port-server.yaml")]);
    let node = cluster.node(1).name();
    let bound = format!(r#"{{"spec":{{"replicas":10,"template":{{"spec":{{"nodeName":"{node}"}}}}}}}}"#);
    space.kubectl(&["patch", "deployment", "dynamic-port-server", "-p", &bound]);
    space.wait_for_pods("app=dynamic-port-server", 10);

    let registry = pod_address(&space, "app=service-registry");
    // Those that the patch took the place of go when kubelet has ended them.
    let ports = eventually_ok(SOON * 4, || passing(cluster, &registry, 10));
    match ports {
        Ok(ports) => assert_eq!(ports.len(), 10, "{ports:?}"),
        Err(seen) => panic!("{seen}"),
    }
}

/// The addresses and ports of this many passing servers.
fn passing(cluster: &Cluster, registry: &str, count: usize) -> Result<BTreeSet<String>, String> {
    let url = format!("http://{registry}/v1/instances?state=passing");
    // Pods are reached from the nodes.
    let output =
        cluster.node(1).run(["curl", "-s", "--max-time", "5", &url]).map_err(|e| format!("{e:#}"))?;
    let listing: Value = serde_json::from_str(&output).map_err(|error| format!("{error}: {output}"))?;
    let instances = listing["instances"].as_array().cloned().unwrap_or_default();
    if instances.len() == count {
        let node = cluster.node(1).name();
        assert!(instances.iter().all(|one| one["node"] == node), "servers say where they are: {output}");
        let place = |one: &Value| format!("{}:{}", one["addresses"][0], one["ports"][0]["port"]);
        Ok(instances.iter().map(place).collect())
    } else {
        Err(output)
    }
}

fn pod_address(space: &Space, selector: &str) -> String {
    space.pods(selector)[0]["status"]["podIP"].as_str().unwrap_or_default().to_owned()
}

fn example(file: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples/tutorial")
        .join(file)
        .to_string_lossy()
        .into_owned()
}

/// The document up to its end, and its last chapter, which takes everything away.
fn split(document: &str) -> (String, String) {
    let (told, cleaned) = document.split_once("## Clean up").expect("a last chapter");
    (told.to_owned(), cleaned.to_owned())
}
