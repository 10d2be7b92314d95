//! What becomes of an instance that no longer renews: the leases, and the clock that they run on.
//!
//! A lease that runs out makes its instance `expired`, which readers are no longer sent to, and later it is removed.
//! Nothing here reads the wall clock, so a jump of it neither expires nor saves anybody.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use portolan_model::Name;
use tokio::time::Instant;

/// The longest time that one step of the clock takes off a lease.
const LONGEST_STEP: Duration = Duration::from_secs(2);

/// A monotonic clock that does not count the time in which this process did not run.
///
/// When the registry was stopped (SIGSTOP, a debugger, a paused virtual machine, a disk that hung for a minute),
/// nobody could renew. Counting that time would expire everybody at once for a fault of ours. The owner steps the
/// clock at least once a second; of a longer gap only the first [`LONGEST_STEP`] counts.
#[derive(Debug)]
pub(crate) struct PatientClock {
    last: Instant,
    elapsed: Duration,
}

impl PatientClock {
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: now, elapsed: Duration::ZERO }
    }

    /// The time since the start without the pauses.
    pub(crate) fn step(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.last);
        if passed > LONGEST_STEP {
            tracing::warn!(
                ?passed,
                "the registry did not run for a while: no lease is charged for that time"
            );
        }
        self.last = now;
        self.elapsed += passed.min(LONGEST_STEP);
        self.elapsed
    }
}

/// Who is due when, on the patient clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    by_time: BTreeSet<(Duration, Name)>,
    by_name: HashMap<Name, Duration>,
}

impl Leases {
    /// Sets the time at which `name` is due, in the place of any before.
    pub(crate) fn set(&mut self, name: &Name, due: Duration) {
        if let Some(before) = self.by_name.insert(name.clone(), due) {
            self.by_time.remove(&(before, name.clone()));
        }
        self.by_time.insert((due, name.clone()));
    }

    /// Forgets `name`.
    pub(crate) fn remove(&mut self, name: &Name) {
        if let Some(due) = self.by_name.remove(name) {
            self.by_time.remove(&(due, name.clone()));
        }
    }

    /// Takes out one that is due, the longest due first.
    pub(crate) fn pop(&mut self, now: Duration) -> Option<Name> {
        let (due, _) = self.by_time.first()?;
        if *due > now {
            return None;
        }
        let (_, name) = self.by_time.pop_first()?;
        self.by_name.remove(&name);
        Some(name)
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.by_time.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_process_is_charged_to_nobody() {
        let start = Instant::now();
        let mut clock = PatientClock::new(start);
        assert_eq!(clock.step(start + Duration::from_millis(900)), Duration::from_millis(900));
        assert_eq!(clock.step(start + Duration::from_secs(3600)), Duration::from_millis(2900));
        assert_eq!(clock.step(start + Duration::from_secs(3601)), Duration::from_millis(3900));
    }

    #[test]
    fn the_longest_due_comes_first_and_a_new_time_replaces_the_old() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mut leases = Leases::default();
        leases.set(&name("a"), Duration::from_secs(3));
        leases.set(&name("b"), Duration::from_secs(2));
        leases.set(&name("c"), Duration::from_secs(1));
        leases.set(&name("c"), Duration::from_secs(9));
        leases.remove(&name("b"));
        assert_eq!(leases.next(), Some(Duration::from_secs(3)));
        assert_eq!(leases.pop(Duration::from_secs(2)), None);
        assert_eq!(leases.pop(Duration::from_secs(20)), Some(name("a")));
        assert_eq!(leases.pop(Duration::from_secs(20)), Some(name("c")));
        assert_eq!(leases.pop(Duration::from_secs(20)), None);
    }
}
