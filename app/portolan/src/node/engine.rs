//! Gives and takes back: ports, namespace, mappings, in this order and the reverse one.
//!
//! Nothing here is async: see [`super::handle`] for the thread that this runs on. Every effect can be rebuilt from the
//! journal of leases ([`portolan_ports`]), so [`Engine::open`] is the start, the repair after a crash and the clean-up of
//! what belongs to nobody, all in one.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use portolan_model::{
    Incarnation, LeaseReply, LeaseRequest, LeaseUsage, Name, Network, NodePorts, Owner,
};
use portolan_netlink::process::PidIdentity;
use portolan_ports::{Ports, PortsConfig};

use super::{
    error::NodeError,
    own::{self, OwnNetwork},
};

/// What the node is told.
#[derive(Clone, Debug)]
pub(crate) struct NodeConfig {
    /// Its name.
    pub(crate) node: String,
    /// Where clients reach it, best first.
    pub(crate) addresses: Vec<IpAddr>,
    /// The data folder.
    pub(crate) data: PathBuf,
    /// Pools, quarantine and the holder.
    pub(crate) ports: PortsConfig,
    /// How instances get networks of their own, or why not.
    pub(crate) own: Result<own::OwnConfig, String>,
}

/// Owner of everything that this machine gives to instances.
pub(crate) struct Engine {
    config: NodeConfig,
    ports: Ports,
    own: Option<OwnNetwork>,
    shut_down: bool,
}

impl Engine {
    /// Opens the journal, keeps the leases whose supervisors live, and makes kernel and namespaces agree with them.
    pub(crate) fn open(config: NodeConfig) -> anyhow::Result<Self> {
        let (ports, recovered) = Ports::open(config.ports.clone())?;
        for warning in &recovered.warnings {
            tracing::warn!("{warning}");
        }
        for lease in &recovered.dropped {
            tracing::info!(instance = %lease.instance, "its supervisor is gone: its ports are free again");
        }
        let own = match &config.own {
            Ok(own) => Some(OwnNetwork::open(own, &config.data, ports.leases())?),
            Err(_) => None,
        };
        if ports.leases().next().is_some() {
            tracing::info!(leases = ports.leases().count(), "took over what the last `up` left");
        }
        Ok(Self { config, ports, own, shut_down: false })
    }

    /// Ports for an instance, and with [`Network::Own`] a namespace whose mappings work when this returns. The same
    /// answer for the same owner. On an error nothing is left behind.
    pub(crate) fn lease(&mut self, request: &LeaseRequest) -> Result<LeaseReply, NodeError> {
        if !alive(request.owner) {
            return Err(NodeError::NoOwner(request.owner));
        }
        if let Some(lease) = self.ports.get(&request.instance) {
            let owner = lease.owner;
            if owner == request.owner && lease.answers(request) {
                return Ok(self.reply(lease));
            }
            if owner == request.owner {
                return Err(NodeError::Different(request.instance.clone()));
            }
            if alive(owner) {
                return Err(NodeError::NameTaken { name: request.instance.clone(), owner });
            }
            self.take_back(&request.instance)?;
        }
        let (v4, v6) = match request.network {
            Network::Host => (None, None),
            Network::Own => self.choose_addresses(&request.instance)?,
        };
        let lease = self.ports.lease(request, v4, v6)?;
        if let Some(own) = self.own.as_mut().filter(|_| request.network == Network::Own)
            && let Err(error) = own.connect(&lease)
        {
            // The namespace and the mappings have been undone; the numbers were never reachable: no quarantine needed.
            if let Err(error) = self.ports.release(&request.instance) {
                tracing::warn!(instance = %request.instance, %error, "cannot give back the ports of a lease that failed");
            }
            return Err(error);
        }
        Ok(self.reply(&lease))
    }

    /// Takes everything back, when `life` is the one that has it.
    pub(crate) fn release(&mut self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        self.check(name, life)?;
        self.take_back(name)
    }

    /// Closes the sockets that hold the ports of an instance on the host's network, which is about to bind them.
    pub(crate) fn give_up_holds(&mut self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        self.check(name, life)?;
        Ok(self.ports.give_up_holds(name)?)
    }

    /// Binds them again.
    pub(crate) fn hold_again(&mut self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        self.check(name, life)?;
        Ok(self.ports.hold_again(name)?)
    }

    /// Takes back what belongs to supervisors that are gone, and says whose it was.
    pub(crate) fn reap(&mut self) -> Vec<Name> {
        let gone: Vec<Name> =
            self.ports.leases().filter(|l| !alive(l.owner)).map(|l| l.instance.clone()).collect();
        for name in &gone {
            tracing::warn!(instance = %name, "its supervisor is gone: ports and namespace are taken back");
            if let Err(error) = self.take_back(name) {
                tracing::error!(instance = %name, %error, "cannot take everything back; trying again");
            }
        }
        gone
    }

    /// What the pools have left and who has what.
    pub(crate) fn usage(&mut self) -> NodePorts {
        let leases = self.ports.leases().map(|lease| LeaseUsage {
            instance: lease.instance.clone(),
            owner: lease.owner,
            network: lease.network,
            ports: lease.ports.clone(),
            addresses: lease.v4.map(IpAddr::V4).into_iter().chain(lease.v6.map(IpAddr::V6)).collect(),
        });
        NodePorts { node: self.config.node.clone(), leases: leases.collect(), pools: self.ports.usage() }
    }

    /// How the data plane does, for the metrics; `None` where there is none.
    pub(crate) fn dataplane(&mut self) -> Option<portolan_apply::Stats> {
        self.own.as_ref().map(OwnNetwork::stats)
    }

    /// Ends. With leases whose supervisors live, rules, holds and journal stay for the next `up`, and packets flow on
    /// meanwhile; without, nothing is left. Returns what could not be cleaned up.
    pub(crate) fn shut_down(&mut self) -> Vec<String> {
        self.reap();
        self.shut_down = true;
        let live = self.ports.leases().count();
        if live > 0 {
            tracing::info!(leases = live, "instances still run: their ports stay as they are for the next `up`");
            return Vec::new();
        }
        let mut failures = Vec::new();
        if let Some(own) = self.own.take() {
            failures.extend(own.close());
        }
        failures.extend(self.ports.close());
        failures
    }

    /// Whether [`Engine::shut_down`] was called.
    pub(crate) const fn is_shut_down(&self) -> bool {
        self.shut_down
    }

    /// Path first, then the number: no packet is sent to where nobody is.
    fn take_back(&mut self, name: &Name) -> Result<(), NodeError> {
        let Some(lease) = self.ports.get(name).cloned() else { return Ok(()) };
        if let Some(own) = self.own.as_mut().filter(|_| lease.network == Network::Own) {
            own.disconnect(&lease)?;
        }
        Ok(self.ports.release(name)?)
    }

    fn check(&self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        match self.ports.get(name) {
            Some(lease) if lease.incarnation == *life => Ok(()),
            _ => Err(NodeError::NotFound(name.clone())),
        }
    }

    fn choose_addresses(&self, name: &Name) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), NodeError> {
        let Some(own) = &self.own else {
            let why = self.config.own.as_ref().err().cloned().unwrap_or_default();
            return Err(NodeError::NoDataPlane(why));
        };
        let used: BTreeSet<IpAddr> = self
            .ports
            .leases()
            .flat_map(|lease| lease.v4.map(IpAddr::V4).into_iter().chain(lease.v6.map(IpAddr::V6)))
            .collect();
        own.choose_addresses(name, &used)
    }

    fn reply(&self, lease: &portolan_ports::Lease) -> LeaseReply {
        let own = self.own.as_ref().filter(|_| lease.network == Network::Own);
        LeaseReply {
            ports: lease.ports.clone(),
            addresses: self.config.addresses.clone(),
            node: self.config.node.clone(),
            network: lease.network,
            namespace: own.map(|own| own.namespace(&lease.instance)),
            resolv_conf: own.map(|own| own.resolv_conf().display().to_string()),
            holder: self.ports.holder_socket().display().to_string(),
            v4: lease.v4,
            v6: lease.v6,
        }
    }
}

fn alive(owner: Owner) -> bool {
    PidIdentity { pid: owner.pid, start_time: owner.start_time }.is_alive()
}
