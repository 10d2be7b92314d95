//! A cluster whose Services nobody serves.

use std::sync::{Mutex, MutexGuard, PoisonError};

use portolan_cluster::{Cluster, Node};
use portolan_testkit::{ask, binary, eventually, eventually_ok};
use portolan_tests::cluster::on;

use crate::{HEALTH, SETTINGS, SOON, loopback, tables};

/// Nobody serves the cluster's Services. When dropped, whoever did before does again.
pub struct Vacancy {
    cluster: &'static Cluster,
    /// One test at a time.
    _turn: MutexGuard<'static, ()>,
}

impl Vacancy {
    pub fn new(cluster: &'static Cluster) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        Self { cluster, _turn: turn }
    }

    /// Ends whoever serves, and takes the rules away.
    pub fn clear(&self) {
        for node in self.cluster.nodes() {
            stop(&node, "kube-proxy");
            stop(&node, "portolan-proxy");
            for table in ["inet portolan-services", "ip kube-proxy", "ip6 kube-proxy"] {
                let _ = node.exec(["sh", "-c", &format!("nft delete table {table}")]);
            }
            let _ = node.exec(["rm", "-f", "/run/portolan/proxy.sock"]);
        }
    }

    pub fn start_kube_proxy(&self) {
        for node in self.cluster.nodes() {
            start(&node, "kube-proxy", &["kube-proxy", &format!("--config={SETTINGS}")]);
        }
        for node in self.cluster.nodes() {
            eventually(SOON, || tables(&node).contains("ip6 kube-proxy"));
        }
    }

    pub fn start_ours(&self, flags: &[&str]) {
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

#[track_caller]
pub fn install(node: &Node<'_>) {
    node.install(binary()).unwrap_or_else(|error| panic!("{error:#}"));
}

#[track_caller]
fn start(node: &Node<'_>, name: &str, words: &[&str]) {
    node.start(name, words).unwrap_or_else(|error| panic!("{error:#}"));
}

/// Kills it, if it runs.
pub fn stop(node: &Node<'_>, name: &str) {
    // One that was never started is fine.
    let _ = node.stop(name);
}
