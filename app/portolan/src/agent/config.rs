//! What the agent runs with: the flags, made whole.

use std::{
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    time::Duration,
};

use anyhow::bail;
use ipnet::IpNet;
use portolan_apply::Counting;
use portolan_cli::{AgentArgs, Count, Global};
use portolan_model::PortRange;

use super::pools::NodePool;
use crate::rights::Rights;

/// What everything in the agent may want to know.
#[derive(Clone, Debug)]
pub(crate) struct AgentConfig {
    /// The Node's name.
    pub(crate) node: String,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// The addresses to advertise, if somebody said.
    pub(crate) advertise: Vec<IpAddr>,
    /// The pools where the cluster has no PortPool.
    pub(crate) pools: Vec<NodePool>,
    /// For pools that do not say.
    pub(crate) quarantine: Duration,
    /// The networks of Pods and Services, if somebody said.
    pub(crate) direct: Vec<IpNet>,
    /// Those of Services of type NodePort.
    pub(crate) node_ports: PortRange,
    /// The address that Pods ask.
    pub(crate) self_address: Option<Ipv4Addr>,
    /// The kernel's list of ports that it must not choose.
    pub(crate) reserved_ports: PathBuf,
    /// What is counted for each port.
    pub(crate) counting: Counting,
}

impl AgentConfig {
    /// Fills in what the machine says. Touches nothing.
    pub(crate) fn new(global: &Global, args: &AgentArgs) -> anyhow::Result<Self> {
        if !Rights::own().net_admin {
            bail!(
                "the agent has no CAP_NET_ADMIN: run it as root on the host network, with that capability added"
            );
        }
        for (index, pool) in args.pools.iter().enumerate() {
            if let Some(other) = args.pools[..index]
                .iter()
                .find(|other| other.name == pool.name || other.range.overlaps(pool.range))
            {
                bail!("the pools {other} and {pool} have a name or ports in common: give each its own");
            }
        }
        let node = match &args.node_name {
            Some(node) => node.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let pools = args.pools.iter();
        let pools =
            pools.map(|pool| NodePool::configured(pool.name.clone(), pool.range, args.quarantine)).collect();
        Ok(Self {
            node,
            data: global.data_dir(),
            advertise: args.advertise.clone(),
            pools,
            quarantine: args.quarantine,
            direct: args.direct.clone(),
            node_ports: args.node_ports,
            self_address: (!args.no_self_address).then_some(args.self_address),
            reserved_ports: args.reserved_ports_file.clone(),
            counting: match args.count {
                Count::Off => Counting::Off,
                Count::Connections => Counting::Connections,
                Count::Traffic => Counting::Traffic,
            },
        })
    }

    /// Where the files that are mounted into containers are.
    pub(crate) fn pods(&self) -> PathBuf {
        self.data.join("pods")
    }

    /// Where the networks of the cluster are remembered.
    pub(crate) fn networks(&self) -> PathBuf {
        self.data.join("networks.json")
    }

    /// Whether the kernel can be told to keep its own choices out of the pools.
    pub(crate) fn reserves(&self) -> bool {
        std::fs::OpenOptions::new().write(true).open(&self.reserved_ports).is_ok()
    }
}
