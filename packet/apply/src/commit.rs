//! From changes of mappings to one transaction, and what to do when the kernel refuses it.
//!
//! Changes that arrive together are written together: a transaction costs about as much with a hundred elements as
//! with one. If it is refused, each change is tried alone, so that only the guilty one fails. If our table is not as we
//! left it, because somebody else changed it at that moment, the whole table is compared and written instead.

use std::{sync::Arc, time::Instant};

use ipnet::IpNet;
use portolan_model::{Mapping, MappingKey};
use portolan_netlink::step;
use portolan_nft::{Nft, Transaction};
use portolan_plan::{Changes, Counting, Difference, Placement, Plan, PlanConfig, PlanError, Touched, diff};

use crate::{ApplyError, ledger::Ledger, stats::Shared};

/// The plan, and the kernel that follows it.
#[derive(Debug)]
pub(crate) struct Committer<N> {
    pub(crate) plan: Plan,
    pub(crate) nft: N,
    pub(crate) stats: Arc<Shared>,
    pub(crate) ledger: Arc<Ledger>,
    /// The kernel cannot count: it is not asked again.
    pub(crate) uncounted: bool,
}

/// What a change did to the plan: enough to undo it.
#[derive(Debug, Default)]
struct Done {
    removed: Vec<Mapping>,
    added: Vec<Mapping>,
}

impl<N: Nft> Committer<N> {
    /// Makes these changes, each wholly or not at all; the answers are in their order. `touched` learns of what was
    /// made.
    pub(crate) fn commit<'a>(
        &mut self,
        requests: impl IntoIterator<Item = (&'a [MappingKey], &'a [Mapping])>,
        touched: &mut Touched,
    ) -> Vec<Result<(), ApplyError>> {
        let requests: Vec<_> = requests.into_iter().collect();
        let mut together = Changes::none();
        let mut answers = Vec::with_capacity(requests.len());
        for (remove, add) in &requests {
            answers.push(self.plan(remove, add).map(|(done, changes)| {
                together.append(changes);
                done
            }));
        }
        if let Err(error) = self.write(together, touched) {
            let one_by_one = answers.iter().flatten().count() > 1;
            tracing::debug!(%error, one_by_one, "a transaction was refused");
            for done in answers.iter().rev().flatten() {
                self.undo(done);
            }
            for (answer, (remove, add)) in answers.iter_mut().zip(&requests) {
                if answer.is_ok() {
                    *answer = if one_by_one { self.alone(remove, add, touched) } else { Err(error.clone()) };
                }
            }
        }
        let answers = answers.into_iter().map(|answer| self.account(answer, touched)).collect();
        self.stats.lock().mappings = self.plan.len();
        answers
    }

    fn alone(
        &mut self,
        remove: &[MappingKey],
        add: &[Mapping],
        touched: &mut Touched,
    ) -> Result<Done, ApplyError> {
        let (done, changes) = self.plan(remove, add)?;
        if let Err(error) = self.write(changes, touched) {
            self.undo(&done);
            return Err(error);
        }
        Ok(done)
    }

    fn account(&self, answer: Result<Done, ApplyError>, touched: &mut Touched) -> Result<(), ApplyError> {
        let mut stats = self.stats.lock();
        match answer {
            Ok(done) => {
                stats.adds += done.added.len() as u64;
                stats.removes += done.removed.len() as u64;
                drop(stats);
                for mapping in done.removed.iter().chain(&done.added) {
                    touched.mapping(mapping);
                    // Whoever has this port now begins at 0.
                    self.ledger.forget(&mapping.key());
                }
                Ok(())
            }
            Err(error) => {
                stats.refused += 1;
                Err(error)
            }
        }
    }

    /// Changes the plan only; on an error it is as before.
    fn plan(&mut self, remove: &[MappingKey], add: &[Mapping]) -> Result<(Done, Changes), ApplyError> {
        let (mut done, mut changes) = (Done::default(), Changes::none());
        let result = (|| -> Result<(), PlanError> {
            for key in remove {
                let mapping = self.plan.get(key).cloned().ok_or(PlanError::Unknown(*key))?;
                changes.append(self.plan.remove(key)?);
                done.removed.push(mapping);
            }
            for mapping in add {
                changes.append(self.plan.add(mapping)?);
                done.added.push(mapping.clone());
            }
            Ok(())
        })();
        match result {
            Ok(()) => Ok((done, changes)),
            Err(error) => {
                self.undo(&done);
                Err(error.into())
            }
        }
    }

    /// Takes a change of the plan back. It held before, so it holds again.
    fn undo(&mut self, done: &Done) {
        for mapping in done.added.iter().rev() {
            let _ = self.plan.remove(&mapping.key());
        }
        for mapping in done.removed.iter().rev() {
            let _ = self.plan.add(mapping);
        }
    }

    /// Writes what the plan has changed; or, if the table is not what we think it is, compares all of it.
    fn write(&mut self, changes: Changes, touched: &mut Touched) -> Result<(), ApplyError> {
        let transaction = changes.transaction(self.plan.config());
        step::reached("rules.planned");
        let result = self.run(&transaction);
        step::reached("rules.written");
        match result {
            Err(error) if is_drift(&error) => {
                tracing::debug!(%error, "the table is not as it was left; comparing all of it");
                let difference = self.compare()?;
                touched.elements(&difference.transaction);
                self.stats.lock().repairs += 1;
                tracing::warn!(found = ?difference.found, "the packet rules had been changed by somebody else and were repaired");
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Brings the table to what the plan asks for, from whatever it is. Returns what was found.
    pub(crate) fn compare(&mut self) -> Result<Difference, ApplyError> {
        let have = self.nft.dump(&self.plan.table())?;
        let difference = diff(have.as_ref(), &self.plan.ruleset());
        self.run(&difference.transaction)?;
        Ok(difference)
    }

    /// The same at the start, where it turns out whether the kernel can count.
    pub(crate) fn compare_or_count_less(&mut self) -> Result<Difference, ApplyError> {
        let wanted = self.plan.config().counting;
        let error = match self.compare() {
            Err(ApplyError::Kernel { error }) if wanted != Counting::Off && cannot(&error) => error,
            result => return result,
        };
        let config = PlanConfig { counting: Counting::Off, ..self.plan.config().clone() };
        let plan = Plan::with(config, self.plan.mappings())?;
        let counting = std::mem::replace(&mut self.plan, plan);
        match self.compare() {
            Ok(difference) => {
                tracing::warn!(%error, "this kernel cannot count in elements of sets (5.7 can): nothing is counted");
                self.uncounted = true;
                Ok(difference)
            }
            Err(_) => {
                // It was something else.
                self.plan = counting;
                Err(ApplyError::Kernel { error })
            }
        }
    }

    /// Makes the table one of another configuration with the same mappings, in one transaction. On an error nothing
    /// has changed.
    pub(crate) fn reconfigure(&mut self, mut config: PlanConfig) -> Result<Difference, ApplyError> {
        if self.uncounted {
            config.counting = Counting::Off;
        }
        if config.table != self.plan.config().table {
            let why = "the table's name cannot be changed while the data plane runs".to_owned();
            return Err(PlanError::Config(why).into());
        }
        let same_but_local = PlanConfig { local: config.local.clone(), ..self.plan.config().clone() };
        if same_but_local == config && config.placement == Placement::Any {
            return self.reconfigure_local(config.local);
        }
        let plan = Plan::with(config, self.plan.mappings())?;
        let difference = diff(Some(&self.plan.ruleset()), &plan.ruleset());
        let before = std::mem::replace(&mut self.plan, plan);
        let result = match self.run(&difference.transaction) {
            Err(error) if is_drift(&error) => self.compare(),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(difference),
        };
        if result.is_err() {
            self.plan = before;
        }
        result
    }

    /// The same where only the networks of instances are others, which is at most a few elements.
    fn reconfigure_local(&mut self, local: Vec<IpNet>) -> Result<Difference, ApplyError> {
        let before = self.plan.config().local.clone();
        let transaction = self.plan.set_local(local).transaction(self.plan.config());
        let result = match self.run(&transaction) {
            Err(error) if is_drift(&error) => self.compare(),
            Err(error) => Err(error.into()),
            // Nothing was found, since no flow can be of a network that was not there, or is not any more.
            Ok(()) => Ok(Difference { transaction: Transaction::new(self.plan.table()), found: Vec::new() }),
        };
        if result.is_err() {
            self.plan.set_local(before);
        }
        result
    }

    fn run(&mut self, transaction: &Transaction) -> Result<(), portolan_nft::Error> {
        if transaction.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let result = self.nft.run(transaction);
        let mut stats = self.stats.lock();
        stats.commits += 1;
        stats.last_commit = start.elapsed();
        result
    }
}

/// Whether the kernel refused, and not because of who asked.
fn cannot(error: &portolan_nft::Error) -> bool {
    error.errno().is_some() && !error.is_permission_denied()
}

/// Whether an error means that the table is not what we think: something is missing or there already, or an answer
/// was lost. Anything else would be refused again.
pub(crate) fn is_drift(error: &portolan_nft::Error) -> bool {
    matches!(error, portolan_nft::Error::Unconfirmed(_))
        || error.is_not_found()
        || error.is_already_exists()
        || error.is_busy()
}

#[cfg(test)]
mod tests;
