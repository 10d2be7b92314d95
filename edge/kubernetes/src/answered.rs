//! When the API server answered the last time, and a time limit for the beginning of every answer.
//!
//! A layer around the HTTP client. Without it a watch whose server accepts connections and never answers would wait
//! until TCP gives up after a quarter of an hour, and a watch that was resumed could not be told from one that fails:
//! it is silent until an object changes.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::{Request, Response};
use kube::client::Body;
use tower::{BoxError, Layer, Service};

/// How long the API server may take until its answer begins. Its own limit for all but watches is a minute, which is
/// cut short by each caller; the answer to a watch begins at once.
const BEGIN: Duration = Duration::from_secs(30);

/// The time of the last answer. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    start: OnceLock<Instant>,
    /// Nanoseconds since `start`, and one; 0 is never.
    last: AtomicU64,
}

impl Answered {
    /// When the API server answered the last time, with whatever status.
    pub(crate) fn last(&self) -> Option<Instant> {
        let since = self.0.last.load(Ordering::Acquire).checked_sub(1)?;
        Some(*self.0.start.get()? + Duration::from_nanos(since))
    }

    fn now(&self) {
        let start = self.0.start.get_or_init(Instant::now);
        let since = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.0.last.fetch_max(since + 1, Ordering::AcqRel);
    }
}

impl<S> Layer<S> for Answered {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, answered: self.clone() }
    }
}

/// A client that notes each answer.
pub(crate) struct Watched<S> {
    inner: S,
    answered: Answered,
}

impl<S, B> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (answer, answered) = (self.inner.call(request), self.answered.clone());
        Box::pin(async move {
            let response = tokio::time::timeout(BEGIN, answer).await.map_err(|_| {
                let message = format!("the answer did not begin within {BEGIN:?}");
                BoxError::from(message)
            })??;
            answered.now();
            Ok(response)
        })
    }
}
