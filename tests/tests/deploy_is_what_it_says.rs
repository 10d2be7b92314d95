//! The Helm chart and what is made from it: manifests that are current, values that are checked, rights that are few.
//!
//! `UPDATE_MANIFESTS=1 cargo test -p portolan-tests --test deploy_is_what_it_says` writes the manifests anew.

use std::{
    fs,
    path::{Path, PathBuf},
};

use portolan_testkit::programs;
use portolan_tests::cluster::Chart;
use serde_json::{Value, json};

/// What the manifests are made for.
const RELEASE: [&str; 6] =
    ["template", "portolan", "CHART", "--namespace", "portolan", "--kube-version=1.36.0"];
/// The templates of what runs at the end.
const CLEANUP: [&str; 3] = ["rbac", "nodes", "job"];

#[test]
fn the_manifests_are_the_chart_with_its_defaults() {
    let Some(chart) = chart() else { return };
    let mut differing = Vec::new();
    for (file, text) in [
        ("deploy/manifests/portolan.yaml", generated(&chart, &["--no-hooks".to_owned()])),
        (
            "deploy/cleanup.yaml",
            generated(&chart, &CLEANUP.map(|name| format!("--show-only=templates/cleanup/{name}.yaml"))),
        ),
        ("deploy/helm/portolan/files/portpools.yaml", read("deploy/crds/portpools.yaml")),
    ] {
        if read(file) != text {
            differing.push(file);
            if std::env::var_os("UPDATE_MANIFESTS").is_some() {
                fs::write(path(file), text).unwrap_or_else(|error| panic!("{file}: {error}"));
            }
        }
    }
    assert!(
        differing.is_empty(),
        "these are not what the chart makes; UPDATE_MANIFESTS=1 writes them: {differing:?}"
    );
}

#[test]
fn helm_finds_no_fault_with_the_chart() {
    let Some(chart) = chart() else { return };
    chart.run(&["lint", "--strict", "CHART"]);
    let everything = "registry.enabled=true,registry.tokenSecret=token,agent.localhost=true,crds.keep=true,\
                      nri.enabled=false,webhook.replicas=1,agent.advertise={192.0.2.1},imagePullSecrets[0].name=pull,\
                      agent.podSecurityContext.seLinuxOptions.type=spc_t,registry.allowAnonymousFrom={10.0.0.0/8},\
                      proxy.enabled=true,proxy.apiServer=https://192.0.2.10:6443,proxy.takeOver=true,\
                      proxy.nodePortAddresses={10.0.0.0/8},proxy.clusterCIDR=10.244.0.0/16,proxy.masqueradeAll=true";
    chart.run(&[&RELEASE[..], &["--set", everything]].concat());
}

#[test]
fn wrong_values_are_refused_and_named() {
    let Some(chart) = chart() else { return };
    for (values, named) in [
        ("registry.enabled=true", "/registry/tokenSecret"),
        ("pool=20000-29999", "'pool' not allowed"),
        ("pools={20000}", "/pools/0"),
        ("agent.listen=10083", "/agent/listen"),
        ("webhook.replicas=0", "/webhook/replicas"),
        ("quarantine=soon", "/quarantine"),
        ("cni.binDir=opt", "/cni/binDir"),
        ("proxy.enabled=true", "/proxy/apiServer"),
        ("proxy.detectLocalMode=Bridge", "/proxy/detectLocalMode"),
    ] {
        let output = programs::output(&mut chart.command(&[&RELEASE[..], &["--set", values]].concat()));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(named), "{values}: {said}");
    }
}

#[test]
fn nobody_has_more_rights_than_are_explained() {
    let Some(chart) = chart() else { return };
    let whole = "--set=registry.enabled=true,registry.tokenSecret=token,proxy.enabled=true,proxy.serviceProxyName=portolan";
    let all = chart.run(&[&RELEASE[..], &[whole]].concat());
    let mut containers = 0;
    for object in documents(&all) {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        for rule in object["rules"].as_array().into_iter().flatten() {
            assert!(!rule.to_string().contains('*'), "{name}: {rule}");
            let writes_secrets = rule["resources"].to_string().contains("secrets");
            assert!(!writes_secrets || !rule["resourceNames"].is_null(), "{name} sees every Secret: {rule}");
        }
        let pod = &object["spec"]["template"]["spec"];
        assert!(
            pod.is_null() || pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
            "{name}"
        );
        let token =
            pod["serviceAccountName"].is_string() || pod["automountServiceAccountToken"] == json!(false);
        assert!(pod.is_null() || token, "{name} has the token of the account default");
        for kind in ["initContainers", "containers"] {
            for container in pod[kind].as_array().into_iter().flatten() {
                containers += 1;
                let may = &container["securityContext"];
                let name = format!("{name} {}", container["name"]);
                assert_eq!(may["allowPrivilegeEscalation"], json!(false), "{name}");
                assert_eq!(may["readOnlyRootFilesystem"], json!(true), "{name}");
                assert_eq!(may["capabilities"]["drop"], json!(["ALL"]), "{name}");
                assert!(may["privileged"].is_null(), "{name}");
                let added = match container["name"].as_str() {
                    Some("agent" | "cleanup" | "proxy" | "proxy-cleanup") => json!(["NET_ADMIN"]),
                    Some("holder") => json!(["NET_BIND_SERVICE"]),
                    _ => Value::Null,
                };
                assert_eq!(may["capabilities"]["add"], added, "{name}");
            }
        }
    }
    assert_eq!(containers, 10, "agent, holder, webhook, registry, proxy, and five that clean up");
}

#[test]
fn the_proxy_reads_what_it_needs_and_nothing_else() {
    let Some(chart) = chart() else { return };
    let words =
        ["--show-only=templates/proxy-rbac.yaml", "--set=proxy.enabled=true,proxy.serviceProxyName=portolan"];
    let all = chart.run(&[&RELEASE[..], &words].concat());
    let role = documents(&all).into_iter().find(|object| object["kind"] == "ClusterRole");
    let role = role.unwrap_or_else(|| panic!("no role in {all}"));
    let mut may = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for resource in rule["resources"].as_array().into_iter().flatten() {
            may.push(format!("{} {}", resource.as_str().unwrap_or_default(), rule["verbs"]));
        }
    }
    let read = |kind: &str| format!("{kind} [\"get\",\"list\",\"watch\"]");
    let mut expected = ["services", "endpointslices", "nodes", "servicecidrs"].map(read).to_vec();
    expected.push("events [\"create\",\"patch\"]".to_owned());
    assert_eq!(may, expected);
}

#[test]
fn examples_and_chart_have_the_version_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    let chart = read("deploy/helm/portolan/Chart.yaml");
    for line in [format!("version: {version}\n"), format!("appVersion: {version}\n")] {
        assert!(chart.contains(&line), "no {line}");
    }
    for file in yaml_files(&path("examples")) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for image in text.lines().filter_map(|line| line.trim().strip_prefix("image: portolan:")) {
            assert_eq!(image, version, "{}", file.display());
        }
    }
}

fn chart() -> Option<Chart> {
    let chart = Chart::new(None);
    if chart.is_none() {
        portolan_testkit::skip("helm is not built: cargo xtask cluster build helm");
    }
    chart
}

fn generated(chart: &Chart, words: &[String]) -> String {
    let words: Vec<&str> = RELEASE.iter().copied().chain(words.iter().map(String::as_str)).collect();
    let text = chart.run(&words);
    let head = "# The Helm chart deploy/helm/portolan with its defaults; a test rewrites this with UPDATE_MANIFESTS=1.\n";
    let lines = text.lines().map(|line| format!("{}\n", line.trim_end()));
    lines.fold(head.to_owned(), |all, line| all + &line)
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---").filter(|document| document.contains("kind:"));
    documents
        .map(|document| match serde_saphyr::from_str(document.trim_start_matches("---")) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {document}"),
        })
        .collect()
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            files.extend(yaml_files(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "yaml") {
            files.push(entry);
        }
    }
    files
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}
