//! A reply that says what was wrong.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{RegistryError, admit::Refusal};

/// A status and a reason: `{"error":"…"}`.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    reason: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, reason: impl ToString) -> Self {
        Self { status, reason: reason.to_string() }
    }

    pub(super) fn bad_request(reason: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The reason alone.
    pub(super) fn into_reason(self) -> String {
        self.reason
    }

    /// What clients of HTTP know without reading the reason.
    pub(super) fn header(status: StatusCode) -> Option<(HeaderName, HeaderValue)> {
        match status {
            // RFC 9110 section 15.5.2: a 401 says how to authenticate.
            StatusCode::UNAUTHORIZED => Some((header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))),
            StatusCode::SERVICE_UNAVAILABLE => Some((header::RETRY_AFTER, HeaderValue::from_static("1"))),
            _ => None,
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        Self::new(error.status(), error)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.status(), refusal)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, reason } = self;
        let mut response = (status, Json(serde_json::json!({"error": reason}))).into_response();
        response.headers_mut().extend(Self::header(status));
        response
    }
}
