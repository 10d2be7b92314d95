//! What can go wrong with a call to the API server, in the four ways that a caller must tell apart.

use std::time::Duration;

use kube::runtime::watcher;

/// Why a call to the API server did not do its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// No answer at all: no route, refused, cut off, or a TLS failure.
    #[error("the API server cannot be reached to {what}: {message}")]
    Away {
        /// What was tried, as `get Pod default/web-0`.
        what: String,
        /// The last cause.
        message: String,
    },
    /// No answer in time.
    #[error("the API server did not answer within {after:?} to {what}")]
    TimedOut {
        /// What was tried.
        what: String,
        /// The limit.
        after: Duration,
    },
    /// 404: there is no such object.
    #[error("cannot {what}: it does not exist")]
    Missing {
        /// What was tried.
        what: String,
    },
    /// 409: somebody else changed it, it exists already, or it is another object of that name.
    #[error("cannot {what}: {message}")]
    Conflict {
        /// What was tried.
        what: String,
        /// The API server's words.
        message: String,
    },
    /// Any other refusal. 401 and 403 are a matter of RBAC, 422 of the object.
    #[error("the API server refused to {what} with {code}: {message}")]
    Refused {
        /// What was tried.
        what: String,
        /// The HTTP status.
        code: u16,
        /// The API server's words.
        message: String,
    },
}

impl ApiError {
    /// Reads kube's error.
    pub(crate) fn new(what: impl Into<String>, error: &kube::Error) -> Self {
        let what = what.into();
        match error {
            kube::Error::Api(status) => {
                let message = status.message.clone();
                match status.code {
                    404 => Self::Missing { what },
                    409 => Self::Conflict { what, message },
                    code => Self::Refused { what, code, message },
                }
            }
            other => Self::Away { what, message: deepest(other) },
        }
    }

    /// Reads the error of a watch.
    pub(crate) fn of_watch(what: &str, error: &watcher::Error) -> Self {
        let what = format!("watch {what}");
        match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Self::new(what, error),
            watcher::Error::WatchError(status) => {
                Self::Refused { what, code: status.code, message: status.message.clone() }
            }
            other => Self::Refused { what, code: 500, message: other.to_string() },
        }
    }

    /// Whether the API server could not be asked, so that nothing is known of the object.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Away { .. } | Self::TimedOut { .. } => true,
            // 502 to 504 are a load balancer or an aggregator without anybody behind it; 429 is "later".
            Self::Refused { code, .. } => matches!(code, 429 | 500 | 502..=504),
            Self::Missing { .. } | Self::Conflict { .. } => false,
        }
    }

    /// Whether the object does not exist.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether somebody else was first.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }

    /// Whether the same call may succeed later without anybody changing the object: RBAC is often applied after the
    /// Pod that needs it has started.
    pub fn is_retryable(&self) -> bool {
        self.is_away() || matches!(self, Self::Refused { code: 401 | 403, .. })
    }
}

/// The innermost cause: the outer ones say "service error" and no more.
fn deepest(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16) -> ApiError {
        let status = Status { code, message: "no".to_owned(), ..Status::default() };
        ApiError::new("get Pod a/b", &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn what_does_not_exist_is_told_from_what_cannot_be_asked() {
        assert!(api(404).is_missing() && !api(404).is_away() && !api(404).is_retryable());
        assert!(api(503).is_away() && api(429).is_away() && api(504).is_retryable());
        assert!(api(409).is_conflict() && !api(409).is_away());
        assert!(!api(403).is_away() && api(403).is_retryable());
        assert!(!api(422).is_retryable());
    }
}
