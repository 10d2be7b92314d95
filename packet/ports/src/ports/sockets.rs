//! The sockets that hold the ports of a lease: let go of, held again, and lent.

use std::os::fd::{BorrowedFd, OwnedFd};

use portolan_model::InstanceId;

use super::{Ports, PortsError, now_or_later};
use crate::{
    hold::Hold,
    holder::{HoldError, wire::Failure},
    lease::Lease,
    replay::Record,
};

impl Ports {
    /// What should be held for a lease and is not. The holder is asked.
    pub fn missing(&mut self, lease: &Lease) -> Result<Vec<Hold>, PortsError> {
        if !lease.held {
            return Ok(Vec::new());
        }
        Ok(crate::compare::difference(&lease.holds(), &self.holder.list()?))
    }

    /// Lets go of the sockets of an instance on the host's network, right before its process binds them. The lease
    /// stays, and `ip_local_reserved_ports` keeps clients away meanwhile.
    pub fn give_up_hold(&mut self, instance: &InstanceId) -> Result<(), PortsError> {
        let holds = self.set_held(instance, false)?;
        self.unheld.remove(instance);
        // Not soon: they must be closed when the process comes.
        now_or_later(self.holder.release(&holds));
        Ok(())
    }

    /// Holds the ports again, after the process has ended. `false` when something still has one of them, such as
    /// connections in TIME_WAIT or a child of the process: [`Ports::maintain`] goes on trying.
    pub fn hold_again(&mut self, instance: &InstanceId) -> Result<bool, PortsError> {
        let holds = self.set_held(instance, true)?;
        self.hold_missing(instance, &holds)
    }

    /// The socket of a held port, for a relay: [`HolderClient::borrow`](crate::holder::HolderClient::borrow).
    pub fn borrow(&mut self, hold: Hold) -> Result<Option<OwnedFd>, PortsError> {
        Ok(self.holder.borrow(hold)?)
    }

    /// Ends a [`Ports::borrow`].
    pub fn give_back(&mut self, hold: Hold) -> Result<(), PortsError> {
        Ok(self.holder.give_back(hold)?)
    }

    /// Leaves a descriptor with the holder for a later process: [`HolderClient::keep`](crate::holder::HolderClient::keep).
    pub fn keep(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), PortsError> {
        Ok(self.holder.keep(name, descriptor)?)
    }

    /// What an earlier process has [left](Ports::keep).
    pub fn kept(&mut self, name: &str) -> Result<Option<OwnedFd>, PortsError> {
        Ok(self.holder.kept(name)?)
    }

    /// Marks a lease as held or not, first in the journal; answers what it holds.
    pub(super) fn set_held(&mut self, instance: &InstanceId, held: bool) -> Result<Vec<Hold>, PortsError> {
        self.catch_up()?;
        let unknown = || PortsError::Unknown { instance: instance.clone() };
        let lease = self.leases.get_mut(instance).ok_or_else(unknown)?;
        if lease.held != held {
            let incarnation = lease.request.incarnation.clone();
            self.journal.append(&[Record::Held { instance: instance.clone(), incarnation, held }])?;
            lease.held = held;
        }
        Ok(lease.holds())
    }

    /// Holds what is not held of a lease, and notes whether that was possible.
    pub(super) fn hold_missing(&mut self, instance: &InstanceId, holds: &[Hold]) -> Result<bool, PortsError> {
        let held = self.holder.list()?;
        let missing = crate::compare::difference(holds, &held);
        match self.holder.hold(&missing) {
            Ok(()) => {
                self.unheld.remove(instance);
                Ok(true)
            }
            Err(HoldError::Refused(failures)) if failures.iter().all(Failure::is_taken) => {
                self.unheld.insert(instance.clone());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}
