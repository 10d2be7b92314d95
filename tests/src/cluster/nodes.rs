//! What happens on the nodes themselves, and outside of them.

use std::path::Path;

use portolan_cluster::{Cluster, Node};
use portolan_testkit::net::Namespace;

/// The network of the machine that is no node.
#[track_caller]
pub fn client(cluster: &Cluster) -> Namespace {
    named(&cluster.network_namespace("client"))
}

/// The network of a node.
#[track_caller]
pub fn namespace(node: &Node<'_>) -> Namespace {
    named(&node.network_namespace())
}

#[track_caller]
fn named(file: &Path) -> Namespace {
    Namespace::existing(file.file_name().and_then(|name| name.to_str()).unwrap_or_default())
}

/// Does it in the network of a node.
#[track_caller]
pub fn on<T: Send>(node: &Node<'_>, work: impl FnOnce() -> T + Send) -> T {
    namespace(node).run(work)
}

/// What a script of the shell says on the node, where it must succeed.
#[track_caller]
pub fn say(node: &Node<'_>, script: &str) -> String {
    node.run(["sh", "-c", script]).unwrap_or_else(|error| panic!("{script}: {error:#}"))
}

/// What those of the scripts say on the node that say anything: what somebody left there.
pub fn found(node: &Node<'_>, scripts: &[&str]) -> Vec<String> {
    let said = |script: &&str| {
        node.exec(["sh", "-c", script]).map(|said| String::from_utf8_lossy(&said.stdout).into_owned())
    };
    scripts.iter().filter_map(|script| said(script).ok()).filter(|said| !said.trim().is_empty()).collect()
}
