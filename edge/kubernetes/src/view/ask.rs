//! Memory first, the API server when memory has no answer.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use super::NodeView;
use crate::{ApiError, backoff::Backoff, connection::CALL};

impl NodeView {
    /// Memory, else the API server, again and again until `limit` while nobody answers.
    pub(super) async fn ask<M, T>(
        &self,
        limit: Duration,
        known: impl Fn() -> Option<M>,
        what: &str,
        call: impl Fn() -> Question<T>,
    ) -> Result<Answer<M, T>, ApiError> {
        let (deadline, mut backoff) = (Instant::now() + limit, Backoff::new());
        loop {
            if let Some(known) = known() {
                return Ok(Answer::Known(known));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let error = match self.0.connection.limited(what, left.min(CALL), call()).await {
                Ok(answer) => return Ok(Answer::Asked(answer)),
                Err(error) => error,
            };
            let wait = backoff.next();
            if !error.is_retryable() || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

/// Boxed, as the compiler cannot see that what an `AsyncFn` gives may go from thread to thread (rust-lang/rust#102211).
pub(super) type Question<T> = Pin<Box<dyn Future<Output = kube::Result<T>> + Send>>;

/// From memory, or from the API server.
pub(super) enum Answer<M, T> {
    Known(M),
    Asked(T),
}
