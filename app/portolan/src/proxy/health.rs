//! `/healthz` and `/livez` on port 10256, as load balancers of clouds and kubelet ask them of kube-proxy
//! (`pkg/proxy/healthcheck/proxy_health.go`, KEP-3836).
//!
//! Healthy is a proxy whose changes do not wait for longer than they may. `/healthz` also says whether load balancers
//! may send new traffic to this node; a node that is about to go has a live proxy all the same.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use portolan_telemetry::service_proxy::ServiceProxyMetrics;
use serde::Serialize;

/// What is known of the proxy's health. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Health(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: Duration,
    /// Since when changes wait, and when the last were done.
    state: Mutex<(Option<Instant>, Option<SystemTime>)>,
    eligible: AtomicBool,
    metrics: Arc<ServiceProxyMetrics>,
}

/// The answer, in Go's names.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyStatus>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyStatus {
    last_updated: String,
    healthy: bool,
}

impl Health {
    /// Changes that wait for longer than `limit` are a failure.
    pub(crate) fn new(limit: Duration, metrics: Arc<ServiceProxyMetrics>) -> Self {
        let shared = Shared { limit, state: Mutex::default(), eligible: AtomicBool::new(false), metrics };
        Self(Arc::new(shared))
    }

    /// Changes have come.
    pub(crate) fn queued(&self) {
        self.state().0.get_or_insert_with(Instant::now);
    }

    /// All that came are in the kernel.
    pub(crate) fn updated(&self) {
        *self.state() = (None, Some(SystemTime::now()));
    }

    /// Whether load balancers may send new traffic here.
    pub(crate) fn set_eligible(&self, eligible: bool) {
        self.0.eligible.store(eligible, Ordering::Relaxed);
    }

    /// Whether changes are made in time. It is healthy while it starts up, too.
    pub(crate) fn is_healthy(&self) -> bool {
        let (waiting, updated) = *self.state();
        updated.is_none() || waiting.is_none_or(|since| since.elapsed() < self.0.limit)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, (Option<Instant>, Option<SystemTime>)> {
        // Both are whole after each statement.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, node: bool) -> (StatusCode, Answer) {
        let (healthy, updated) = (self.is_healthy(), self.state().1);
        let eligible = self.0.eligible.load(Ordering::Relaxed);
        let good = healthy && (!node || eligible);
        let now = time(Some(SystemTime::now()));
        let status = updated.map(|_| {
            ["IPv4", "IPv6"].map(|family| (family, FamilyStatus { last_updated: time(updated), healthy }))
        });
        let answer = Answer {
            // Who asks has always been told "just now" by a healthy proxy, even when nothing had changed.
            last_updated: if good { now.clone() } else { time(updated) },
            current_time: now,
            node_eligible: node.then_some(eligible),
            healthy,
            status: status.into_iter().flatten().collect(),
        };
        (if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, answer)
    }
}

fn time(time: Option<SystemTime>) -> String {
    match time {
        Some(time) => humantime::format_rfc3339_nanos(time).to_string(),
        // Go's zero time.
        None => "0001-01-01T00:00:00Z".to_owned(),
    }
}

/// The two paths.
pub(crate) fn router(health: Health) -> Router {
    Router::new().route("/healthz", any(healthz)).route("/livez", any(livez)).with_state(health)
}

async fn healthz(State(health): State<Health>) -> Response {
    let (code, answer) = health.answer(true);
    health.0.metrics.healthz(code.as_u16());
    json(code, &answer)
}

async fn livez(State(health): State<Health>) -> Response {
    let (code, answer) = health.answer(false);
    health.0.metrics.livez(code.as_u16());
    json(code, &answer)
}

/// JSON as Go's handlers send it.
pub(crate) fn json(code: StatusCode, answer: &impl Serialize) -> Response {
    let body = serde_json::to_string(answer).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (code, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(limit: Duration) -> Health {
        Health::new(limit, Arc::new(ServiceProxyMetrics::new()))
    }

    #[test]
    fn a_proxy_is_healthy_until_changes_wait_too_long() {
        let late = health(Duration::ZERO);
        late.set_eligible(true);
        late.queued();
        assert_eq!(late.answer(true).0, StatusCode::OK, "it starts up");
        late.updated();
        assert_eq!(late.answer(true).0, StatusCode::OK);
        late.queued();
        let (code, answer) = late.answer(true);
        assert_eq!((code, answer.healthy), (StatusCode::SERVICE_UNAVAILABLE, false));
        assert_eq!(late.answer(false).0, StatusCode::SERVICE_UNAVAILABLE);
        late.updated();
        assert_eq!(late.answer(true).0, StatusCode::OK);
        let patient = health(Duration::from_secs(60));
        patient.updated();
        patient.queued();
        assert_eq!(patient.answer(false).0, StatusCode::OK);
    }

    #[test]
    fn a_node_that_goes_is_alive_and_not_healthy() {
        let health = health(Duration::from_secs(60));
        health.updated();
        health.set_eligible(false);
        let (code, answer) = health.answer(true);
        assert_eq!(
            (code, answer.node_eligible, answer.healthy),
            (StatusCode::SERVICE_UNAVAILABLE, Some(false), true)
        );
        let (code, answer) = health.answer(false);
        assert_eq!((code, answer.node_eligible), (StatusCode::OK, None));
    }

    #[test]
    fn the_answer_is_gos() {
        let health = health(Duration::from_secs(60));
        health.set_eligible(true);
        let text = serde_json::to_string(&health.answer(true).1).unwrap();
        assert!(
            text.starts_with("{\"lastUpdated\":\"20")
                && text.contains("\"nodeEligible\":true,\"healthy\":true"),
            "{text}"
        );
        assert!(!text.contains("status"), "{text}");
        health.updated();
        let text = serde_json::to_string(&health.answer(false).1).unwrap();
        assert!(
            text.contains("\"status\":{\"IPv4\":{\"lastUpdated\":\"") && !text.contains("nodeEligible"),
            "{text}"
        );
    }
}
