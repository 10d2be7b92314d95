//! Samples of times, taken in turns, and what they say.

use std::time::{Duration, Instant};

/// Times of the same work, by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples {
    rounds: Vec<Vec<Duration>>,
}

impl Samples {
    /// Begins a round.
    pub(crate) fn begin_round(&mut self) {
        self.rounds.push(Vec::new());
    }

    /// Adds a time to the last round.
    pub(crate) fn add(&mut self, time: Duration) {
        match self.rounds.last_mut() {
            Some(round) => round.push(time),
            None => self.rounds.push(vec![time]),
        }
    }

    /// Does `work`, adds how long it took, and hands on what it said.
    pub(crate) fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let said = work();
        self.add(start.elapsed());
        said
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// The time below which `percent` of the samples are; nothing without samples.
    pub(crate) fn percentile(&self, percent: f64) -> Option<Duration> {
        let all: Vec<Duration> = self.rounds.iter().flatten().copied().collect();
        percentile(all, percent)
    }

    /// `12 µs (11–14)`: the median, and the lowest and highest median of a round. A dash without samples.
    pub(crate) fn median_and_spread(&self) -> String {
        let medians: Vec<_> =
            self.rounds.iter().filter_map(|round| percentile(round.clone(), 50.0)).collect();
        match (self.percentile(50.0), medians.iter().min(), medians.iter().max()) {
            (Some(median), Some(&low), Some(&high)) => {
                format!("{} ({}–{})", show(median), number(low, median), number(high, median))
            }
            _ => "—".to_owned(),
        }
    }

    /// The 99th percentile as text. A dash when there are too few samples for one.
    pub(crate) fn p99(&self) -> String {
        match self.percentile(99.0) {
            Some(time) if self.count() >= 100 => show(time),
            _ => "—".to_owned(),
        }
    }

    /// The longest.
    pub(crate) fn longest(&self) -> String {
        self.percentile(100.0).map_or("—".to_owned(), show)
    }
}

/// How many times `a` the median of `b` is: `240×`.
pub(crate) fn ratio(a: &Samples, b: &Samples) -> String {
    match (a.percentile(50.0), b.percentile(50.0)) {
        (Some(a), Some(b)) if !a.is_zero() => {
            let ratio = b.as_secs_f64() / a.as_secs_f64();
            if ratio < 10.0 { format!("{ratio:.1}×") } else { format!("{ratio:.0}×") }
        }
        _ => "—".to_owned(),
    }
}

fn percentile(mut samples: Vec<Duration>, percent: f64) -> Option<Duration> {
    samples.sort_unstable();
    let last = samples.len().checked_sub(1)?;
    // Nearest rank: a percentile of times that were measured is one of them.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the length")]
    let rank = (samples.len() as f64 * percent / 100.0).ceil() as usize;
    samples.get(rank.saturating_sub(1).min(last)).copied()
}

/// The unit that fits a time, and how many seconds it is.
fn unit(time: Duration) -> (&'static str, f64) {
    match time.as_nanos() {
        0..1_000_000 => ("µs", 1e-6),
        1_000_000..10_000_000_000 => ("ms", 1e-3),
        _ => ("s", 1.0),
    }
}

/// A time with two or three digits that mean something.
pub(crate) fn show(time: Duration) -> String {
    format!("{} {}", number(time, time), unit(time).0)
}

/// A time as a number in the unit of `like`.
fn number(time: Duration, like: Duration) -> String {
    let value = time.as_secs_f64() / unit(like).1;
    if value < 10.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_samples() {
        let times: Vec<_> = (1..=100).map(Duration::from_micros).collect();
        assert_eq!(percentile(times.clone(), 50.0), Some(Duration::from_micros(50)));
        assert_eq!(percentile(times.clone(), 99.0), Some(Duration::from_micros(99)));
        assert_eq!(percentile(times, 100.0), Some(Duration::from_micros(100)));
        assert_eq!(percentile(Vec::new(), 50.0), None);
    }

    #[test]
    fn the_spread_is_that_of_the_rounds() {
        let mut samples = Samples::default();
        for round in [[10, 20, 30], [11, 22, 33]] {
            samples.begin_round();
            round.into_iter().for_each(|time| samples.add(Duration::from_micros(time)));
        }
        assert_eq!(samples.median_and_spread(), "20 µs (20–22)");
        assert_eq!(samples.p99(), "—");
    }
}
