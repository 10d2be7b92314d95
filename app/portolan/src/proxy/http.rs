//! What kube-proxy serves at 127.0.0.1:10249: `/metrics`, `/healthz`, `/proxyMode`, `/configz`, `/statusz`, `/flagz`. And
//! `/metrics/services`, which kube-proxy does not have: what is live, and what came by, of each Service.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use portolan_apply::ServicePlane;
use portolan_telemetry::{
    metrics::CONTENT_TYPE,
    service_proxy::{NamedMetrics, raise},
};
use serde_json::json;

use super::{Proxy, counts};

const TEXT: &str = "text/plain; charset=utf-8";
const NOSNIFF: (HeaderName, &str) = (header::X_CONTENT_TYPE_OPTIONS, "nosniff");
/// How long a scrape waits for the owner of the rules: after that it gets the last numbers.
const PATIENCE: Duration = Duration::from_secs(2);
const PATHS: [&str; 8] = [
    "/configz",
    "/flagz",
    "/healthz",
    "/metrics",
    "/metrics/services",
    "/metrics/slis",
    "/proxyMode",
    "/statusz",
];

/// All paths.
pub(crate) fn router(proxy: Arc<Proxy>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/metrics/services", get(named))
        .route("/metrics/slis", get(slis))
        .route("/healthz", get(|| async { text("ok") }))
        .route("/proxyMode", get(|| async { text("nftables") }))
        .route("/configz", get(configz))
        .route("/statusz", get(statusz))
        .route("/flagz", get(flagz))
        .with_state(proxy)
}

fn text(body: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, TEXT), NOSNIFF], body.into()).into_response()
}

fn open_metrics(body: String) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], body).into_response()
}

/// Asks the owner of the rules on a thread that may wait, but not for long.
async fn ask<T: Send + 'static>(
    proxy: &Arc<Proxy>,
    question: impl FnOnce(&Proxy, &ServicePlane) -> T + Send + 'static,
) -> Option<T> {
    let (plane, proxy) = (proxy.plane()?, Arc::clone(proxy));
    let asked = tokio::task::spawn_blocking(move || question(&proxy, &plane));
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}

async fn metrics(State(proxy): State<Arc<Proxy>>) -> Response {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let asked = ask(&proxy, |proxy, plane| {
        proxy.locals.count(plane, &proxy.metrics);
        plane.stats()
    });
    let metrics = &proxy.metrics;
    raise(&metrics.lists, proxy.watches.health().lists);
    if let Some(stats) = asked.await {
        metrics.services.set(count(stats.services as u64));
        raise(&metrics.transactions, stats.transactions);
        raise(&metrics.elements, stats.elements);
        metrics.longest_transaction.set(stats.longest_transaction.as_secs_f64());
        raise(&metrics.repairs, stats.repairs);
        metrics.draining.set(count(stats.draining as u64));
        metrics.set_flows_deleted(stats.flows_deleted);
    }
    open_metrics(metrics.encode())
}

async fn named(State(proxy): State<Arc<Proxy>>) -> Response {
    let asked = ask(&proxy, |_, plane| {
        let mut named = NamedMetrics::default();
        counts::live(plane, &mut named);
        counts::counted(plane, &mut named).map(|()| named)
    });
    match asked.await {
        Some(Ok(named)) => open_metrics(named.encode()),
        Some(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, "the rules of Services are not in place yet\n").into_response()
        }
    }
}

/// Component SLIs (KEP-3466): whether the health check succeeds.
async fn slis(State(proxy): State<Arc<Proxy>>) -> Response {
    let healthy = u8::from(proxy.health.is_healthy());
    open_metrics(format!(
        "# HELP kubernetes_healthcheck This metric records the result of a single healthcheck.\n\
         # TYPE kubernetes_healthcheck gauge\n\
         kubernetes_healthcheck{{name=\"service-proxy\",type=\"healthz\"}} {healthy}\n# EOF\n"
    ))
}

async fn configz(State(proxy): State<Arc<Proxy>>) -> Response {
    axum::Json(json!({"kubeproxy.config.k8s.io": proxy.config.describe()})).into_response()
}

async fn statusz(State(proxy): State<Arc<Proxy>>) -> Response {
    let up = proxy.started.elapsed().unwrap_or_default();
    text(format!(
        "\nkube-proxy statusz\nWarning: This endpoint is not meant to be machine parseable, has no formatting \
         compatibility guarantees and is for debugging purposes only.\n\nStarted: {}\nUp: {}\nBinary version: \
         portolan {}\nEmulation version: 1.36\nPaths: {}\n",
        humantime::format_rfc3339_seconds(proxy.started),
        humantime::format_duration(Duration::from_secs(up.as_secs())),
        env!("CARGO_PKG_VERSION"),
        PATHS.join(" ")
    ))
}

async fn flagz(State(proxy): State<Arc<Proxy>>) -> Response {
    text(format!(
        "\nkube-proxy flagz\nWarning: This endpoint is not meant to be machine parseable, has no formatting \
         compatibility guarantees and is for debugging purposes only.\n\n{}",
        proxy.flags.iter().map(|flag| format!("{flag}\n")).collect::<String>()
    ))
}
