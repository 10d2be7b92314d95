//! `/metrics`: what the registry counts as it goes, and what the node is asked when a collector comes by.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::State, http::header, response::IntoResponse, routing::get};
use portolan_telemetry::metrics::{CONTENT_TYPE, Metrics};

use crate::node::NodeHandle;

#[derive(Clone)]
struct Shared {
    metrics: Arc<Metrics>,
    node: NodeHandle,
}

/// How long a scrape waits for the node, which may be busy with a large block: after that it gets the last numbers.
const PATIENCE: Duration = Duration::from_secs(2);

/// The route `/metrics`.
pub(crate) fn router(metrics: Arc<Metrics>, node: NodeHandle) -> Router {
    Router::new().route("/metrics", get(scrape)).with_state(Shared { metrics, node })
}

async fn scrape(State(shared): State<Shared>) -> impl IntoResponse {
    if let Ok(Ok(usage)) = tokio::time::timeout(PATIENCE, shared.node.usage()).await {
        for pool in &usage.pools {
            let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
            shared.metrics.set_ports(
                pool.name.as_str(),
                count(pool.free),
                count(pool.used),
                count(pool.quarantined),
            );
        }
        shared.metrics.port_leases.set(i64::try_from(usage.leases.len()).unwrap_or(i64::MAX));
    }
    if let Ok(Ok(Some(stats))) =
        tokio::time::timeout(PATIENCE, shared.node.call(|engine| engine.dataplane())).await
    {
        shared.metrics.mappings.set(i64::try_from(stats.mappings).unwrap_or(i64::MAX));
        // The data plane counts for itself; the difference is what it did since the last scrape.
        let repairs = &shared.metrics.dataplane_repairs;
        repairs.inc_by(stats.repairs.saturating_sub(repairs.get()));
    }
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], shared.metrics.encode())
}
