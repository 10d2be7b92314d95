//! Looks at instances from their registration on. The fourth stage.
//!
//! Each instance has a task with a timer of its own, so nobody waits for anybody else's time-out. What a look saw
//! goes through [`hysteresis::Judge`] in that task, and only a change of state is reported to the owner: an instance
//! that is fine costs the owner nothing.

mod hysteresis;
mod probe;

use std::{collections::HashMap, sync::Arc, time::Duration};

use hysteresis::Judge;
use portolan_model::{Name, State};
use portolan_telemetry::metrics::Metrics;
pub(crate) use probe::Level;
use rand::RngExt;
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use crate::table::Target;

/// A change of state that health has seen.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) target: Target,
    pub(crate) state: State,
    pub(crate) output: String,
}

/// When the first look is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// Now: somebody has just registered and waits to be served.
    AtOnce,
    /// At a random moment of the first interval: many were loaded at the same time, and looking at all of them at
    /// the same time would repeat itself each interval.
    Spread,
}

/// The tasks that look.
#[derive(Debug)]
pub(crate) struct Health {
    tasks: HashMap<Name, (Target, AbortHandle)>,
    context: Arc<Context>,
}

#[derive(Debug)]
struct Context {
    /// Looks at instances whose last look went well, and first looks.
    healthy: Semaphore,
    /// Looks at the others, which may well take the whole time-out.
    doubtful: Semaphore,
    reports: mpsc::Sender<Report>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// No tasks yet. At most `limit` looks happen at the same time.
    pub(crate) fn new(limit: usize, reports: mpsc::Sender<Report>, metrics: Arc<Metrics>) -> Self {
        let doubtful = (limit / 4).max(1);
        let context = Context {
            healthy: Semaphore::new(limit.saturating_sub(doubtful).max(1)),
            doubtful: Semaphore::new(doubtful),
            reports,
            metrics,
        };
        Self { tasks: HashMap::new(), context: Arc::new(context) }
    }

    /// Makes the tasks agree with what should be looked at for this name: starts, restarts or stops one, or leaves
    /// it alone. `state` is what is believed of the instance now.
    pub(crate) fn agree(&mut self, name: &Name, target: Option<Target>, state: State, first: First) {
        if self.tasks.get(name).map(|(running, _)| running) == target.as_ref() {
            return;
        }
        if let Some((_, task)) = self.tasks.remove(name) {
            task.abort();
        }
        if let Some(target) = target {
            let task = tokio::spawn(watch(target.clone(), state, first, Arc::clone(&self.context)));
            self.tasks.insert(name.clone(), (target, task.abort_handle()));
        }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        for (_, task) in self.tasks.values() {
            task.abort();
        }
    }
}

/// When something that was just started and is not there yet is looked at again; doubled each time, up to the check's
/// own interval.
const SOON: Duration = Duration::from_millis(100);

async fn watch(target: Target, state: State, first: First, context: Arc<Context>) {
    let mut judge = Judge::new(&target.check, state);
    if first == First::Spread {
        let part = rand::rng().random_range(0.0..1.0);
        sleep(target.check.interval.mul_f64(part)).await;
    }
    // Something that was just started is not there yet when it is looked at first. It is looked at again soon, and
    // that it was not there yet is not held against it.
    let mut soon = (first != First::Spread && state == State::Unknown).then_some(SOON);
    loop {
        let begun = Instant::now();
        let permits = if judge.is_doubtful() { &context.doubtful } else { &context.healthy };
        // The semaphores are never closed; if they were, there would be nothing left to do here.
        let Ok(permit) = permits.acquire().await else { return };
        let sight = probe::look(&target).await;
        drop(permit);
        context.metrics.health_check(sight.word());
        soon = soon.filter(|soon| sight.refused && *soon < target.check.interval);
        if let Some(pause) = soon {
            soon = Some(pause * 2);
            sleep(jittered(pause)).await;
            continue;
        }
        if let Some(state) = judge.observe(sight.level) {
            let report = Report { target: target.clone(), state, output: sight.output };
            if context.reports.send(report).await.is_err() {
                return;
            }
        }
        sleep_until(begun + jittered(target.check.interval)).await;
    }
}

/// The interval, up to 10 % shorter or longer, so that what was in step gets out of step.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::rng().random_range(0.9..=1.1))
}

#[cfg(test)]
mod tests;
