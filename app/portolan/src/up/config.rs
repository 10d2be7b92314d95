//! What `up` runs with: the flags (which `portolan-cli` has already merged with environment and file), made whole.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_apply::PlanConfig;
use portolan_cli::{Global, InstanceSubnet, Pool, UpArgs};
use portolan_model::{PortRange, ServiceNode};
use portolan_netlink::route;
use portolan_ports::{
    Pools, PortsConfig,
    ephemeral::{self, ephemeral_range},
    reserve,
};
use portolan_sandbox::{SandboxConfig, resolv_conf};

use crate::{
    node::{NodeConfig, OwnConfig},
    rights::Rights,
    services::{LO, ServicesSettings},
};

/// Everything that `up` is told.
#[derive(Clone, Debug)]
pub(crate) struct UpConfig {
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) page_listen: SocketAddr,
    pub(crate) register_listen: SocketAddr,
    pub(crate) dns_listen: SocketAddr,
    pub(crate) zone: String,
    pub(crate) pools: Vec<Pool>,
    pub(crate) node: String,
    /// Where clients reach this machine, best first. Never empty.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) v4: Ipv4Net,
    pub(crate) v6: Ipv6Net,
    /// Whether instances get networks of their own.
    pub(crate) dataplane: bool,
    /// Why they do not.
    pub(crate) why_not: Option<String>,
    /// Whether published ports are on the loopback too.
    pub(crate) localhost: bool,
    pub(crate) ttl: Duration,
    pub(crate) remove_after: Duration,
    pub(crate) quarantine: Duration,
    pub(crate) token: Option<String>,
    /// Files and folders of Services.
    pub(crate) services: Vec<PathBuf>,
    pub(crate) service_networks: Vec<IpNet>,
    pub(crate) node_ports: PortRange,
}

/// 10.213.0.0/16 is seldom used by anybody; the /64 is of the block for private use (RFC 4193) and spells "porto".
const INSTANCES_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
const INSTANCES_V6: Ipv6Net =
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0xfd70, 0x6f72, 0x746f, 0, 0, 0, 0, 0), 64);

impl UpConfig {
    /// Fills in what the machine itself says. Touches nothing.
    pub(crate) fn new(global: &Global, args: &UpArgs) -> anyhow::Result<Self> {
        let (mut v4, mut v6) = (INSTANCES_V4, INSTANCES_V6);
        for subnet in &args.instance_subnet {
            match *subnet {
                InstanceSubnet::V4(subnet) => v4 = subnet,
                InstanceSubnet::V6(subnet) => v6 = subnet,
            }
        }
        for (n, pool) in args.pools.iter().enumerate() {
            if let Some(other) =
                args.pools[..n].iter().find(|p| p.name == pool.name || p.range.overlaps(pool.range))
            {
                bail!("the pools {other} and {pool} have a name or ports in common: give each its own");
            }
        }
        let node = match &args.node_name {
            Some(node) => node.clone(),
            None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
        };
        let why_not = match Rights::own().missing() {
            _ if args.no_dataplane => Some("`portolan up` was started with --no-dataplane".to_owned()),
            Some(missing) => Some(format!("`portolan up` has no {missing}; start it as root")),
            None => None,
        };
        let mut config = Self {
            data: global.data_dir(),
            listen: args.listen,
            page_listen: args.page_listen,
            register_listen: args.register_listen,
            dns_listen: args.dns_listen,
            zone: args.zone.clone(),
            pools: args.pools.clone(),
            node,
            addresses: addresses(&args.advertise)?,
            v4,
            v6,
            dataplane: why_not.is_none(),
            why_not,
            localhost: args.localhost,
            ttl: args.ttl,
            remove_after: args.remove_after,
            quarantine: args.quarantine,
            token: global.read_token().context("the API's token")?,
            services: args.services.clone(),
            service_networks: args.service_cidr.clone(),
            node_ports: args.node_port_range,
        };
        if config.addresses.is_empty() {
            config.addresses = config.gateways();
        }
        if config.addresses.is_empty() {
            config.addresses.push(Ipv4Addr::LOCALHOST.into());
        }
        Ok(config)
    }

    /// The addresses by which instances with networks of their own reach this machine, and its DNS.
    pub(crate) fn gateways(&self) -> Vec<IpAddr> {
        if self.dataplane { self.sandboxes().gateways().collect() } else { Vec::new() }
    }

    /// What the owner of Services is told.
    pub(crate) fn services(&self) -> ServicesSettings {
        // Networks that this machine reaches otherwise; without them a range is chosen in the dark, which is told by the
        // first one who misses an address.
        let routes = route::Rtnl::open().and_then(|rtnl| rtnl.routes()).unwrap_or_default();
        // By the loopback there is only what a former life of ours has left.
        let others = routes.iter().filter(|route| route.interface != Some(LO));
        let routed = others.map(|route| route.destination).filter(|net| net.prefix_len() > 0);
        ServicesSettings {
            data: self.data.clone(),
            files: self.services.clone(),
            networks: self.service_networks.clone(),
            node_ports: self.node_ports,
            pools: self.pools.iter().map(|pool| pool.range).collect(),
            taken: routed.chain([self.v4.into(), self.v6.into()]).collect(),
            node: ServiceNode { name: self.node.clone(), zone: None, addresses: self.addresses.clone() },
            interfaces: SandboxConfig::LINK_PREFIX.to_owned(),
            dataplane: self.dataplane,
            localhost: self.localhost,
        }
    }

    /// What the node's engine is told.
    pub(crate) fn node(&self) -> anyhow::Result<NodeConfig> {
        let pools = self.pools.iter().map(|pool| portolan_ports::Pool {
            quarantine: self.quarantine,
            ..portolan_ports::Pool::new(pool.name.clone(), pool.range)
        });
        let own = if self.dataplane {
            Ok(OwnConfig {
                sandboxes: self.sandboxes(),
                plan: PlanConfig {
                    instances: vec![self.v4.into(), self.v6.into()],
                    outbound_ports: self.outbound_ports(),
                    interfaces: Some(SandboxConfig::LINK_PREFIX.to_owned()),
                    ..PlanConfig::default()
                },
                resolv_conf: resolv_conf(self.sandboxes().gateways(), &[&self.zone]),
            })
        } else {
            Err(self.why_not.clone().unwrap_or_default())
        };
        Ok(NodeConfig {
            node: self.node.clone(),
            addresses: self.addresses.clone(),
            data: self.data.clone(),
            ports: PortsConfig {
                folder: self.data.join("ports"),
                pools: Pools::new(pools.collect())?,
                holder: crate::holder::spawned()?,
                holder_socket: None,
                reserved_ports: Some(reserve::PATH.into()),
                patience: Duration::ZERO,
                durable: true,
            },
            own,
        })
    }

    /// The kernel's range for ports that nobody chose: the longest part of it that no pool has.
    fn outbound_ports(&self) -> PortRange {
        let mut parts =
            vec![ephemeral_range(Path::new(ephemeral::PATH)).unwrap_or(PlanConfig::default().outbound_ports)];
        for pool in &self.pools {
            parts = parts.into_iter().flat_map(|part| without(part, pool.range)).collect();
        }
        parts.into_iter().max_by_key(|part| part.count()).unwrap_or(PlanConfig::default().outbound_ports)
    }

    fn sandboxes(&self) -> SandboxConfig {
        SandboxConfig { v4: Some(self.v4), v6: Some(self.v6), ..SandboxConfig::default() }
    }
}

/// As given, else those by which this machine reaches the world. A machine without a network still serves itself: by
/// the gateways, which are its own addresses, or without namespaces by the loopback.
fn addresses(advertise: &[IpAddr]) -> anyhow::Result<Vec<IpAddr>> {
    if !advertise.is_empty() {
        return Ok(advertise.to_vec());
    }
    let primary = route::primary_addresses_except(&[SandboxConfig::LINK_PREFIX]);
    Ok(primary.context("reading this machine's addresses")?.iter().collect())
}

/// What is left of `part` on both sides of `hole`.
fn without(part: PortRange, hole: PortRange) -> impl Iterator<Item = PortRange> {
    if !part.overlaps(hole) {
        return [Some(part), None].into_iter().flatten();
    }
    let below = hole.first().checked_sub(1).and_then(|last| PortRange::new(part.first(), last).ok());
    let above = hole.last().checked_add(1).and_then(|first| PortRange::new(first, part.last()).ok());
    [below, above].into_iter().flatten()
}
