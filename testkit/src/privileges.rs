//! Who may run a test: tests that make namespaces need root, and say so when they do not run.

use std::{io::Write as _, sync::OnceLock};

/// Returns from the test early, with a printed reason, where network namespaces cannot be made.
///
/// With `PORTOLAN_NO_SKIP` set it panics instead: `.ci/run` sets it, so that a run which skipped half of the
/// tests cannot look like a run which passed them. `need_root!(value)` returns `value`.
#[macro_export]
macro_rules! need_root {
    () => {
        $crate::need_root!(())
    };
    ($value:expr) => {
        if let Some(reason) = $crate::root_problem() {
            $crate::skip(reason);
            return $value;
        }
    };
}

/// Why tests that need root cannot run here; `None` when they can.
///
/// Asks the kernel rather than the user id: root in a container may not be allowed to make a namespace.
pub fn root_problem() -> Option<&'static str> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    PROBLEM
        .get_or_init(|| {
            let user = rustix::process::geteuid();
            if !user.is_root() {
                return Some(format!("needs root, and this is user {}", user.as_raw()));
            }
            let tried = std::thread::spawn(|| crate::net::unshare_network(false)).join();
            match tried {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("root may not make a network namespace here: {error}")),
                Err(_) => Some("the attempt to make a network namespace panicked".to_owned()),
            }
        })
        .as_deref()
}

/// Prints that the current test is skipped and why; panics when `PORTOLAN_NO_SKIP` is set.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(
        std::env::var_os("PORTOLAN_NO_SKIP").is_none(),
        "{test} would be skipped, and PORTOLAN_NO_SKIP forbids that: {reason}"
    );
    // Not `eprintln!`: the test harness swallows what that prints in tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
}
