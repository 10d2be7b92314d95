//! What a command of the binary under test said.

use std::process::ExitStatus;

/// What a finished command said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Panics with everything it said unless it ended with 0; then gives its standard output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}\n--- stdout\n{}--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Panics with everything it said unless it failed with `code`; then gives its standard error.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        self.stderr
    }
}
