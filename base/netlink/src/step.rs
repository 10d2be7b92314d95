//! The steps of a change, by name: a test has the process killed at one of them.
//!
//! What a crash leaves behind depends on the moment. [`reached`] marks the moments that differ; a build with debug
//! assertions that finds its name in the variable [`VARIABLE`] ends there as by `kill -9`: nothing is unwound, flushed or
//! said. In a release it is nothing at all.

/// The variable with the name of the step to end at.
pub const VARIABLE: &str = "PORTOLAN_TEST_KILL_AT";

/// Every step, in the order in which a change comes by. `add.` and `del.` are the agent's, `ports.` those of the lease,
/// `rules.` those of the kernel's table, `tell.` those of what the Pod's containers read.
pub const STEPS: [&str; 17] = [
    "add.asked",
    "add.decided",
    "ports.chosen",
    "ports.held",
    "ports.written",
    "ports.taken-over",
    "rules.planned",
    "rules.written",
    "add.mapped",
    "tell.folder",
    "tell.file",
    "add.answered",
    "del.asked",
    "ports.unmapped",
    "ports.released",
    "ports.let-go",
    "del.answered",
];

/// Says that this step is reached.
#[inline]
pub fn reached(step: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os(VARIABLE).is_some_and(|wanted| wanted == step) {
        use rustix::process::{Signal, getpid, kill_process};
        debug_assert!(STEPS.contains(&step), "no step {step}");
        // SIGKILL is taken before this thread goes on (signal(7)).
        let _ = kill_process(getpid(), Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = step;
}
