//! Why a Service cannot be had, and the HTTP status that says the same.

use axum::http::StatusCode;
use portolan_model::ObjectName;

use super::{manifest::ManifestError, store::StoreError};

/// Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServiceError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the body has to be one Service")]
    NotOne,
    #[error("services \"{}\" already exists", .0.name)]
    Exists(ObjectName),
    #[error("services \"{}\" not found", .0.name)]
    NotFound(ObjectName),
    #[error("the Service \"{}\" is invalid: {}", .0.name, .1)]
    Invalid(ObjectName, String),
    #[error("the Service \"{}\" is of the file {}: take it out there", .0.name, .1)]
    OfFile(ObjectName, String),
    #[error(
        "`portolan up` writes no rules for Services here: it was started without root, or with --no-dataplane"
    )]
    NoRules,
    #[error("the rules of Services cannot be read: {0}")]
    Rules(#[from] portolan_apply::ApplyError),
    #[error("this node is shutting down: start `portolan up` again, then try once more")]
    ShuttingDown,
}

impl ServiceError {
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Manifest(_) | Self::NotOne => StatusCode::BAD_REQUEST,
            Self::Invalid(..) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Exists(_) | Self::OfFile(..) => StatusCode::CONFLICT,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoRules | Self::Rules(_) | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
