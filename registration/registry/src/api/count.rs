//! Counts requests by route and status.

use std::sync::Arc;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
};
use portolan_telemetry::metrics::Metrics;

/// The same router, counting in `portolan_api_requests_total`. What has no route is counted as `other`, so that a
/// client that asks for random paths makes no time series.
pub fn count(router: Router, metrics: Arc<Metrics>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let metrics = Arc::clone(&metrics);
        async move {
            let path = request.extensions().get::<MatchedPath>().cloned();
            let response = next.run(request).await;
            metrics
                .api_request(path.as_ref().map_or("other", MatchedPath::as_str), response.status().as_u16());
            response
        }
    }))
}
