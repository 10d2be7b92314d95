//! Pods that ask for ports, and what they got.

use std::{net::IpAddr, ops::RangeInclusive};

use portolan_cluster::Node;
use serde_json::{Value, json};

use super::{Space, space::status_of};

/// A Pod of one container that asks by `portolan.dev/ports`.
#[derive(Clone, Debug)]
pub struct Asking {
    name: String,
    annotations: Vec<(String, String)>,
    container: Value,
    node: Option<String>,
}

/// One port of a Pod, as the annotation says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The port's name.
    pub name: String,
    /// Its numbers on the node.
    pub host: RangeInclusive<u16>,
    /// The first number in the Pod.
    pub container: u16,
}

impl Asking {
    /// A Pod with Portolan's own server, which answers HTTP on TCP and echoes UDP on its first port.
    pub fn new(name: &str, ports: &str) -> Self {
        let container = json!({"name": "main", "image": image(), "args": ["serve", "--udp-echo"]});
        let annotations = vec![("portolan.dev/ports".to_owned(), ports.to_owned())];
        Self { name: name.to_owned(), annotations, container, node: None }
    }

    /// A Pod that runs a script of the shell, in Debian's tools.
    pub fn script(name: &str, ports: &str, script: &str) -> Self {
        let mut pod = Self::new(name, ports);
        pod.container =
            json!({"name": "main", "image": "debian-tools:1", "command": ["/bin/sh", "-c", script]});
        pod
    }

    /// Without an annotation that asks.
    #[must_use]
    pub fn silent(mut self) -> Self {
        self.annotations.clear();
        self
    }

    /// On this node.
    #[must_use]
    pub fn on(mut self, node: &Node<'_>) -> Self {
        self.node = Some(node.name());
        self
    }

    /// With another annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With `ports` of the container, as JSON.
    #[must_use]
    pub fn container_ports(mut self, ports: Value) -> Self {
        self.container["ports"] = ports;
        self
    }

    /// The Pod as JSON, which kubectl takes as YAML.
    pub fn manifest(&self) -> Value {
        let annotations: serde_json::Map<_, _> =
            self.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        let mut spec = self.spec();
        if let Some(node) = &self.node {
            // By affinity and not by nodeName, so that the scheduler counts its ports.
            spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]}}});
        }
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "annotations": annotations, "labels": {"app": self.name}},
            "spec": spec})
    }

    /// The same as a Deployment or StatefulSet of that name.
    pub fn controlled(&self, kind: &str, replicas: usize) -> Value {
        let mut template = self.manifest();
        template["metadata"].as_object_mut().and_then(|metadata| metadata.remove("name"));
        let template = json!({"metadata": template["metadata"], "spec": template["spec"]});
        let mut spec = json!({"replicas": replicas, "selector": {"matchLabels": {"app": self.name}}, "template": template});
        if kind == "StatefulSet" {
            spec["serviceName"] = json!(self.name);
            spec["podManagementPolicy"] = json!("Parallel");
        }
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": self.name}, "spec": spec})
    }

    /// Creates it and waits until it is ready.
    #[track_caller]
    pub fn start(&self, space: &Space) -> Value {
        space.create(&self.manifest());
        space.wait_for_pod(&self.name)
    }

    fn spec(&self) -> Value {
        json!({"automountServiceAccountToken": false, "terminationGracePeriodSeconds": 1, "containers": [self.container]})
    }
}

/// What a Pod was told of its ports; empty before that.
#[track_caller]
pub fn told(pod: &Value) -> Vec<Told> {
    let status = status_of(pod).unwrap_or_default();
    status["ports"].as_array().into_iter().flatten().map(one).collect()
}

#[track_caller]
fn one(port: &Value) -> Told {
    let text = port["host"].as_str().unwrap_or_default();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{port}"));
    Told {
        name: port["name"].as_str().unwrap_or_default().to_owned(),
        host: number(first)..=number(last),
        container: port["container"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
    }
}

/// Where the world reaches a Pod's node: the first address that it was told.
#[track_caller]
pub fn public_address(pod: &Value) -> IpAddr {
    let status = status_of(pod).unwrap_or_default();
    let address = status["addresses"][0].as_str().and_then(|address| address.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {status}"))
}

/// The image under test.
pub fn image() -> String {
    format!("portolan:{}", env!("CARGO_PKG_VERSION"))
}
