//! Why a change was not made.

use std::sync::Arc;

use portolan_plan::PlanError;

/// Why a change was not made, or the data plane did not start. The other mappings are as before.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The mapping contradicts what is mapped, or itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The configuration of Services cannot be.
    #[error(transparent)]
    Services(#[from] portolan_services::ServicesError),
    /// The kernel refused it.
    #[error("{error}{}", hint(error))]
    Kernel {
        /// What it said.
        error: Arc<portolan_nft::Error>,
    },
    /// The data plane was stopped, or its thread ended.
    #[error("the data plane has stopped: no mapping can be changed")]
    Stopped,
    /// The thread, or what it waits on, could not be made.
    #[error("cannot start the data plane: {0}")]
    Start(String),
}

impl From<portolan_nft::Error> for ApplyError {
    fn from(error: portolan_nft::Error) -> Self {
        Self::Kernel { error: Arc::new(error) }
    }
}

fn hint(error: &portolan_nft::Error) -> &'static str {
    if error.is_permission_denied() {
        ": changing packet rules needs CAP_NET_ADMIN (run as root)"
    } else {
        ""
    }
}
