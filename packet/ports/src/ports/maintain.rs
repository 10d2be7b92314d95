//! What should be, again and again: holds, leases of the living, the reservation, the journal. And the end.

use std::collections::HashSet;

use super::{Ports, PortsError};
use crate::{
    compare::difference,
    hold::Hold,
    holder::HoldError,
    lease::{Lease, Owner},
    owner,
};

/// What [`Ports::maintain`] has changed.
#[derive(Debug, Default)]
pub struct Maintained {
    /// Leases whose process was gone: they are released, and their mappings should be taken away.
    pub dropped: Vec<Lease>,
    /// What was held and belonged to nobody.
    pub strays: Vec<Hold>,
    /// Whether our ranges had to be put back into `ip_local_reserved_ports`.
    pub reserved_again: bool,
    /// What did not work and is tried again the next time.
    pub problems: Vec<String>,
}

/// What [`Ports::close`] leaves.
#[derive(Debug)]
pub struct Closed {
    /// Leases that go on: their holds and the reservation stay for the next start. 0 means that nothing is left.
    pub kept: usize,
    /// What could not be cleaned up.
    pub problems: Vec<String>,
}

/// Those of `owners` that run. One owner often has many leases, and is looked at once.
pub(super) fn living(owners: impl Iterator<Item = Owner>) -> HashSet<Owner> {
    let owners: HashSet<Owner> = owners.collect();
    owners.into_iter().filter(owner::is_alive).collect()
}

impl Ports {
    /// Compares everything with what it should be and mends it. To be called every few seconds, and after anything
    /// strange. Does nothing, cheaply, when nothing is wrong.
    pub fn maintain(&mut self) -> Maintained {
        let mut done = Maintained::default();
        let living = living(self.leases.values().map(|lease| lease.request.owner.clone()));
        let gone = |lease: &&Lease| !living.contains(&lease.request.owner);
        let gone: Vec<_> = self.leases.values().filter(gone).map(|lease| lease.request.clone()).collect();
        for request in gone {
            done.dropped.extend(self.release(&request.instance, &request.incarnation));
        }
        match self.compare() {
            Ok(strays) => done.strays = strays,
            Err(error) => done.problems.push(error.to_string()),
        }
        match self.reservation.as_mut().map(|reservation| reservation.check()) {
            Some(Ok(again)) => done.reserved_again = again,
            Some(Err(error)) => done.problems.push(error.to_string()),
            None => {}
        }
        if let Err(error) = self.catch_up() {
            done.problems.push(error.to_string());
        }
        if let Err(error) = self.journal.sync() {
            done.problems.push(error.to_string());
        }
        done
    }

    /// Ends the work. With leases left, holds and reservation stay for the next start (the holder ends by itself if
    /// there is none); without, the holders end, and `ip_local_reserved_ports` is what it was.
    pub fn close(mut self) -> Closed {
        let mut problems = Vec::new();
        if let Err(error) = self.catch_up() {
            problems.push(error.to_string());
        }
        let kept = self.leases.len();
        if kept == 0 {
            if let Err(error) = self.holder.shutdown() {
                problems.push(error.to_string());
            }
            if let Some(Err(error)) = self.reservation.map(|reservation| reservation.restore()) {
                problems.push(error.to_string());
            }
        }
        Closed { kept, problems }
    }

    /// Lets go of what is held for nobody (and answers what that was), and holds what is not held.
    pub(super) fn compare(&mut self) -> Result<Vec<Hold>, PortsError> {
        self.holder.take_lost();
        let held = self.holder.list()?;
        let wanted: Vec<Hold> =
            self.leases.values().filter(|lease| lease.held).flat_map(Lease::holds).collect();
        let strays = difference(&held, &wanted);
        self.holder.release(&strays)?;
        if difference(&wanted, &held).is_empty() {
            self.unheld.clear();
            return Ok(strays);
        }
        let mut problem = None;
        let names: Vec<_> = self.leases.values().filter(|lease| lease.held).cloned().collect();
        for lease in names {
            let missing = difference(&lease.holds(), &held);
            let name = &lease.request.instance;
            if missing.is_empty() {
                self.unheld.remove(name);
                continue;
            }
            match self.holder.hold(&missing) {
                Ok(()) => {
                    self.unheld.remove(name);
                }
                Err(error) => {
                    if self.unheld.insert(name.clone()) {
                        tracing::warn!(instance = %name, %error, "its ports are not held; trying again");
                    }
                    // One port that is taken says nothing about the others; a holder that cannot be started does.
                    if !matches!(error, HoldError::Refused(_)) {
                        problem.get_or_insert(error);
                    }
                }
            }
        }
        problem.map_or(Ok(strays), |error| Err(error.into()))
    }
}
