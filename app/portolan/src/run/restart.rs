//! When a command that ended is started again, and after how long.

use std::{
    process::ExitStatus,
    time::{Duration, Instant},
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use portolan_cli::Restart;

/// A life shorter than this that was the first one is a mistake in the command, not a crash of a server.
const STARTED: Duration = Duration::from_secs(1);
/// A life longer than this starts the back-off anew.
const SETTLED: Duration = Duration::from_secs(60);

/// Decides over the lives of one command.
pub(crate) struct RestartPolicy {
    policy: Restart,
    lives: u32,
    began: Instant,
    delays: ExponentialBackoff,
}

/// What to do after the command ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Start it again after this long.
    Again(Duration),
    /// Leave it, and end with its exit code.
    End,
}

impl RestartPolicy {
    pub(crate) fn new(policy: Restart) -> Self {
        Self { policy, lives: 0, began: Instant::now(), delays: delays() }
    }

    /// To be called when the command starts.
    pub(crate) fn began(&mut self) {
        self.lives += 1;
        self.began = Instant::now();
    }

    /// To be called when it ended by itself.
    ///
    /// With `on-failure` a command whose very first life fails within a second is not started again: it is a wrong
    /// flag or a missing file, and its author wants the exit code, not a loop.
    pub(crate) fn ended(&mut self, status: ExitStatus) -> Next {
        let life = self.began.elapsed();
        let again = match self.policy {
            Restart::No => false,
            Restart::Always => true,
            Restart::OnFailure => !status.success() && (self.lives > 1 || life >= STARTED),
        };
        if !again {
            return Next::End;
        }
        if life >= SETTLED {
            self.delays = delays();
        }
        Next::Again(self.delays.next().unwrap_or(Duration::from_secs(30)))
    }
}

/// 0.1 s, 0.2 s, 0.4 s … 30 s, each with jitter so that replicas that die together do not come back together.
fn delays() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn after(policy: Restart, lives: u32, life: Duration, wait_status: i32) -> Next {
        let mut restart = RestartPolicy::new(policy);
        restart.lives = lives;
        restart.began = Instant::now().checked_sub(life).expect("the machine is up for longer");
        restart.ended(ExitStatus::from_raw(wait_status))
    }

    #[test]
    fn a_command_that_fails_at_once_is_not_looped() {
        let (blink, long) = (Duration::from_millis(20), Duration::from_secs(5));
        assert_eq!(after(Restart::OnFailure, 1, blink, 7 << 8), Next::End);
        assert!(matches!(after(Restart::OnFailure, 1, long, 7 << 8), Next::Again(_)));
        assert!(
            matches!(after(Restart::OnFailure, 2, blink, 9), Next::Again(_)),
            "a crash loop backs off instead"
        );
        assert_eq!(after(Restart::OnFailure, 1, long, 0), Next::End);
        assert_eq!(after(Restart::No, 1, long, 9), Next::End);
        assert!(matches!(after(Restart::Always, 1, blink, 0), Next::Again(_)));
    }

    #[test]
    fn the_back_off_grows_to_half_a_minute_and_a_long_life_resets_it() {
        let mut restart = RestartPolicy::new(Restart::Always);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            restart.began();
            let Next::Again(delay) = restart.ended(ExitStatus::from_raw(9)) else { panic!("always") };
            last = delay;
        }
        assert!(last >= Duration::from_secs(30), "{last:?}");
        restart.began = Instant::now().checked_sub(SETTLED).expect("the machine is up for longer");
        let Next::Again(delay) = restart.ended(ExitStatus::from_raw(9)) else { panic!("always") };
        assert!(delay < Duration::from_secs(1), "{delay:?}");
    }
}
