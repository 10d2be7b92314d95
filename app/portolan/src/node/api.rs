//! The node's HTTP API: on the unix socket of the data folder only, which its mode 0600 and the folder's 0700 keep to
//! the user who runs `up`.
//!
//! | request | what |
//! | --- | --- |
//! | `GET /v1/node` | what this node can do |
//! | `GET /v1/node/ports` | pools and leases |
//! | `POST /v1/node/leases` | ports, and a namespace; the same again for the same owner |
//! | `DELETE /v1/node/leases/{name}?incarnation=` | gives them back |
//! | `DELETE /v1/node/leases/{name}/holds?incarnation=` | the holds only: the command is about to bind |
//! | `PUT /v1/node/leases/{name}/holds?incarnation=` | holds them again: the command is gone |

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use portolan_model::{Incarnation, LeaseReply, LeaseRequest, Name, NodeInfo, NodePorts};
use serde::Deserialize;

use super::{error::NodeError, handle::NodeHandle};

#[derive(Clone)]
struct Shared {
    node: NodeHandle,
    info: NodeInfo,
}

/// Which life of the instance.
#[derive(Deserialize)]
struct Life {
    incarnation: Incarnation,
}

/// The routes above.
pub(crate) fn router(node: NodeHandle, info: NodeInfo) -> Router {
    Router::new()
        .route("/v1/node", get(async |State(shared): State<Shared>| Json(shared.info)))
        .route("/v1/node/ports", get(ports))
        .route("/v1/node/leases", post(lease))
        .route("/v1/node/leases/{name}", delete(release))
        .route("/v1/node/leases/{name}/holds", delete(give_up_holds).put(hold_again))
        .with_state(Shared { node, info })
}

async fn ports(State(shared): State<Shared>) -> Result<Json<NodePorts>, NodeError> {
    shared.node.usage().await.map(Json)
}

async fn lease(
    State(shared): State<Shared>,
    Json(request): Json<LeaseRequest>,
) -> Result<Json<LeaseReply>, NodeError> {
    shared.node.lease(request).await.map(Json)
}

async fn release(
    State(shared): State<Shared>,
    Path(name): Path<Name>,
    Query(life): Query<Life>,
) -> Result<StatusCode, NodeError> {
    shared.node.release(name, life.incarnation).await.map(|()| StatusCode::NO_CONTENT)
}

async fn give_up_holds(
    State(shared): State<Shared>,
    Path(name): Path<Name>,
    Query(life): Query<Life>,
) -> Result<StatusCode, NodeError> {
    shared.node.give_up_holds(name, life.incarnation).await.map(|()| StatusCode::NO_CONTENT)
}

async fn hold_again(
    State(shared): State<Shared>,
    Path(name): Path<Name>,
    Query(life): Query<Life>,
) -> Result<StatusCode, NodeError> {
    shared.node.hold_again(name, life.incarnation).await.map(|()| StatusCode::NO_CONTENT)
}

impl IntoResponse for NodeError {
    fn into_response(self) -> Response {
        (self.status(), Json(serde_json::json!({ "error": self.to_string() }))).into_response()
    }
}
