//! Why the agent refuses what the plugin asks.

use portolan_attach::AttachError;
use portolan_cni::code;

use super::engine::Ended;

/// Why not, for the runtime and for the metrics.
pub(super) struct Failure {
    /// Of the specification.
    pub(super) code: u32,
    /// For people.
    pub(super) message: String,
    /// More for them.
    pub(super) details: String,
    /// One word for it, for the metrics.
    pub(super) word: &'static str,
}

impl Failure {
    pub(super) fn new(code: u32, word: &'static str, message: impl ToString) -> Self {
        Self { code, message: message.to_string(), details: String::new(), word }
    }
}

impl From<Ended> for Failure {
    fn from(error: Ended) -> Self {
        Self::new(code::TRY_AGAIN, "ending", error)
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        Self::new(code::FAILED, error.word(), &error)
    }
}
