//! What the rules are made from: as the proxy of this machine tells, or as a file says.

use std::{collections::BTreeSet, net::IpAddr, path::Path};

use anyhow::{Context as _, bail};
use http::Method;
use ipnet::IpNet;
use portolan_cli::TraceArgs;
use portolan_client::{Client, Endpoint};
use portolan_model::{EndpointSlice, Service, ServiceNode};
use portolan_services::{LocalDetector, NodePortAddresses, Services, ServicesConfig};
use serde::{Deserialize, Serialize};

use crate::output::problem::Hint as _;

/// The answer of `GET /v1/services` at the socket of a proxy.
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
    /// From where the flags say.
    pub(crate) async fn get(args: &TraceArgs, own: &[IpAddr]) -> anyhow::Result<Self> {
        match &args.from {
            Some(path) => Self::read(args, path, own),
            None => {
                let client = Client::new(Endpoint::Unix(args.socket.clone()), None);
                let asked = client.request_json(Method::GET, "/v1/services", None::<&()>).await;
                asked.hint(
                    "is there a `portolan proxy` on this machine, and are you root? --socket says where it answers; \
                     --from FILE reads Services from a file, --table NAME the rules that the kernel has",
                )
            }
        }
    }

    fn read(args: &TraceArgs, path: &Path, own: &[IpAddr]) -> anyhow::Result<Self> {
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
        let detector = if networks.is_empty() { Detector::None } else { Detector::Networks { networks } };
        let usual = ServicesConfig::default();
        let config = Config {
            table: usual.table,
            node: ServiceNode { name, zone: None, addresses: own.to_vec() },
            detector,
            masquerade_all: usual.masquerade_all,
            masquerade_mark: usual.masquerade_mark,
            node_ports: None,
            service_networks: usual.service_networks,
        };
        Ok(Self { config, services, slices: manifest.slices })
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

/// The machine's name, as kube-proxy takes it: in lower case.
fn portolan_host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().to_lowercase()
}
