//! What a cluster is like now, for people and for programs.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use crate::{Cluster, Options, layout::node_addresses};

/// A cluster as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// What it was asked to be.
    pub options: Options,
    /// All of its files.
    pub folder: String,
    /// For programs on this machine.
    pub kubeconfig: String,
    /// Where they reach the API.
    pub server: String,
    /// Whether the API server says that it is ready.
    pub ready: bool,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// The memory of all of its processes: what they share is shared out among them.
    pub memory_bytes: u64,
    /// What it runs.
    pub versions: Vec<(String, String)>,
}

/// A node as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its address on the cluster's network.
    pub address: String,
    /// Whether its first process lives.
    pub up: bool,
    /// Whether Kubernetes says that it is ready.
    pub ready: bool,
    /// How many Pods it has.
    pub pods: usize,
}

impl Cluster {
    /// Looks at everything.
    pub fn status(&self) -> Result<Status> {
        let ready = self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"])?.status.success();
        let list = |what: &str| -> Result<Vec<Value>> {
            let answer = self.kubectl(&["get", what, "-A", "-o", "json", "--request-timeout=5s"])?;
            let mut answer: Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
            Ok(answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
        };
        let (nodes, pods) = if ready { (list("nodes")?, list("pods")?) } else { Default::default() };
        let of = |node: crate::Node<'_>| {
            let name = node.name();
            let found = nodes.iter().find(|other| other["metadata"]["name"] == name.as_str());
            let conditions = found.and_then(|found| found["status"]["conditions"].as_array());
            let ready =
                conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
            NodeStatus {
                address: node_addresses(node.number()).0.to_string(),
                up: node.first_process().is_ok(),
                ready,
                pods: pods.iter().filter(|pod| pod["spec"]["nodeName"] == name.as_str()).count(),
                name,
            }
        };
        Ok(Status {
            name: self.name().to_owned(),
            options: self.options.clone(),
            folder: self.folder().display().to_string(),
            kubeconfig: self.kubeconfig().display().to_string(),
            server: self.server(),
            ready,
            nodes: self.nodes().map(of).collect(),
            memory_bytes: self.cgroup().processes()?.into_iter().map(memory).sum(),
            versions: self.tools.versions(),
        })
    }
}

/// The proportional set size of a process; zero when it has ended.
fn memory(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
