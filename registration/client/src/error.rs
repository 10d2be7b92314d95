//! What can go wrong between a client and a registry, and what to do about it.

use std::{io, time::Duration};

use http::StatusCode;

/// What went wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no portolan at {endpoint}: start one with `portolan up`")]
    NobodyThere {
        /// The endpoint.
        endpoint: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The endpoint cannot be connected to, though somebody may be there.
    #[error("cannot connect to {endpoint}: {source}")]
    Connect {
        /// The endpoint.
        endpoint: String,
        /// What the system said.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {}: it hangs or is overloaded", humantime::format_duration(*.after))]
    Timeout {
        /// The endpoint.
        endpoint: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke, or what came was no HTTP.
    #[error("the connection to {endpoint} broke: {reason}")]
    Broken {
        /// The endpoint.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The registry said no.
    #[error("{endpoint} says: {message} (HTTP {})", status.as_u16())]
    Refused {
        /// The endpoint.
        endpoint: String,
        /// The status of the reply.
        status: StatusCode,
        /// Its reason.
        message: String,
    },
    /// A reply that no registry gives: something else listens there.
    #[error("what answers at {endpoint} is no portolan: {reason}")]
    Strange {
        /// The endpoint.
        endpoint: String,
        /// What was expected.
        reason: String,
    },
    /// A request that cannot be sent.
    #[error("cannot ask for {path:?}: {reason}")]
    Request {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ClientError {
    /// Whether the same request may well succeed a little later: nothing was wrong with the request itself.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NobodyThere { .. } | Self::Connect { .. } | Self::Timeout { .. } | Self::Broken { .. } => {
                true
            }
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Strange { .. } | Self::Request { .. } => false,
        }
    }

    /// Whether the registry does not know the instance: register it again.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether another life of the instance has taken its place: stop.
    pub fn is_replaced(&self) -> bool {
        self.status() == Some(StatusCode::CONFLICT)
    }

    /// The status of the reply, if there was one.
    pub const fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }
}
