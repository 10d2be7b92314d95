//! The data plane of a process that lives for one change: no thread, no watch, nothing that grows with the mappings.
//!
//! A CNI plugin without an agent is started for each change. Reading a table of 10,000 mappings would take it longer
//! than everything else, so it looks at what is cheap and lets the kernel check the rest: what a change adds must not
//! be there, what it removes must be there, and the rules are compared unless nobody has touched any table since the
//! last change ([`Known`]). If anything is otherwise, the whole table is compared and repaired, as [`crate::DataPlane`]
//! does.
//!
//! Processes that take turns must agree on what is mapped before: the caller keeps the list, and a lock around the
//! change and the list.

use std::{
    collections::{HashSet, hash_map::DefaultHasher},
    hash::{Hash as _, Hasher as _},
};

use ipnet::IpNet;
use portolan_model::{Mapping, MappingKey};
use portolan_netlink::{Bus, Socket, conntrack::Conntrack};
use portolan_nft::{Kernel, Nft, Transaction};
use portolan_plan::{
    Changes, Difference, Plan, PlanConfig, PlanError, SetId, Touched, concerned, concerned_by_flows, diff,
    same_shape,
};

use crate::{
    ApplyError,
    commit::is_drift,
    flush::{FlushError, delete_stale},
};

/// Makes single changes in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct OneShot<N = Kernel> {
    config: PlanConfig,
    nft: N,
    /// Tracked connections by the same socket, where that outlives this process.
    flows: Option<Conntrack>,
}

/// The state in which a change left the kernel, to be given to the next one: a number without further meaning. With it
/// the next change need not look at the rules, if nobody has changed any table since. A wrong one does no harm beyond a
/// repair that comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Known(pub u64);

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// For the next change; `None` when somebody else changed something at the same time.
    pub known: Option<Known>,
    /// What was not as it should have been, and was repaired: `table inet portolan is missing`.
    pub repaired: Vec<String>,
    /// UDP connections that were deleted because they went to the wrong place.
    pub flows_deleted: u64,
    /// Why that could not be looked at. The change is made all the same.
    pub unflushed: Option<String>,
}

impl OneShot {
    /// Opens the door. Changes nothing yet.
    ///
    /// # Errors
    /// No socket could be had.
    pub fn open(config: PlanConfig) -> Result<Self, ApplyError> {
        Ok(Self { config, nft: Kernel::open()?, flows: None })
    }

    /// Opens the door by a socket that was opened in this network namespace, perhaps by an earlier process. Whoever
    /// keeps it open spares each process the close: [`Socket::adopt`].
    ///
    /// # Errors
    /// The socket is none for netfilter.
    pub fn over(config: PlanConfig, socket: Socket) -> Result<Self, ApplyError> {
        let flows = socket.try_clone(Bus::Netfilter).map_err(nft_error)?;
        Ok(Self { config, nft: Kernel::over(socket), flows: Some(Conntrack::over(flows)) })
    }
}

impl<N: Nft> OneShot<N> {
    /// Removes and adds mappings, all of them or none. `before`: all mappings that hold until now, those to be removed
    /// among them. A mapping that is removed and added again with another instance is replaced: no packet finds
    /// nothing. Stale UDP connections are gone when this returns.
    ///
    /// # Errors
    /// Then nothing of this change was made.
    pub fn change(
        &mut self,
        before: &[Mapping],
        remove: &[MappingKey],
        add: &[Mapping],
        known: Option<Known>,
    ) -> Result<Done, ApplyError> {
        let concerned: Vec<Mapping> = concerned(before, remove, add).cloned().collect();
        self.change_concerned(&concerned, || before.to_vec(), remove, add, known)
    }

    /// [`OneShot::change`] for a caller that finds what is concerned without going through all mappings: those to be
    /// removed, those that lead to an instance which one of these or of `add` leads to, and those that share a port of
    /// the same protocol with one of `add`. More do no harm. `before`, all that hold until now, is asked for only when
    /// the table has to be repaired, and when tracked connections have to be judged.
    ///
    /// # Errors
    /// Then nothing of this change was made.
    pub fn change_concerned(
        &mut self,
        concerned: &[Mapping],
        before: impl Fn() -> Vec<Mapping>,
        remove: &[MappingKey],
        add: &[Mapping],
        known: Option<Known>,
    ) -> Result<Done, ApplyError> {
        let mut plan = Plan::with(self.config.clone(), concerned)?;
        let mut touched = Touched::default();
        let changes = make(&mut plan, remove, add, &mut touched)?;
        let generation = self.nft.generation()?;
        let transaction = changes.transaction(&self.config);
        let mut repaired = Vec::new();
        let trusted = known == Some(self.known(generation)) || self.is_in_shape()?;
        let drifted = match if trusted { self.run(&transaction) } else { Ok(false) } {
            Ok(made) => !made,
            Err(error) if is_drift(&error) => true,
            Err(error) => return Err(error.into()),
        };
        let after = || after(&before(), remove, add);
        if drifted {
            let difference = self.restore_table(&after())?;
            touched.merge(&Touched::everything_and(&difference));
            repaired = difference.found;
        }
        Ok(self.finish(generation, repaired, &touched, after))
    }

    /// Follows a configuration with other networks of instances ([`PlanConfig::local`]). The cost does not depend on how
    /// many mappings there are; `mappings`, all that hold, is asked for only when the table has to be repaired.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn set_local(
        &mut self,
        local: Vec<IpNet>,
        mappings: impl Fn() -> Vec<Mapping>,
        known: Option<Known>,
    ) -> Result<Done, ApplyError> {
        let mut plan = Plan::new(self.config.clone())?;
        let transaction = plan.set_local(local).transaction(&self.config);
        let generation = self.nft.generation()?;
        let trusted = known == Some(self.known(generation)) || self.is_in_shape()?;
        let drifted = match if trusted { self.run(&transaction) } else { Ok(false) } {
            Ok(made) => !made,
            Err(error) if is_drift(&error) => true,
            Err(error) => return Err(error.into()),
        };
        let before = std::mem::replace(&mut self.config, plan.config().clone());
        if drifted {
            return self.restore(&mappings()).inspect_err(|_| self.config = before);
        }
        Ok(self.finish(generation, Vec::new(), &Touched::default(), mappings))
    }

    /// Brings the table to these mappings, from whatever it is.
    ///
    /// # Errors
    /// The mappings contradict each other, or the kernel refused.
    pub fn restore(&mut self, mappings: &[Mapping]) -> Result<Done, ApplyError> {
        let generation = self.nft.generation()?;
        let difference = self.restore_table(mappings)?;
        let touched =
            if difference.is_empty() { Touched::default() } else { Touched::everything_and(&difference) };
        Ok(self.finish(generation, difference.found, &touched, || mappings.to_vec()))
    }

    /// What is not as these mappings ask for, in words; nothing is changed.
    ///
    /// # Errors
    /// The mappings contradict each other, or the kernel could not be read.
    pub fn check(&mut self, mappings: &[Mapping]) -> Result<Vec<String>, ApplyError> {
        let plan = Plan::with(self.config.clone(), mappings)?;
        let have = self.nft.dump(&plan.table())?;
        Ok(diff(have.as_ref(), &plan.ruleset()).found)
    }

    /// Deletes the table, and no other.
    ///
    /// # Errors
    /// The kernel would not.
    pub fn clear(&mut self) -> Result<(), ApplyError> {
        let mut transaction = Transaction::new(Plan::new(self.config.clone())?.table());
        transaction.destroy_table();
        Ok(self.nft.run(&transaction)?)
    }

    /// `true`: it was run. Nothing to run is fine too.
    fn run(&mut self, transaction: &Transaction) -> Result<bool, portolan_nft::Error> {
        if !transaction.is_empty() {
            self.nft.run(transaction)?;
        }
        Ok(true)
    }

    fn restore_table(&mut self, mappings: &[Mapping]) -> Result<Difference, ApplyError> {
        let plan = Plan::with(self.config.clone(), mappings)?;
        let have = self.nft.dump(&plan.table())?;
        let difference = diff(have.as_ref(), &plan.ruleset());
        self.run(&difference.transaction)?;
        Ok(difference)
    }

    /// Whether rules, declarations and what follows from the configuration are as they should be.
    fn is_in_shape(&mut self) -> Result<bool, ApplyError> {
        let empty = Plan::new(self.config.clone())?;
        let (table, want) = (empty.table(), empty.ruleset());
        let Some(have) = self.nft.dump_shape(&table)? else { return Ok(false) };
        if !same_shape(&have, &want) {
            return Ok(false);
        }
        for set in SetId::all(&self.config).filter(|set| set.is_configured()) {
            let Some(filled) = want.find_set(&set.name()) else { continue };
            let mut elements = self.nft.elements(&table, &filled.set)?;
            elements.sort_by(|one, other| one.key.cmp(&other.key));
            let same = elements.len() == filled.elements.len()
                && elements.iter().zip(&filled.elements).all(|(one, other)| one.means(other));
            if !same {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn finish(
        &mut self,
        generation: u32,
        repaired: Vec<String>,
        touched: &Touched,
        mappings: impl Fn() -> Vec<Mapping>,
    ) -> Done {
        // One step further, or none: nobody else changed anything between the first look and this one.
        let now = self.nft.generation().ok();
        let alone = now.filter(|now| now.wrapping_sub(generation) <= 1);
        let known = alone.map(|now| self.known(now));
        let (mut flows_deleted, mut unflushed) = (0, None);
        if !touched.is_empty() {
            match self.flush(touched, mappings) {
                Ok(deleted) => flows_deleted = deleted,
                Err(error) => {
                    tracing::warn!(%error, "stale UDP connections may remain until they are silent for two minutes");
                    unflushed = Some(error.to_string());
                }
            }
        }
        Done { known, repaired, flows_deleted, unflushed }
    }

    fn flush(&self, touched: &Touched, mappings: impl Fn() -> Vec<Mapping>) -> Result<u64, FlushError> {
        let mut all = None;
        let opened;
        let conntrack = match &self.flows {
            Some(flows) => flows,
            None => {
                opened = Conntrack::open()?;
                &opened
            }
        };
        delete_stale(conntrack, touched, |flows, local| {
            let mappings = all.get_or_insert_with(&mappings);
            let plan = Plan::with(self.config.clone(), concerned_by_flows(mappings, &flows))?;
            let stale = |flow| plan.is_stale(flow, touched, |address| local.contains(&address));
            Ok(flows.iter().map(stale).collect())
        })
    }

    fn known(&self, generation: u32) -> Known {
        // The hash need not last: another one only means one look more.
        let mut hasher = DefaultHasher::new();
        format!("{:?}", self.config).hash(&mut hasher);
        Known(hasher.finish() << 32 | u64::from(generation))
    }
}

fn nft_error(error: portolan_netlink::NetlinkError) -> ApplyError {
    portolan_nft::Error::Socket(error.to_string()).into()
}

/// Changes the plan.
fn make(
    plan: &mut Plan,
    remove: &[MappingKey],
    add: &[Mapping],
    touched: &mut Touched,
) -> Result<Changes, PlanError> {
    let mut changes = Changes::none();
    for key in remove {
        let mapping = plan.get(key).cloned().ok_or(PlanError::Unknown(*key))?;
        changes.append(plan.remove(key)?);
        touched.mapping(&mapping);
    }
    for mapping in add {
        changes.append(plan.add(mapping)?);
        touched.mapping(mapping);
    }
    Ok(changes)
}

fn after(before: &[Mapping], remove: &[MappingKey], add: &[Mapping]) -> Vec<Mapping> {
    let remove: HashSet<&MappingKey> = remove.iter().collect();
    let stays = |mapping: &&Mapping| !remove.contains(&mapping.key());
    before.iter().filter(stays).chain(add).cloned().collect()
}
