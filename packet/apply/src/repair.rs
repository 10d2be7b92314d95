//! Bringing the table back after others have changed it: at once, but never in a spin.
//!
//! `nft flush ruleset`, a firewall's reload, a hand that meant another table: the rules would be gone and every
//! published port dead (kubernetes#93091, firewalld#779, rke2#10469). We hear of it from the kernel ([`crate::watch`])
//! and write the table again. If another program insists on its own idea of our table, the two must not burn the
//! machine: after a few repairs in a row each further one waits longer, up to a second.

use std::time::{Duration, Instant};

/// So many repairs are made at once, one after the other.
const FREE: u32 = 4;
/// The wait before the next one; it doubles each time.
const FIRST: Duration = Duration::from_millis(20);
/// No wait is longer.
const LONGEST: Duration = Duration::from_secs(1);
/// After so long without a repair everything is forgotten.
const FORGET: Duration = Duration::from_secs(10);

/// When the next repair may be made.
#[derive(Debug)]
pub(crate) struct Pace {
    /// How many there were in a row.
    row: u32,
    last: Option<Instant>,
}

impl Pace {
    pub(crate) const fn new() -> Self {
        Self { row: 0, last: None }
    }

    /// A repair is made now, or was tried.
    pub(crate) fn repaired(&mut self, now: Instant) {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > FORGET) {
            self.row = 0;
        }
        self.row = self.row.saturating_add(1);
        self.last = Some(now);
    }

    /// How long the next one has to wait from now.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let Some(last) = self.last else { return Duration::ZERO };
        let doublings = match self.row.checked_sub(FREE) {
            Some(over) if now.saturating_duration_since(last) <= FORGET => over,
            _ => return Duration::ZERO,
        };
        let pause = FIRST.saturating_mul(1 << doublings.min(16)).min(LONGEST);
        (last + pause).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repairs_are_made_at_once() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        for _ in 0..FREE {
            assert_eq!(pace.wait(now), Duration::ZERO);
            pace.repaired(now);
        }
        assert_eq!(pace.wait(now), FIRST);
    }

    #[test]
    fn an_endless_fight_is_fought_once_a_second() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        let start = now;
        for _ in 0..100 {
            now += pace.wait(now);
            pace.repaired(now);
        }
        assert!(now - start > Duration::from_secs(80), "100 repairs took {:?}", now - start);
        assert!(pace.wait(now) <= LONGEST);
    }

    #[test]
    fn a_quiet_time_makes_it_quick_again() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        (0..50).for_each(|_| pace.repaired(now));
        let later = now + FORGET + Duration::from_millis(1);
        assert_eq!(pace.wait(later), Duration::ZERO);
        pace.repaired(later);
        assert_eq!(pace.wait(later), Duration::ZERO);
    }
}
