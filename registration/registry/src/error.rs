//! Why the registry refuses something, and the HTTP status that says the same.

use std::sync::Arc;

use http::StatusCode;
use portolan_model::{Incarnation, Name};

use crate::{admit::Refusal, store::StoreError};

/// Why a registration, renewal or deregistration was refused. The catalog is as it was before.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A field that says nothing usable.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field as JSON names it, such as `ports[1].name`.
        field: String,
        /// What is wrong and what would be right.
        reason: String,
    },
    /// The caller may not do this.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such instance: register again.
    #[error("no instance is registered as {0}: register it again")]
    NotFound(Name),
    /// Another life of this name has taken its place; what belongs to the former one is over.
    #[error("{name} is now incarnation {current}: the registration of this one has been replaced")]
    Replaced {
        /// The instance.
        name: Name,
        /// The life that holds the name.
        current: Incarnation,
    },
    /// The catalog is as large as it may become.
    #[error("the catalog holds {0} instances, which is its limit: deregister some or raise the limit")]
    Full(usize),
    /// It could not be made to survive a crash, so it was not taken.
    #[error("cannot store it: {0}")]
    Store(Arc<StoreError>),
    /// The registry is shutting down.
    #[error("the registry is shutting down: try again in a moment")]
    Stopped,
}

impl RegistryError {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl ToString) -> Self {
        Self::Invalid { field: field.into(), reason: reason.to_string() }
    }

    /// The status that an HTTP reply carries for this.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Refused(refusal) => refusal.status(),
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Replaced { .. } => StatusCode::CONFLICT,
            Self::Full(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Store(..) | Self::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A word for the label `result` of metrics.
    pub const fn discriminant(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Refused(_) => "refused",
            Self::NotFound(_) => "not_found",
            Self::Replaced { .. } => "replaced",
            Self::Full(_) => "full",
            Self::Store(..) => "store",
            Self::Stopped => "stopped",
        }
    }
}
