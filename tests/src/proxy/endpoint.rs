//! The endpoints of EndpointSlices: who, and under which conditions and hints.

use std::net::IpAddr;

use portolan_cluster::node_name;
use serde_json::{Value, json};

use super::world::{Family, node_address, pod_address};

/// One endpoint of a slice.
#[derive(Clone, Debug)]
pub struct Endpoint(Value, u8, char);

/// An endpoint by its name: `1a` is the Pod `a` of node 1, `1n` the node itself.
#[track_caller]
pub fn endpoint(name: &str) -> Endpoint {
    let mut characters = name.chars();
    let node = characters
        .next()
        .and_then(|digit| digit.to_digit(10))
        .unwrap_or_else(|| panic!("{name} is no endpoint"));
    let letter = characters.next().unwrap_or_else(|| panic!("{name} is no endpoint"));
    let json = json!({"nodeName": node_name(node as usize), "conditions": {"ready": true}});
    Endpoint(json, node as u8, letter)
}

impl Endpoint {
    /// Its conditions: ready, serving, terminating; what is not said is left out.
    pub fn conditions(
        mut self,
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    ) -> Self {
        self.0["conditions"] = json!({});
        for (name, value) in [("ready", ready), ("serving", serving), ("terminating", terminating)] {
            if let Some(value) = value {
                self.0["conditions"][name] = value.into();
            }
        }
        self
    }

    /// Not ready, but serving while it ends.
    pub fn terminating(self) -> Self {
        self.conditions(Some(false), Some(true), Some(true))
    }

    /// Meant for clients in these zones.
    pub fn for_zones(mut self, zones: &[&str]) -> Self {
        self.0["hints"]["forZones"] = zones.iter().map(|zone| json!({"name": zone})).collect();
        self
    }

    /// Meant for clients on these nodes.
    pub fn for_nodes(mut self, nodes: &[u8]) -> Self {
        self.0["hints"]["forNodes"] =
            nodes.iter().map(|node| json!({"name": node_name((*node).into())})).collect();
        self
    }

    /// With more addresses than its own.
    pub fn and_address_of(mut self, other: &str) -> Self {
        self.0["also"] = json!(other);
        self
    }

    /// Without the name of a node.
    pub fn nowhere(mut self) -> Self {
        self.0["nodeName"] = Value::Null;
        self
    }

    /// Whether it is a node and not one of its Pods.
    pub(super) fn is_node(&self) -> bool {
        self.2 == 'n'
    }

    pub(super) fn address(&self, family: Family) -> IpAddr {
        match self.2 {
            'n' => node_address(self.1, family),
            letter => pod_address(self.1, letter, family),
        }
    }

    pub(super) fn json(&self, family: Family) -> Value {
        let mut json = self.0.clone();
        let mut addresses = vec![self.address(family).to_string()];
        if let Some(other) = json["also"].as_str() {
            addresses.push(endpoint(other).address(family).to_string());
        }
        json["addresses"] = addresses.into();
        if let Some(fields) = json.as_object_mut() {
            fields.remove("also");
            fields.retain(|_, value| !value.is_null());
        }
        json
    }
}
