//! How long to wait before the next attempt: doubling, bounded, with jitter, so that the agents of a thousand nodes do
//! not all come back in the same moment.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// The first wait.
const SHORTEST: Duration = Duration::from_millis(200);
/// The longest wait: an API server that is back is noticed within this time, and twice of it with jitter.
const LONGEST: Duration = Duration::from_secs(8);

/// Waits that grow until [`Backoff::reset`].
#[derive(Debug)]
pub(crate) struct Backoff(ExponentialBackoff);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(build())
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST)
    }

    /// It worked: the next failure waits shortly again.
    pub(crate) fn reset(&mut self) {
        self.0 = build();
    }
}

fn build() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(SHORTEST)
        .with_max_delay(LONGEST)
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_begin_anew_after_success() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] >= SHORTEST && waits[0] <= 2 * SHORTEST, "{waits:?}");
        assert!(waits[20..].iter().all(|wait| (LONGEST..=2 * LONGEST).contains(wait)), "{waits:?}");
        backoff.reset();
        assert!(backoff.next() <= 2 * SHORTEST);
    }
}
