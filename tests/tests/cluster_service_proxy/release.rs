//! The chart with the proxy in kube-proxy's place.

use portolan_cluster::{Cluster, POD_NETWORKS};
use portolan_tests::cluster::Chart;

use crate::SOON;

/// Uninstalled when dropped.
pub struct Release {
    cluster: &'static Cluster,
    chart: Chart,
}

impl Release {
    #[track_caller]
    pub fn install(cluster: &'static Cluster, more: &[&str]) -> Self {
        let Some(chart) = Chart::new(Some(cluster)) else {
            panic!("helm is not built: `cargo xtask cluster build helm` does it")
        };
        let release = Self { cluster, chart };
        release.upgrade(&[&["--install", "--create-namespace"], more].concat());
        release
    }

    #[track_caller]
    pub fn upgrade(&self, more: &[&str]) {
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
    pub fn uninstall(self) {
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
