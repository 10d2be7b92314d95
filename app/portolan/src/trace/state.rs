//! What the rules are made from: as who serves Services on this machine tells, or as a file says.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use portolan_apply::{ApplyError, ServicePlane};
use portolan_cli::TraceArgs;
use portolan_model::{EndpointSlice, Service, ServiceNode};
use portolan_services::{LocalDetector, NodePortAddresses, Services, ServicesConfig};
use serde::{Deserialize, Serialize};

/// Where `portolan proxy` and `portolan up` tell it, each at its socket.
pub(crate) const PATH: &str = "/v1/services/state";

/// The answer of `GET` [`PATH`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    config: Config,
    pub(crate) services: Vec<Service>,
    pub(crate) slices: Vec<EndpointSlice>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Config {
    table: String,
    node: ServiceNode,
    detector: Detector,
    masquerade_all: bool,
    masquerade_mark: u32,
    node_ports: Option<Vec<IpAddr>>,
    service_networks: Vec<IpNet>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Detector {
    None,
    Networks { networks: Vec<IpNet> },
    Interface { name: String },
    InterfacePrefix { name: String },
}

impl State {
    /// What follows from these.
    pub(crate) fn of(config: &ServicesConfig, services: Vec<Service>, slices: Vec<EndpointSlice>) -> Self {
        Self { config: Config::of(config), services, slices }
    }

    /// What the kernel has now, as its owner knows it. Waits for the owner's thread.
    pub(crate) fn of_plane(plane: &ServicePlane) -> Result<Self, ApplyError> {
        plane.inspect(|services| {
            Self::of(services.config(), services.services().cloned().collect(), services.slices().collect())
        })
    }

    /// As `--from` says.
    pub(super) fn read(args: &TraceArgs, path: &Path, own: &[IpAddr]) -> anyhow::Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let manifest = portolan_kubernetes::services_from_yaml(&text)
            .with_context(|| format!("in {}", path.display()))?;
        for warning in &manifest.warnings {
            tracing::warn!("{}: {warning}", path.display());
        }
        let networks: Result<Vec<IpNet>, _> = args.cluster_cidr.iter().map(|text| text.parse()).collect();
        let networks = networks.context("--cluster-cidr is no list of networks such as 10.1.0.0/16")?;
        let name = match &args.node_name {
            Some(name) => name.clone(),
            None => portolan_host_name(),
        };
        let served = manifest.services.into_iter().map(|written| written.service);
        let services: Vec<Service> = served.filter(|one| !one.cluster_addresses.is_empty()).collect();
        if services.is_empty() {
            bail!("{} has no Service with a clusterIP: nothing would be served", path.display());
        }
        let detector =
            if networks.is_empty() { LocalDetector::None } else { LocalDetector::Networks(networks) };
        let node = ServiceNode { name, zone: None, addresses: own.to_vec() };
        let config = ServicesConfig { node, detector, ..ServicesConfig::default() };
        Ok(Self::of(&config, services, manifest.slices))
    }

    /// The Services with their rules.
    pub(crate) fn compiled(&self) -> anyhow::Result<Services> {
        let config = &self.config;
        let detector = match &config.detector {
            Detector::None => LocalDetector::None,
            Detector::Networks { networks } => LocalDetector::Networks(networks.clone()),
            Detector::Interface { name } => LocalDetector::Interface(name.clone()),
            Detector::InterfacePrefix { name } => LocalDetector::InterfacePrefix(name.clone()),
        };
        let node_ports = match &config.node_ports {
            None => NodePortAddresses::All,
            Some(only) => NodePortAddresses::Only(only.iter().copied().collect::<BTreeSet<_>>()),
        };
        let config = ServicesConfig {
            table: config.table.clone(),
            node: config.node.clone(),
            detector,
            masquerade_all: config.masquerade_all,
            masquerade_mark: config.masquerade_mark,
            node_ports,
            service_networks: config.service_networks.clone(),
            ..ServicesConfig::default()
        };
        Ok(Services::load(config, self.services.clone(), self.slices.clone())?)
    }
}

impl Config {
    fn of(config: &ServicesConfig) -> Self {
        Self {
            table: config.table.clone(),
            node: config.node.clone(),
            detector: match &config.detector {
                LocalDetector::None => Detector::None,
                LocalDetector::Networks(networks) => Detector::Networks { networks: networks.clone() },
                LocalDetector::Interface(name) => Detector::Interface { name: name.clone() },
                LocalDetector::InterfacePrefix(name) => Detector::InterfacePrefix { name: name.clone() },
            },
            masquerade_all: config.masquerade_all,
            masquerade_mark: config.masquerade_mark,
            node_ports: match &config.node_ports {
                NodePortAddresses::All => None,
                NodePortAddresses::Only(only) => Some(only.iter().copied().collect()),
            },
            service_networks: config.service_networks.clone(),
        }
    }
}

/// The machine's name, as kube-proxy takes it: in lower case.
fn portolan_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
