//! Ports for containers whose network somebody else made: any CNI plugin, or the host's own network.
//!
//! An attachment is given in this order, and taken back in the other:
//!
//! 1. numbers are chosen, bound by the holder and written down ([`portolan_ports`]),
//! 2. the rules that lead to it are made ([`portolan_apply`]). Only now do packets arrive.
//!
//! `give` does that, `collect` finds what belongs to nobody any more, `look` answers questions. Whatever a kill
//! interrupts, [`Attach::open`] makes good: the journal says what should be, and holds and rules are made to agree.
//!
//! The agent has one `Attach` for as long as it runs, with a data plane that repairs itself. The CNI plugin without an
//! agent has one for each call, in turns with others of its kind (`turn`).
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod collect;
mod error;
mod give;
mod look;
mod rules;
#[cfg(test)]
mod tests;
mod turn;
mod wish;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use ipnet::IpNet;
use portolan_apply::{ApplyError, OneShot, PlanConfig};
use portolan_model::Mapping;
use portolan_plan::Plan;
use portolan_ports::{Dropped, HolderMode, Pools, Ports, PortsConfig, Recovered};

use self::rules::Rules;
pub use self::{error::AttachError, rules::Plane, wish::Wish};

/// What an [`Attach`] is told.
#[derive(Clone, Debug)]
pub struct AttachConfig {
    /// Where the journal is.
    pub folder: PathBuf,
    /// What random ports are chosen from.
    pub pools: Pools,
    /// Where the process comes from that holds ports.
    pub holder: HolderMode,
    /// Where it is reached; `None` is in `folder`.
    pub holder_socket: Option<PathBuf>,
    /// [`portolan_ports::reserve::PATH`], or `None` to leave that setting alone.
    pub reserved_ports: Option<PathBuf>,
    /// How long another process that has the folder is waited for.
    pub patience: Duration,
    /// The rules, apart from the pools' ranges and the networks of attachments, which are known here.
    pub plan: PlanConfig,
    /// Mappings that belong to no lease.
    pub fixed: Vec<Mapping>,
    /// How the rules are kept.
    pub plane: Plane,
}

impl AttachConfig {
    fn ports(&self) -> PortsConfig {
        PortsConfig {
            folder: self.folder.clone(),
            pools: self.pools.clone(),
            holder: self.holder.clone(),
            holder_socket: self.holder_socket.clone(),
            reserved_ports: self.reserved_ports.clone(),
            patience: self.patience,
            // A power cut ends every container, so nobody waits for the disk.
            durable: false,
        }
    }
}

/// The ports of this machine's containers and the rules that lead to them.
pub struct Attach {
    ports: Ports,
    rules: Rules,
    /// What the rules depend on, as it was given.
    given: PlanConfig,
    /// The networks of attachments that the rules know of.
    local: BTreeSet<IpNet>,
    fixed: Vec<Mapping>,
    /// The rules may not be what the leases ask for.
    unsettled: bool,
}

impl Attach {
    /// Makes holds and rules agree with the journal in the folder, from whatever they are. Leases whose owner is gone
    /// are dropped, and their rules with them.
    pub fn open(config: AttachConfig) -> Result<(Self, Recovered), AttachError> {
        let (ports, recovered) = Ports::open(config.ports())?;
        Self::agree(config, ports, recovered)
    }

    /// Makes the rules agree with ports that were looked at.
    fn agree(
        config: AttachConfig,
        mut ports: Ports,
        mut recovered: Recovered,
    ) -> Result<(Self, Recovered), AttachError> {
        let local = locals(&ports);
        let effective = effective(&config.plan, &local, ports.pools());
        refuse_contradictions(&mut ports, &mut recovered, &effective, &config.fixed)?;
        let mappings = mappings(&ports, &config.fixed).collect();
        let rules = Rules::open(config.plane, effective, mappings)?;
        Ok((
            Self { ports, rules, given: config.plan, local, fixed: config.fixed, unsettled: false },
            recovered,
        ))
    }

    /// Ends the work and leaves everything as it is for the next start: rules, holds and journal. A process that took its
    /// [turn](Attach::take_turn) gives it to the next.
    pub fn close(self) {
        if !self.unsettled {
            self.ports.end_turn(self.rules.known().map(|known| known.0));
        }
    }

    /// Takes everything of the folder away, whoever left it: rules, holds, the reservation of the pools, the journal.
    /// Nothing there is nothing to do. A process that has the folder is waited for as long as `patience`. Goes on after a
    /// failure and returns what failed.
    pub fn wipe(
        folder: &Path,
        holder_socket: Option<&Path>,
        reserved: &Path,
        patience: Duration,
    ) -> Vec<String> {
        let mut failures = Vec::new();
        let rules = OneShot::open(PlanConfig::any()).and_then(|mut rules| rules.clear());
        failures.extend(rules.err().map(|error| format!("removing the nftables table: {error}")));
        failures.extend(Ports::wipe(folder, holder_socket, reserved, patience));
        failures
    }

    /// Takes everything away: leases, rules, holds and the reservation of the pools. Goes on after a failure and
    /// returns what failed.
    #[cfg(test)]
    pub fn remove(mut self) -> Vec<String> {
        let mut failures = Vec::new();
        if let Err(error) = self.rules.stop() {
            failures.push(format!("removing the nftables table: {error}"));
        }
        let leases: Vec<_> = self.ports.leases().map(|lease| lease.request.clone()).collect();
        for request in leases {
            self.ports.release(&request.instance, &request.incarnation);
        }
        failures.extend(self.ports.close().problems);
        failures
    }

    /// Follows other rules from now on: networks that are reached directly, who may reach which ports.
    pub fn set_plan(&mut self, plan: PlanConfig) -> Result<(), AttachError> {
        self.reconfigure(plan, locals(&self.ports))
    }

    /// Chooses from these pools from now on. Answers whose ports are in none of them now: those keep them.
    pub fn set_pools(&mut self, pools: Pools) -> Result<Vec<portolan_model::InstanceId>, AttachError> {
        let changed = self.ports.set_pools(pools);
        if let Some(error) = changed.unprotected {
            tracing::warn!("{error}");
        }
        self.reconfigure(self.given.clone(), locals(&self.ports))?;
        Ok(changed.outside)
    }

    /// Has these rules and networks, if they are not there already.
    fn reconfigure(&mut self, given: PlanConfig, local: BTreeSet<IpNet>) -> Result<(), AttachError> {
        let effective = effective(&given, &local, self.ports.pools());
        let (ports, fixed) = (&self.ports, &self.fixed);
        self.rules.reconfigure(effective, || mappings(ports, fixed).collect())?;
        (self.given, self.local) = (given, local);
        Ok(())
    }
}

/// All that is to be mapped.
fn mappings<'a>(ports: &'a Ports, fixed: &'a [Mapping]) -> impl Iterator<Item = Mapping> + use<'a> {
    fixed.iter().cloned().chain(ports.mappings_except(None))
}

fn locals(ports: &Ports) -> BTreeSet<IpNet> {
    ports.networks().clone()
}

/// The rules with what is known here.
fn effective(given: &PlanConfig, local: &BTreeSet<IpNet>, pools: &Pools) -> PlanConfig {
    let mut plan = given.clone();
    plan.local.extend(local);
    plan.local.sort_unstable();
    plan.local.dedup();
    plan.pools = pools.iter().flat_map(|pool| pool.ranges.iter()).collect();
    plan
}

/// Ends leases whose mappings no ruleset can have. They can be in the journal when a process was killed right before
/// the rules would have refused them; nobody was told their ports.
fn refuse_contradictions(
    ports: &mut Ports,
    recovered: &mut Recovered,
    config: &PlanConfig,
    fixed: &[Mapping],
) -> Result<(), AttachError> {
    let mut plan = Plan::with(config.clone(), fixed).map_err(ApplyError::from)?;
    let mut refused = Vec::new();
    for lease in ports.leases() {
        let mappings = lease.mappings();
        let mut added = Vec::new();
        for mapping in &mappings {
            match plan.add(mapping) {
                Ok(_) => added.push(mapping.key()),
                Err(error) => {
                    tracing::warn!(instance = %lease.request.instance, %error, "its ports cannot be mapped: dropped");
                    added.iter().for_each(|key| drop(plan.remove(key)));
                    refused.push(lease.request.clone());
                    break;
                }
            }
        }
    }
    for request in refused {
        let dropped = ports.release(&request.instance, &request.incarnation);
        recovered.kept.retain(|lease| lease.request.instance != request.instance);
        recovered.dropped.extend(dropped.map(|lease| (lease, Dropped::Displaced)));
    }
    Ok(())
}
