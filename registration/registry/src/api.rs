//! The HTTP API: the first stage of a registration, and the last of everything that is read.
//!
//! Handlers are thin. They turn a request into words of the model, ask the [`Registry`], and turn its answer into a
//! reply. Who may write is decided in [`crate::admit`], what is true in the table.
//!
//! | request | reply |
//! | --- | --- |
//! | `GET /v1/instances?name=&service=&label=k=v&port=&state=&index=&wait=` | a list; with `index`, once something has changed since |
//! | `GET /v1/instances/{name}` | one instance |
//! | `PUT /v1/instances/{name}` | registers: 201 for a new life, 200 for a known one |
//! | `POST /v1/instances/{name}/renew?incarnation=` | 204; 404 means register again |
//! | `DELETE /v1/instances/{name}?incarnation=` | 204; 404; 409 for a life that was replaced |
//! | `GET /v1/watch?…&index=` | server-sent events |
//! | `GET /healthz`, `GET /readyz` | whether this process lives, and whether it takes registrations |
//!
//! Every error is `{"error":"…"}`. Every reply about instances says the catalog's index in `X-Portolan-Index`.

mod body;
mod count;
mod instances;
mod problem;
mod query;
mod serve;
mod stream;
mod tutorial;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
pub use count::count;
use problem::Problem;
pub use serve::{Limits, Served, serve, serve_with};
pub use tutorial::tutorial;

use crate::{Registry, admit::Peer};

/// The header that says the catalog's index.
pub(crate) const INDEX: &str = "x-portolan-index";

/// The API of a registry. It has a fallback, which answers 404 to every path that nobody has: merge it with routers
/// that have none. Serve it by [`serve()`], which tells handlers who is at the other end; without that, every write is
/// refused.
pub fn router(registry: Registry) -> Router {
    let metrics = registry.shared().metrics.clone();
    let router = Router::new()
        .route("/v1/instances", get(instances::list))
        .route("/v1/instances/{name}", get(instances::get).put(instances::put).delete(instances::delete))
        .route("/v1/instances/{name}/renew", post(instances::renew))
        .route("/v1/watch", get(stream::watch))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(nowhere)
        .method_not_allowed_fallback(no_method)
        .with_state(registry);
    count(router, metrics)
}

/// A router for a listener on which [`Anonymous`](crate::Anonymous) callers count: not for one that the world
/// reaches, where a load balancer may have hidden the client's address behind one that counts.
pub fn anonymous(router: Router) -> Router {
    router.layer(axum::middleware::map_request(|mut request: axum::extract::Request| async {
        if let Some(peer) = request.extensions_mut().get_mut::<Peer>()
            && let Peer::Address(address) = *peer
        {
            *peer = Peer::Open(address);
        }
        request
    }))
}

/// All that servers need to register themselves: the tutorial's API and [`router()`]'s, which can renew and leave.
pub fn registration(registry: Registry) -> Router {
    tutorial(registry.clone()).merge(router(registry).reset_fallback())
}

async fn healthz() -> Json<serde_json::Value> {
    Json(serde_json::json!({"status": "ok"}))
}

async fn readyz(State(registry): State<Registry>) -> Result<Json<serde_json::Value>, Problem> {
    if registry.is_ready() {
        return Ok(Json(serde_json::json!({"status": "ok", "index": registry.snapshot().index()})));
    }
    let why =
        if registry.closing().is_cancelled() { "the registry is shutting down" } else { "the store fails" };
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, why))
}

async fn nowhere(uri: axum::http::Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", uri.path()))
}

async fn no_method(method: axum::http::Method, uri: axum::http::Uri) -> Problem {
    let why = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, why)
}
