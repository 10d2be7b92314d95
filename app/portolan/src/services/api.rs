//! Services over HTTP, on the unix socket of the data folder only: whoever may use it may give ports away too.
//!
//! | request | what |
//! | --- | --- |
//! | `GET /v1/services` | all of them with their endpoints, and the files that cannot be read |
//! | `GET /v1/services/state` | what the rules are made from, for `portolan trace`: the same as of `portolan proxy` |
//! | `POST /v1/services` | one more: a Service of Kubernetes as YAML or JSON; it is served when the answer comes |
//! | `DELETE /v1/services/{namespace}/{name}` | takes one away that was made so |

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};
use portolan_model::ObjectName;
use serde::{Deserialize, Serialize};

use super::{error::ServiceError, handle::ServicesHandle, shown::Shown};
use crate::trace::state;

/// The body of `GET /v1/services`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceList {
    pub(crate) services: Vec<Shown>,
    /// What is wrong with files: what they said before holds.
    pub(crate) problems: Vec<String>,
}

/// The routes above.
pub(crate) fn router(services: ServicesHandle) -> Router {
    Router::new()
        .route("/v1/services", get(list).post(expose))
        .route(state::PATH, get(rules))
        .route("/v1/services/{namespace}/{name}", delete(remove))
        .with_state(services)
}

async fn list(State(services): State<ServicesHandle>) -> Result<Json<ServiceList>, ServiceError> {
    let (services, problems) = services.call(|owner| owner.shown()).await?;
    Ok(Json(ServiceList { services, problems }))
}

async fn rules(State(services): State<ServicesHandle>) -> Result<Json<state::State>, ServiceError> {
    Ok(Json(services.call(|owner| owner.rules()).await??))
}

async fn expose(
    State(services): State<ServicesHandle>,
    text: String,
) -> Result<(StatusCode, Json<Shown>), ServiceError> {
    let shown = services.call(move |owner| owner.expose(&text)).await??;
    Ok((StatusCode::CREATED, Json(shown)))
}

async fn remove(
    State(services): State<ServicesHandle>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<StatusCode, ServiceError> {
    services.call(move |owner| owner.delete(&ObjectName::new(namespace, name))).await??;
    Ok(StatusCode::NO_CONTENT)
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        (self.status(), Json(serde_json::json!({ "error": self.to_string() }))).into_response()
    }
}
