//! For collectors and kubelet: `/metrics`, `/healthz` (the thread that owns the ports answers) and `/readyz` (the
//! plugin's socket is served, and the cluster is known).

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use portolan_telemetry::metrics::CONTENT_TYPE;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Agent, counters::counters};

/// How long the engine may be busy before it counts as stuck: the restart of a node with 10,000 mappings takes less.
const STUCK: Duration = Duration::from_secs(10);
/// How long a scrape waits for it: after that it gets the last numbers.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers until `stop`.
pub(crate) async fn run(agent: Arc<Agent>, listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(ready))
        .with_state(agent);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "metrics and health are not served any more");
    }
}

async fn health(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    match timeout(STUCK, agent.engine.call(|_| ())).await {
        Ok(Ok(())) => (StatusCode::OK, "ok\n".to_owned()),
        Ok(Err(error)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the thread that owns the ports does nothing for {} s\n", STUCK.as_secs()),
        ),
    }
}

async fn ready(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let Some(kubernetes) = agent.cluster.kubernetes() else { return (StatusCode::OK, "ok\n".to_owned()) };
    let health = kubernetes.view.health();
    if health.synced {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let why = health.error.map_or_else(|| "it has not answered yet".to_owned(), |error| error.to_string());
    (StatusCode::SERVICE_UNAVAILABLE, format!("the cluster is not known: {why}\n"))
}

async fn metrics(State(agent): State<Arc<Agent>>) -> impl IntoResponse {
    let asked = agent.engine.call(|attach| (attach.usage(String::new()), attach.stats()));
    if let Ok(Ok((usage, stats))) = timeout(PATIENCE, asked).await {
        let count = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        for pool in &usage.pools {
            let name = pool.name.as_str();
            agent.metrics.set_ports(name, count(pool.free), count(pool.used), count(pool.quarantined));
            agent.metrics.set_largest_block(name, count(pool.largest_block));
        }
        agent.metrics.port_leases.set(i64::try_from(usage.leases.len()).unwrap_or(i64::MAX));
        agent.metrics.mappings.set(i64::try_from(stats.mappings).unwrap_or(i64::MAX));
        // The data plane counts for itself; the difference is what it did since the last scrape.
        let repairs = &agent.metrics.dataplane_repairs;
        repairs.inc_by(stats.repairs.saturating_sub(repairs.get()));
    }
    let ports = timeout(PATIENCE, counters(&agent)).await.unwrap_or_default();
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], agent.metrics.encode_with(&ports))
}
