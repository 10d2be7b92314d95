//! Questions, and what belongs to a single lease.

use std::os::fd::OwnedFd;

use portolan_apply::{Counts, Stats};
use portolan_model::{
    Incarnation, InstanceId, MappingKey, NodePorts, PortRange, Protocol, Protocols, PublishedPort,
};
use portolan_ports::{Lease, hold::Hold};

use super::{Attach, AttachError, mappings};

impl Attach {
    /// Whether everything of this life of the instance is as [`Attach::attach`] left it: the lease, its holds, and the
    /// rules. Holder and kernel are asked, not our memory.
    pub fn check(
        &mut self,
        instance: &InstanceId,
        incarnation: &Incarnation,
    ) -> Result<Vec<PublishedPort>, AttachError> {
        let lease = self.ports.get(instance).filter(|lease| lease.request.incarnation == *incarnation);
        let lease = lease.cloned().ok_or_else(|| AttachError::Unknown(instance.clone()))?;
        if let Some(hold) = self.ports.missing(&lease)?.first() {
            return Err(AttachError::NotHeld { instance: instance.clone(), hold: *hold });
        }
        let all: Vec<_> = mappings(&self.ports, &self.fixed).collect();
        let differences = self.rules.check(&all)?;
        if differences.is_empty() { Ok(lease.ports) } else { Err(AttachError::Differs(differences)) }
    }

    /// Whether this life of the instance has a lease.
    pub fn has(&self, instance: &InstanceId, incarnation: &Incarnation) -> bool {
        self.ports.get(instance).is_some_and(|lease| lease.request.incarnation == *incarnation)
    }

    /// The lease of an instance.
    pub fn get(&self, instance: &InstanceId) -> Option<&Lease> {
        self.ports.get(instance)
    }

    /// All leases, by instance.
    pub fn leases(&self) -> impl Iterator<Item = &Lease> {
        self.ports.leases()
    }

    /// The instances whose ports should be held and are not, because something else has one of them.
    pub fn unheld(&self) -> impl Iterator<Item = &InstanceId> {
        self.ports.unheld()
    }

    /// What the pools have left and who has what.
    pub fn usage(&mut self, node: String) -> NodePorts {
        self.ports.of_node(node)
    }

    /// What the data plane has done since it started.
    pub fn stats(&self) -> Stats {
        self.rules.stats()
    }

    /// Reads what came by each mapping since it was added. It takes some milliseconds for 10,000 mappings, and may be
    /// called on any thread.
    pub fn counters(&self) -> impl FnOnce() -> Result<Vec<(MappingKey, Counts)>, AttachError> + Send + use<> {
        let door = self.rules.live();
        move || door.map_or_else(|| Ok(Vec::new()), |door| Ok(door.counters()?))
    }

    /// Keeps random choices from these static host ports of others; those that were said before are forgotten.
    pub fn avoid(&mut self, ports: Vec<(Protocol, u16)>) {
        let one = |(protocol, port): (Protocol, u16)| {
            Some((Protocols::from(protocol), PortRange::single(port).ok()?))
        };
        self.ports.avoid("other Pods", ports.into_iter().filter_map(one).collect());
    }

    /// Lets go of the sockets of an instance on the host's network, whose process is about to bind them.
    pub fn give_up_hold(&mut self, instance: &InstanceId) -> Result<(), AttachError> {
        Ok(self.ports.give_up_hold(instance)?)
    }

    /// The very socket that holds a port, for a relay to listen on. `None` when it is not held.
    pub fn borrow(&mut self, hold: Hold) -> Result<Option<OwnedFd>, AttachError> {
        Ok(self.ports.borrow(hold)?)
    }
}
