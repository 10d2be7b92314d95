//! Gives and takes back: ports, namespace, mappings, in this order and the reverse one.
//!
//! Nothing here is async: see [`super::handle`] for the thread that this runs on. Every effect can be rebuilt from the
//! journal of leases ([`portolan_ports`]), so [`Engine::open`] is the start, the repair after a crash and the clean-up of
//! what belongs to nobody, all in one.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    path::PathBuf,
};

use portolan_model::{
    Incarnation, InstanceId, LeaseReply, LeaseRequest, Name, Network, NodePorts, PublishedPort,
};
use portolan_ports::{Lease, Ports, PortsConfig, hold::Hold, owner};

use super::{
    error::NodeError,
    own::{self, OwnNetwork},
};
use crate::loopback::{Wanted, targets};

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
}

impl Engine {
    /// Opens the journal, keeps the leases whose supervisors live, and makes kernel and namespaces agree with them.
    pub(crate) fn open(config: NodeConfig) -> anyhow::Result<Self> {
        let (ports, recovered) = Ports::open(config.ports.clone())?;
        recovered.report();
        let own = match &config.own {
            Ok(own) => match OwnNetwork::open(own, &config.data, ports.leases()) {
                Ok(own) => Some(own),
                Err(error) => {
                    for problem in ports.close().problems {
                        tracing::error!("not cleaned up: {problem}");
                    }
                    return Err(error);
                }
            },
            Err(_) => None,
        };
        Ok(Self { config, ports, own })
    }

    /// Ports for an instance, and with [`Network::Own`] a namespace whose mappings work when this returns. The same
    /// answer for the same owner. On an error nothing is left behind.
    pub(crate) fn lease(&mut self, request: &LeaseRequest) -> Result<LeaseReply, NodeError> {
        let name = &request.instance;
        if !owner::is_alive(&request.owner) {
            return Err(NodeError::NoOwner(request.owner.clone()));
        }
        let known = self.ports.get(&name.into()).map(|lease| lease.request.clone());
        if let Some(known) = known {
            let owner = known.owner.clone();
            if owner == request.owner && known.requests == request.ports && known.network == request.network {
                let lease = self.ports.lease(portolan_ports::LeaseRequest {
                    incarnation: request.incarnation.clone(),
                    ..known
                })?;
                return Ok(self.reply(&lease));
            }
            if owner == request.owner {
                return Err(NodeError::Different(name.clone()));
            }
            if owner::is_alive(&owner) {
                return Err(NodeError::NameTaken { name: name.clone(), owner });
            }
            self.take_back(name)?;
        }
        let (v4, v6) = match request.network {
            Network::Host => (None, None),
            Network::Own => self.choose_addresses(name)?,
        };
        let lease = self.ports.lease(portolan_ports::LeaseRequest {
            instance: name.into(),
            incarnation: request.incarnation.clone(),
            owner: request.owner.clone(),
            requests: request.ports.clone(),
            network: request.network,
            v4,
            v6,
            local: Vec::new(),
            attachment: None,
        })?;
        if let Some(own) = self.own.as_mut().filter(|_| request.network == Network::Own)
            && let Err(error) = own.connect(&lease)
        {
            // The namespace and the mappings have been undone already.
            self.ports.release(&name.into(), &request.incarnation);
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
        Ok(self.ports.give_up_hold(&name.into())?)
    }

    /// Binds them again. What somebody else still has is tried again by [`Engine::maintain`].
    pub(crate) fn hold_again(&mut self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        self.check(name, life)?;
        if !self.ports.hold_again(&name.into())? {
            tracing::debug!(instance = %name, "a port is still in use; it is held when it is free again");
        }
        Ok(())
    }

    /// Takes back what belongs to supervisors that are gone, and says whose it was.
    pub(crate) fn reap(&mut self) -> Vec<Name> {
        let gone = self.ports.leases().filter(|lease| !owner::is_alive(&lease.request.owner));
        let gone: Vec<Name> = gone.filter_map(name_of).collect();
        for name in &gone {
            tracing::warn!(instance = %name, "its supervisor is gone: ports and namespace are taken back");
            if let Err(error) = self.take_back(name) {
                tracing::error!(instance = %name, %error, "cannot take everything back; trying again");
            }
        }
        gone
    }

    /// Compares holds and reservation with what they should be, and mends them.
    pub(crate) fn maintain(&mut self) {
        let done = self.ports.maintain();
        if done.reserved_again {
            tracing::warn!("somebody changed ip_local_reserved_ports: the pools are in it again");
        }
        if !done.strays.is_empty() {
            tracing::warn!(holds = done.strays.len(), "let go of ports that were held for nobody");
        }
        for problem in done.problems {
            tracing::error!("{problem}; trying again");
        }
    }

    /// What is to be on the loopback: the ports of instances with networks of their own. Those on the host's network
    /// listen there by themselves. Only the one that is named, or all.
    pub(crate) fn on_loopback(&self, only: Option<&InstanceId>) -> HashMap<InstanceId, Wanted> {
        let leases = self.ports.leases().filter(|lease| lease.request.network == Network::Own);
        let leases = leases.filter(|lease| only.is_none_or(|only| lease.request.instance == *only));
        let wanted = |lease: &Lease| {
            let request = &lease.request;
            let everywhere = |port: &&PublishedPort| port.address.is_none_or(|address| address.is_loopback());
            let targets = targets(lease.ports.iter().filter(everywhere), request.v4, request.v6);
            (request.instance.clone(), (request.incarnation.clone(), targets))
        };
        leases.map(wanted).collect()
    }

    /// Whether this life of the instance has a lease.
    pub(crate) fn has(&self, instance: &InstanceId, life: &Incarnation) -> bool {
        self.ports.get(instance).is_some_and(|lease| lease.request.incarnation == *life)
    }

    /// The instances whose ports should be held and are not.
    pub(crate) fn unheld(&self) -> HashSet<InstanceId> {
        self.ports.unheld().cloned().collect()
    }

    /// The very socket that holds a port of this life, for a relay to listen on. `None` when it is not held.
    pub(crate) fn borrow(
        &mut self,
        instance: &InstanceId,
        life: &Incarnation,
        hold: Hold,
    ) -> Result<Option<OwnedFd>, NodeError> {
        match self.ports.get(instance) {
            Some(lease) if lease.request.incarnation == *life => Ok(self.ports.borrow(hold)?),
            _ => Ok(None),
        }
    }

    /// What the pools have left and who has what.
    pub(crate) fn usage(&mut self) -> NodePorts {
        self.ports.of_node(self.config.node.clone())
    }

    /// How the data plane does, for the metrics; `None` where there is none.
    pub(crate) fn dataplane(&self) -> Option<portolan_apply::Stats> {
        self.own.as_ref().map(OwnNetwork::stats)
    }

    /// Ends. With leases whose supervisors live, rules, holds and journal stay for the next `up`, and packets flow on
    /// meanwhile; without, nothing is left. Returns what could not be cleaned up.
    pub(crate) fn close(mut self) -> Vec<String> {
        self.reap();
        let live = self.ports.leases().count();
        let mut failures = Vec::new();
        if live > 0 {
            tracing::info!(
                leases = live,
                "instances still run: their ports stay as they are for the next `up`"
            );
        } else if let Some(own) = self.own.take() {
            failures.extend(own.close());
        }
        failures.extend(self.ports.close().problems);
        failures
    }

    /// Path first, then the number: no packet is sent to where nobody is. Goes on after a failure; what failed is
    /// tried again by [`Engine::reap`], as the lease stays.
    fn take_back(&mut self, name: &Name) -> Result<(), NodeError> {
        let id = InstanceId::from(name);
        let Some(lease) = self.ports.get(&id).cloned() else { return Ok(()) };
        if let Some(own) = self.own.as_mut().filter(|_| lease.request.network == Network::Own) {
            own.disconnect(&lease)?;
        }
        self.ports.release(&id, &lease.request.incarnation);
        // A supervisor that was killed could not.
        let file = crate::run::ports_file(&self.config.data, name);
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(file = %file.display(), %error, "cannot remove");
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, name: &Name, life: &Incarnation) -> Result<(), NodeError> {
        match self.ports.get(&name.into()) {
            Some(lease) if lease.request.incarnation == *life => Ok(()),
            _ => Err(NodeError::NotFound(name.clone())),
        }
    }

    fn choose_addresses(&self, name: &Name) -> Result<(Option<Ipv4Addr>, Option<Ipv6Addr>), NodeError> {
        let Some(own) = &self.own else {
            let why = self.config.own.as_ref().err().cloned().unwrap_or_default();
            return Err(NodeError::NoDataPlane(why));
        };
        own.choose_addresses(name, &self.ports.leases().flat_map(Lease::addresses).collect())
    }

    fn reply(&self, lease: &Lease) -> LeaseReply {
        let request = &lease.request;
        let own = self.own.as_ref().filter(|_| request.network == Network::Own);
        LeaseReply {
            ports: lease.ports.clone(),
            addresses: self.config.addresses.clone(),
            node: self.config.node.clone(),
            network: request.network,
            namespace: own.zip(name_of(lease)).map(|(own, name)| own.namespace(&name)),
            resolv_conf: own.map(|own| own.resolv_conf().display().to_string()),
            holder: self.ports.holder_socket().display().to_string(),
            v4: request.v4,
            v6: request.v6,
        }
    }
}

/// Whose it is: `run` gives names, and nobody else has a lease here.
fn name_of(lease: &Lease) -> Option<Name> {
    lease.request.instance.as_name()
}
