//! When looks become a state: it takes several in a row to fall, several to rise, and one to begin.

use portolan_model::{CheckSpec, State};

use super::Level;

/// Turns the looks at one instance into its states.
///
/// A state becomes worse after `fall` looks in a row that were at least that bad, and better after `rise` looks in a
/// row that were at least that good. Only the very first success counts at once: there is no good name to lose yet,
/// and somebody waits to be served. So looks that alternate leave the state as it is.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    state: State,
    fall: u32,
    rise: u32,
    begun: bool,
    /// Looks in a row that failed.
    failed: u32,
    /// Looks in a row that failed or warned.
    not_well: u32,
    /// Looks in a row that passed or warned.
    up: u32,
    /// Looks in a row that passed.
    well: u32,
}

impl Judge {
    /// A judge who believes that the instance is in `state`.
    pub(crate) const fn new(check: &CheckSpec, state: State) -> Self {
        Self {
            state,
            fall: check.fall,
            rise: check.rise,
            begun: !matches!(state, State::Unknown | State::Expired),
            failed: 0,
            not_well: 0,
            up: 0,
            well: 0,
        }
    }

    /// Whether the last look failed.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.failed > 0
    }

    /// Takes a look into account. Returns the new state when it is another.
    pub(crate) fn observe(&mut self, level: Level) -> Option<State> {
        let count =
            |counter: &mut u32, more: bool| *counter = if more { counter.saturating_add(1) } else { 0 };
        count(&mut self.failed, level == Level::Fail);
        count(&mut self.not_well, level != Level::Pass);
        count(&mut self.up, level != Level::Fail);
        count(&mut self.well, level == Level::Pass);

        let next = if !self.begun && level != Level::Fail {
            self.begun = true;
            if level == Level::Pass { State::Passing } else { State::Warning }
        } else {
            match self.state {
                State::Critical if self.well >= self.rise => State::Passing,
                State::Critical if self.up >= self.rise => State::Warning,
                State::Warning if self.well >= self.rise => State::Passing,
                State::Critical => State::Critical,
                _ if self.failed >= self.fall => State::Critical,
                State::Passing if self.not_well >= self.fall => State::Warning,
                same => same,
            }
        };
        (next != self.state).then(|| {
            self.state = next;
            next
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use portolan_model::CheckKind;
    use proptest::prelude::*;

    use super::*;

    fn check(fall: u32, rise: u32) -> CheckSpec {
        CheckSpec { fall, rise, interval: Duration::from_secs(1), ..CheckSpec::new(CheckKind::Tcp) }
    }

    /// States after each look of a text of `p`, `w` and `f`.
    fn story(fall: u32, rise: u32, looks: &str) -> String {
        let mut judge = Judge::new(&check(fall, rise), State::Unknown);
        let letter = |look| {
            let level = match look {
                'p' => Level::Pass,
                'w' => Level::Warn,
                _ => Level::Fail,
            };
            judge.observe(level);
            judge.state.as_str().chars().next().unwrap()
        };
        looks.chars().map(letter).collect()
    }

    #[test]
    fn the_first_success_counts_at_once_and_later_ones_must_be_in_a_row() {
        assert_eq!(story(3, 2, "p"), "p");
        assert_eq!(story(3, 2, "w"), "w");
        // A slow start: unknown, then critical, and the first success of its life counts at once.
        assert_eq!(story(3, 2, "ffffpff"), "uuccppp");
        // Later it takes two.
        assert_eq!(story(3, 2, "pfffpfpp"), "pppccccp");
        assert_eq!(story(1, 1, "pfpf"), "pcpc");
        // As the original registry: four in a row fall.
        assert_eq!(story(4, 1, "pfffffp"), "ppppccp");
    }

    #[test]
    fn a_warning_is_a_success_that_must_last_as_long_to_be_believed() {
        assert_eq!(story(3, 2, "pwwwpp"), "pppwwp");
        // Too busy and then gone: three that failed in a row.
        assert_eq!(story(3, 2, "wfff"), "wwwc");
        assert_eq!(story(3, 2, "pfffww"), "pppccw");
    }

    proptest! {
        /// Fewer failures in a row than `fall`, and fewer successes than `rise`, never change a state.
        #[test]
        fn looks_that_alternate_within_the_thresholds_are_no_event(
            fall in 2u32..6, rise in 2u32..6, runs in prop::collection::vec(1u32..6, 1..40),
        ) {
            for (state, longest) in [(State::Passing, [fall - 1, 5]), (State::Critical, [5, rise - 1])] {
                let mut judge = Judge::new(&check(fall, rise), state);
                for (at, run) in runs.iter().enumerate() {
                    let level = if at % 2 == 0 { Level::Fail } else { Level::Pass };
                    for _ in 0..(*run).min(longest[at % 2]) {
                        prop_assert_eq!(judge.observe(level), None);
                    }
                }
            }
        }

        /// `fall` failures in a row are enough whatever came before, and so are `rise` successes.
        #[test]
        fn enough_in_a_row_always_decide(fall in 1u32..6, rise in 1u32..6, before in prop::collection::vec(0u8..3, 0..40)) {
            let mut judge = Judge::new(&check(fall, rise), State::Unknown);
            for look in before {
                judge.observe([Level::Pass, Level::Warn, Level::Fail][usize::from(look)]);
            }
            for _ in 0..fall { judge.observe(Level::Fail); }
            prop_assert_eq!(judge.state, State::Critical);
            for _ in 0..rise { judge.observe(Level::Pass); }
            prop_assert_eq!(judge.state, State::Passing);
        }
    }
}
