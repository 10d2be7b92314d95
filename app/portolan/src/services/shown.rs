//! What `up` tells about its Services over its socket, and how that is an object of Kubernetes again.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// One Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// Empty for a headless one and for an alias.
    pub(crate) cluster_addresses: Vec<IpAddr>,
    pub(crate) headless: bool,
    pub(crate) external_name: Option<String>,
    pub(crate) external_addresses: Vec<IpAddr>,
    pub(crate) load_balancer_addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<ShownPort>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) selector: BTreeMap<String, String>,
    pub(crate) internal_policy: String,
    pub(crate) external_policy: String,
    /// Seconds.
    pub(crate) affinity: Option<u64>,
    pub(crate) endpoints: Vec<ShownEndpoint>,
    /// `FILE:LINE`, or `portolan expose`.
    pub(crate) source: String,
    #[serde(with = "seconds")]
    pub(crate) since: SystemTime,
    /// Why it is not served as it is written.
    pub(crate) problem: Option<String>,
}

/// One port of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownPort {
    pub(crate) name: String,
    /// As in Kubernetes: `TCP`.
    pub(crate) protocol: String,
    pub(crate) port: u16,
    /// A number, or a name.
    pub(crate) target: String,
    pub(crate) node_port: Option<u16>,
}

/// One endpoint, for one of its ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShownEndpoint {
    pub(crate) address: SocketAddr,
    pub(crate) port: String,
    pub(crate) ready: bool,
    pub(crate) target: Option<String>,
    pub(crate) node: Option<String>,
}

impl Shown {
    /// `kubectl get -o yaml` shows it so.
    pub(crate) fn object(&self) -> Value {
        let mut metadata = json!({ "name": self.name, "namespace": self.namespace });
        if !self.labels.is_empty() {
            metadata["labels"] = json!(self.labels);
        }
        metadata["creationTimestamp"] = json!(humantime::format_rfc3339_seconds(self.since).to_string());
        let mut spec = Map::new();
        let mut set = |key: &str, value: Value| {
            spec.insert(key.to_owned(), value);
        };
        if let Some(name) = &self.external_name {
            set("externalName", json!(name));
        } else if self.headless {
            set("clusterIP", json!("None"));
            set("clusterIPs", json!(["None"]));
        } else {
            set("clusterIP", json!(self.cluster_addresses.first()));
            set("clusterIPs", json!(self.cluster_addresses));
            set("internalTrafficPolicy", json!(self.internal_policy));
        }
        if !self.external_addresses.is_empty() {
            set("externalIPs", json!(self.external_addresses));
        }
        if self.kind == "NodePort" || self.kind == "LoadBalancer" {
            set("externalTrafficPolicy", json!(self.external_policy));
        }
        if !self.ports.is_empty() {
            set("ports", self.ports.iter().map(ShownPort::object).collect());
        }
        if !self.selector.is_empty() {
            set("selector", json!(self.selector));
        }
        set("sessionAffinity", json!(if self.affinity.is_some() { "ClientIP" } else { "None" }));
        if let Some(seconds) = self.affinity {
            set("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": seconds } }));
        }
        set("type", json!(self.kind));
        let ingress: Vec<Value> =
            self.load_balancer_addresses.iter().map(|ip| json!({ "ip": ip, "ipMode": "VIP" })).collect();
        let balancer = if ingress.is_empty() { json!({}) } else { json!({ "ingress": ingress }) };
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec,
            "status": { "loadBalancer": balancer },
        })
    }
}

impl ShownPort {
    fn object(&self) -> Value {
        let target = self.target.parse::<u16>().map_or_else(|_| json!(self.target), |number| json!(number));
        let mut port = json!({ "port": self.port, "protocol": self.protocol, "targetPort": target });
        if !self.name.is_empty() {
            port["name"] = json!(self.name);
        }
        if let Some(number) = self.node_port {
            port["nodePort"] = json!(number);
        }
        port
    }
}

/// Whole seconds since 1970.
mod seconds {
    use std::time::{Duration, SystemTime};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(u64::deserialize(from)?))
    }
}
