//! How much is written at once.
//!
//! The kernel holds one lock of all of nftables for as long as it works on a transaction: meanwhile no other program can
//! change a rule, and who lists rules waits. kube-proxy writes everything in one transaction, for seconds and minutes
//! (kubernetes#139328). Ours are cut so that each takes some [`GOAL`], by what the last ones took on this machine: a fifth
//! of what would be too long, since a thread that holds the lock may have to wait for a processor itself.

use std::time::Duration;

/// How long a transaction shall take.
const GOAL: Duration = Duration::from_millis(10);
/// The elements of the first one.
const FIRST: usize = 1000;
/// Fewer are not worth a transaction, which costs about as much as fifty elements, and waits for its turn on a busy
/// machine.
const FEWEST: usize = 500;
/// More do not make it quicker, and take memory.
const MOST: usize = 8000;

/// The size of the next transaction.
#[derive(Debug)]
pub(crate) struct Stride {
    elements: usize,
}

impl Default for Stride {
    fn default() -> Self {
        Self { elements: FIRST }
    }
}

impl Stride {
    /// How many elements the next transaction may have.
    pub(crate) const fn elements(&self) -> usize {
        self.elements
    }

    /// So many elements took so long.
    pub(crate) fn measured(&mut self, elements: usize, took: Duration) {
        // Small ones say nothing of an element's cost.
        if elements < FEWEST {
            return;
        }
        let fit = elements as f64 * GOAL.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // One measurement may have been interrupted, so it halves or doubles at most.
        self.elements = (fit as usize).clamp(self.elements / 2, self.elements * 2).clamp(FEWEST, MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest transaction when each element takes `cost`, from the third on.
    fn longest(cost: Duration) -> Duration {
        let mut stride = Stride::default();
        let mut times = (0..20).map(|_| {
            let took = cost * stride.elements() as u32;
            stride.measured(stride.elements(), took);
            took
        });
        times.by_ref().take(2).for_each(drop);
        times.max().unwrap_or_default()
    }

    #[test]
    fn no_transaction_takes_longer_than_it_should_on_machines_of_any_speed() {
        for nanoseconds in [300, 1_000, 5_000, 20_000, 80_000] {
            let took = longest(Duration::from_nanos(nanoseconds));
            assert!(took <= Duration::from_millis(40), "{nanoseconds} ns: {took:?}");
        }
    }

    #[test]
    fn a_quick_machine_writes_much_at_once() {
        let mut stride = Stride::default();
        (0..10).for_each(|_| stride.measured(stride.elements(), Duration::from_millis(1)));
        assert_eq!(stride.elements(), MOST);
        // And one interruption does not make it slow.
        stride.measured(MOST, Duration::from_secs(1));
        assert_eq!(stride.elements(), MOST / 2);
    }
}
