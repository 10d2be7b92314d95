//! What belongs to nobody any more, and what is not as it should be.

use portolan_model::Attachment;
use portolan_ports::{Lease, Maintained, owner};

use super::{Attach, AttachError, locals, mappings};

impl Attach {
    /// Takes back what belongs to owners that are gone; says what it was. What cannot be taken back is tried again the
    /// next time.
    pub fn reap(&mut self) -> Vec<Lease> {
        let gone = |lease: &&Lease| !owner::is_alive(&lease.request.owner);
        let gone: Vec<Lease> = self.ports.leases().filter(gone).cloned().collect();
        self.take_back_all(gone, "its network namespace is gone: its ports are free again")
    }

    /// Takes back what belongs to attachments of this network that are not among the valid ones: CNI's GC.
    pub fn gc(&mut self, network: &str, valid: &[Attachment]) -> Vec<Lease> {
        let is_valid = |own: &Attachment| {
            valid.iter().any(|one| (&one.container, &one.interface) == (&own.container, &own.interface))
        };
        let stale = |lease: &&Lease| {
            let attachment = lease.request.attachment.as_ref();
            attachment.is_some_and(|own| own.network == network && !is_valid(own))
        };
        let stale: Vec<Lease> = self.ports.leases().filter(stale).cloned().collect();
        self.take_back_all(stale, "its runtime does not know it any more: its ports are free again")
    }

    fn take_back_all(&mut self, leases: Vec<Lease>, why: &str) -> Vec<Lease> {
        let mut done = Vec::with_capacity(leases.len());
        for lease in leases {
            let instance = &lease.request.instance;
            match self.take_back(&lease) {
                Ok(()) => {
                    tracing::info!(%instance, "{why}");
                    done.push(lease);
                }
                Err(error) => tracing::error!(%instance, %error, "cannot take everything back; trying again"),
            }
        }
        done
    }

    /// Compares holds, the reservation and the networks of attachments with what they should be, and mends them. The
    /// rules mend themselves.
    pub fn maintain(&mut self) -> Maintained {
        self.reap();
        let mut done = self.ports.maintain();
        if done.reserved_again {
            tracing::warn!("somebody changed ip_local_reserved_ports: the pools are in it again");
        }
        if !done.strays.is_empty() {
            tracing::warn!(holds = done.strays.len(), "let go of ports that were held for nobody");
        }
        // Gone between the two lines above: the rules are all that is left of them.
        if !done.dropped.is_empty()
            && let Err(error) = self.restore()
        {
            done.problems.push(error.to_string());
        }
        if let Err(error) = self.reconfigure(self.given.clone(), locals(&self.ports)) {
            done.problems.push(error.to_string());
        }
        for problem in &done.problems {
            tracing::error!("{problem}; trying again");
        }
        done
    }

    /// Has the mappings of all leases and no others.
    pub(super) fn restore(&mut self) -> Result<(), AttachError> {
        Ok(self.rules.set(mappings(&self.ports, &self.fixed).collect())?)
    }
}
