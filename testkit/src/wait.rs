//! Waiting for a condition with a deadline. No test sleeps for a fixed time and hopes.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// How long to wait between two looks: short enough for timings of milliseconds, long enough to leave the core alone.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `condition` holds; panics after `deadline`.
#[track_caller]
pub fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) {
    let answer =
        eventually_ok(deadline, || if condition() { Ok(()) } else { Err("the condition does not hold") });
    if let Err(why) = answer {
        panic!("not within {deadline:?}: {why}");
    }
}

/// Asks until the answer is `Ok`; after `deadline` the last error is the answer.
///
/// The question is asked at least once, and once more after the deadline: a loaded machine may have slept through it.
pub fn eventually_ok<T, E: Debug>(
    deadline: Duration,
    mut question: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= deadline;
        match question() {
            Ok(answer) => return Ok(answer),
            Err(error) if late => return Err(error),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_the_answer_after_the_deadline() {
        let mut asked = 0;
        let answer: Result<(), i32> = eventually_ok(Duration::from_millis(20), || {
            asked += 1;
            Err(asked)
        });
        assert_eq!(answer, Err(asked));
        assert!(asked > 1);
    }

    #[test]
    fn a_condition_is_looked_at_even_with_no_time_at_all() {
        eventually(Duration::ZERO, || true);
    }
}
