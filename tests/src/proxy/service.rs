//! Services and their endpoints as a case writes them: addresses and ports are the case's own, so that all cases can be
//! in the cluster at once.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering},
};

use serde_json::{Value, json};

pub use super::target::{PROTOCOLS, Protocol, Target, all_kinds, unallocated};
use super::{
    api::{Api, SERVICES, SLICES},
    echo::NODE_PORT,
    endpoint::{Endpoint, endpoint},
    target::{cluster_address, outside_address},
    world::Family,
};

/// A Service with its EndpointSlices.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    number: u16,
    families: Vec<Family>,
    /// The object, to be changed where the words below do not say enough.
    pub object: Value,
    status: Option<Value>,
    /// Its slices, in the order in which they are created.
    pub slices: Vec<Value>,
}

/// The port of every Service, unless a case says otherwise.
pub const PORT: u16 = 80;

impl Service {
    /// A Service of one family with one port, 80 to 8080, of one protocol.
    pub fn new(family: Family, protocol: Protocol) -> Self {
        Self::bare(&[family]).port(protocol, PORT, 8080)
    }

    /// A Service without ports.
    pub fn bare(families: &[Family]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("s{number}");
        let addresses: Vec<String> =
            families.iter().map(|family| cluster_address(number, *family).to_string()).collect();
        let words = |family: &Family| if *family == Family::V4 { "IPv4" } else { "IPv6" };
        let object = json!({
            "metadata": {"name": name},
            "spec": {
                "clusterIP": addresses[0],
                "clusterIPs": addresses,
                "ipFamilies": families.iter().map(words).collect::<Vec<_>>(),
                "ipFamilyPolicy": if families.len() == 1 { "SingleStack" } else { "RequireDualStack" },
                "ports": [],
            },
        });
        Self { name, number, families: families.to_vec(), object, status: None, slices: Vec::new() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One more port. Node ports are given at the end, by [`Self::node_ports`] and [`Self::balancer`].
    pub fn port(mut self, protocol: Protocol, port: u16, target: u16) -> Self {
        let name = format!("{}-{port}", protocol.name().to_lowercase());
        let port = json!({"name": name, "protocol": protocol.name(), "port": port, "targetPort": target});
        self.ports().push(port);
        self
    }

    fn ports(&mut self) -> &mut Vec<Value> {
        self.object["spec"]["ports"].as_array_mut().expect("an array from the start")
    }

    /// With a port on every node for each of its ports: the same for different protocols of one port.
    pub fn node_ports(mut self) -> Self {
        self.object["spec"]["type"] = "NodePort".into();
        let number = self.number;
        for port in self.ports() {
            port["nodePort"] = (30_100 + number * 2 + u16::from(port["port"] != PORT)).into();
        }
        self
    }

    /// With the address of a load balancer, and node ports.
    pub fn balancer(mut self) -> Self {
        self = self.node_ports();
        self.object["spec"]["type"] = "LoadBalancer".into();
        let addresses = self
            .families
            .iter()
            .map(|family| json!({"ip": self.balancer_address(*family).to_string(), "ipMode": "VIP"}));
        let addresses: Vec<Value> = addresses.collect();
        self.ingress(addresses)
    }

    /// With these entries as what its load balancer is.
    pub fn ingress(mut self, entries: Vec<Value>) -> Self {
        self.status = Some(json!({"status": {"loadBalancer": {"ingress": entries}}}));
        self
    }

    /// Without node ports, where a load balancer does not need them.
    pub fn without_node_ports(mut self) -> Self {
        self.object["spec"]["allocateLoadBalancerNodePorts"] = false.into();
        for port in self.ports() {
            port["nodePort"] = 0.into();
        }
        self
    }

    /// With an external address of each family.
    pub fn external(mut self) -> Self {
        let addresses: Vec<String> =
            self.families.iter().map(|family| self.external_address(*family).to_string()).collect();
        self.object["spec"]["externalIPs"] = addresses.into();
        self
    }

    /// With `externalTrafficPolicy: Local`.
    pub fn external_local(mut self) -> Self {
        self.object["spec"]["externalTrafficPolicy"] = "Local".into();
        if self.object["spec"]["type"] == "LoadBalancer" {
            self.object["spec"]["healthCheckNodePort"] = self.health_port().into();
        }
        self
    }

    /// With `internalTrafficPolicy: Local`.
    pub fn internal_local(mut self) -> Self {
        self.object["spec"]["internalTrafficPolicy"] = "Local".into();
        self
    }

    /// With affinity of clients for this long.
    pub fn affinity(mut self, seconds: u32) -> Self {
        self.object["spec"]["sessionAffinity"] = "ClientIP".into();
        self.object["spec"]["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": seconds}});
        self
    }

    /// With a field of its spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.object["spec"][field] = value;
        self
    }

    /// With a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.object["metadata"]["labels"][name] = value.into();
        self
    }

    /// With one slice of each family with these endpoints.
    pub fn endpoints(mut self, endpoints: &[Endpoint]) -> Self {
        for family in self.families.clone() {
            self = self.slice(family, endpoints, |_| {});
        }
        self
    }

    /// With endpoints that are ready, by their names.
    pub fn at(self, names: &[&str]) -> Self {
        let endpoints: Vec<Endpoint> = names.iter().map(|name| endpoint(name)).collect();
        self.endpoints(&endpoints)
    }

    /// With one more slice, changed by `change`. Its ports are those of the Service.
    pub fn slice(mut self, family: Family, endpoints: &[Endpoint], change: impl FnOnce(&mut Value)) -> Self {
        let ports: Vec<Value> = self
            .ports()
            .iter()
            .map(|port| {
                // Nodes answer on another port than their Pods.
                let node = endpoints.first().is_some_and(|endpoint| endpoint.is_node());
                let number = if node { NODE_PORT.into() } else { port["targetPort"].clone() };
                json!({"name": port["name"], "protocol": port["protocol"], "port": number})
            })
            .collect();
        let mut slice = json!({
            "metadata": {
                "name": format!("{}-{}", self.name, self.slices.len()),
                "labels": {"kubernetes.io/service-name": self.name},
            },
            "addressType": if family == Family::V4 { "IPv4" } else { "IPv6" },
            "endpoints": endpoints.iter().map(|endpoint| endpoint.json(family)).collect::<Vec<_>>(),
            "ports": ports,
        });
        change(&mut slice);
        self.slices.push(slice);
        self
    }

    /// Its cluster address.
    pub fn cluster(&self, family: Family, protocol: Protocol) -> Target {
        self.cluster_at(family, protocol, PORT)
    }

    /// Another port of its cluster address.
    pub fn cluster_at(&self, family: Family, protocol: Protocol, port: u16) -> Target {
        Target { protocol, address: (cluster_address(self.number, family), port).into() }
    }

    /// Its load balancer.
    pub fn at_balancer(&self, family: Family, protocol: Protocol) -> Target {
        Target { protocol, address: (self.balancer_address(family), PORT).into() }
    }

    /// Its external address.
    pub fn at_external(&self, family: Family, protocol: Protocol) -> Target {
        Target { protocol, address: (self.external_address(family), PORT).into() }
    }

    /// Its node port on an address.
    pub fn at_node(&self, address: IpAddr, protocol: Protocol) -> Target {
        Target { protocol, address: (address, self.node_port()).into() }
    }

    /// The node port of its port 80.
    pub fn node_port(&self) -> u16 {
        30_100 + self.number * 2
    }

    /// The port that tells load balancers whether its node has endpoints.
    pub fn health_port(&self) -> u16 {
        32_767 - self.number
    }

    fn balancer_address(&self, family: Family) -> IpAddr {
        outside_address(1, self.number, family)
    }

    fn external_address(&self, family: Family) -> IpAddr {
        outside_address(2, self.number, family)
    }

    /// Where the object is.
    pub fn path(&self) -> String {
        format!("{SERVICES}/{}", self.name)
    }

    /// Where its slice of this number is.
    pub fn slice_path(&self, number: usize) -> String {
        format!("{SLICES}/{}-{number}", self.name)
    }

    /// Writes all of it.
    #[track_caller]
    pub fn create(&self, api: &Api) {
        api.create(SERVICES, &self.object);
        if let Some(status) = &self.status {
            api.patch(&format!("{}/status", self.path()), status);
        }
        for slice in &self.slices {
            api.create(SLICES, slice);
        }
    }

    /// Puts these endpoints into its slice of this number.
    #[track_caller]
    pub fn change_endpoints(&self, api: &Api, slice: usize, endpoints: &[Endpoint]) {
        let family = if self.slices[slice]["addressType"] == "IPv4" { Family::V4 } else { Family::V6 };
        let endpoints: Vec<Value> = endpoints.iter().map(|endpoint| endpoint.json(family)).collect();
        api.patch(&self.slice_path(slice), &json!({"endpoints": endpoints}));
    }

    /// Puts endpoints that are ready into all of its slices.
    #[track_caller]
    pub fn move_to(&self, api: &Api, names: &[&str]) {
        let endpoints: Vec<Endpoint> = names.iter().map(|name| endpoint(name)).collect();
        for slice in 0..self.slices.len() {
            self.change_endpoints(api, slice, &endpoints);
        }
    }
}
