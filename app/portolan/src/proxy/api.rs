//! What the administrator of this node can ask, at a unix socket that only root can open: what the proxy serves, for
//! `portolan proxy status` and `portolan trace`.

use std::{
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use portolan_apply::{ApplyError, ServicePlane};
use portolan_model::ObjectName;
use portolan_services::Services;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

use super::{Proxy, drive};
use crate::trace::state;

/// A socket of ours at `path`, for root only; `None` where there can be none, which is told. Another proxy that
/// answers there is an error: two would write the same table.
pub(crate) fn bind(path: &Path) -> anyhow::Result<Option<UnixListener>> {
    if UnixStream::connect(path).is_ok() {
        bail!(
            "another proxy answers at {}: end it, or give this one a --socket and a --table of its own",
            path.display()
        );
    }
    match listen(path) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            tracing::warn!("nobody can ask for the status of this proxy: {error:#}");
            Ok(None)
        }
    }
}

fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    // One that a proxy before us has left; if it cannot go, listening says why.
    let _ = std::fs::remove_file(path);
    // Nobody can connect before its mode is right: a connection needs the right to write (unix(7)).
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("changing the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answers until `stop`.
pub(crate) async fn serve(
    proxy: Arc<Proxy>,
    listener: UnixListener,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let path = proxy.config.socket.clone();
    let router =
        Router::new().route("/v1/status", get(status)).route(state::PATH, get(services)).with_state(proxy);
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
    let _ = std::fs::remove_file(path);
    served.context("answering at the proxy's socket")
}

/// What `portolan proxy status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The node's name.
    pub(crate) node: String,
    /// Of the program.
    pub(crate) version: String,
    pub(crate) table: String,
    /// Own only Services with this name of a proxy.
    pub(crate) service_proxy_name: Option<String>,
    pub(crate) started: SystemTime,
    /// Whether Services and endpoints were known once, and are in the kernel since.
    pub(crate) synced: bool,
    pub(crate) healthy: bool,
    /// For how long the API server has not answered.
    pub(crate) api_away: Option<Duration>,
    /// Why it does not, or why the kernel's rules are not what they should be.
    pub(crate) errors: Vec<String>,
    /// `None`: on all addresses.
    pub(crate) node_ports: Option<Vec<std::net::IpAddr>>,
    pub(crate) zone: Option<String>,
    pub(crate) repairs: u64,
    /// Changes that are not in the kernel yet.
    pub(crate) pending: u64,
    pub(crate) services: Vec<ServiceStatus>,
    /// Services that cannot be served as they ask.
    pub(crate) problems: Vec<ServiceProblem>,
}

/// One Service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceStatus {
    pub(crate) name: ObjectName,
    #[serde(rename = "type")]
    pub(crate) kind: portolan_model::ServiceType,
    pub(crate) addresses: Vec<std::net::IpAddr>,
    /// As `kubectl get service` shows them.
    pub(crate) ports: Vec<String>,
    /// Ready endpoints on this node.
    pub(crate) local: usize,
    pub(crate) generation: i64,
    /// The generation that is in the kernel.
    pub(crate) live: Option<i64>,
    pub(crate) since: Option<SystemTime>,
}

/// What is wrong with a Service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ServiceProblem {
    pub(crate) name: ObjectName,
    pub(crate) problem: String,
}

async fn status(State(proxy): State<Arc<Proxy>>) -> Response {
    let view = proxy.watches.health();
    let mut status = Status {
        node: proxy.config.node.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        table: proxy.config.table.clone(),
        service_proxy_name: proxy.config.proxy_name.clone(),
        started: proxy.started,
        synced: false,
        healthy: proxy.health.is_healthy(),
        api_away: view.away,
        errors: view.error.iter().map(ToString::to_string).collect(),
        node_ports: None,
        zone: None,
        repairs: 0,
        pending: 0,
        services: Vec::new(),
        problems: Vec::new(),
    };
    let Some(plane) = proxy.plane() else { return axum::Json(status).into_response() };
    let asked = tokio::task::spawn_blocking(move || fill(&plane, &mut status).map(|()| status)).await;
    answer(asked.map(|status| status.map(|status| axum::Json(status).into_response())))
}

fn fill(plane: &ServicePlane, status: &mut Status) -> Result<(), ApplyError> {
    let stats = plane.stats();
    status.synced = true;
    status.errors.extend(stats.last_error);
    (status.repairs, status.pending) = (stats.repairs, stats.pending);
    let live: std::collections::HashMap<_, _> = plane.all_live().into_iter().collect();
    let (config, services, problems) =
        plane.inspect(|services| (services.config().clone(), known(services), problems(services)))?;
    status.node_ports = drive::describe_node_ports(&config.node_ports);
    status.zone = config.node.zone;
    status.problems = problems;
    status.services = services;
    for service in &mut status.services {
        if let Some(live) = live.get(&service.name) {
            (service.live, service.since) = (Some(live.generation), Some(live.since));
        }
    }
    Ok(())
}

fn known(services: &Services) -> Vec<ServiceStatus> {
    let status = |service: &portolan_model::Service| ServiceStatus {
        name: service.name.clone(),
        kind: service.kind,
        addresses: service.cluster_addresses.clone(),
        ports: service.ports.iter().map(port).collect(),
        local: services.local_ready(&service.name),
        generation: service.generation,
        live: None,
        since: None,
    };
    services.services().map(status).collect()
}

fn port(port: &portolan_model::ServicePort) -> String {
    let protocol = port.protocol.as_str().to_uppercase();
    match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{protocol}", port.port),
        None => format!("{}/{protocol}", port.port),
    }
}

fn problems(services: &Services) -> Vec<ServiceProblem> {
    let problems = services.problems().into_iter();
    problems
        .map(|(name, problem)| ServiceProblem { name: name.clone(), problem: problem.to_string() })
        .collect()
}

/// Everything that the rules are made from.
async fn services(State(proxy): State<Arc<Proxy>>) -> Response {
    let Some(plane) = proxy.plane() else {
        return refusal("the proxy waits for the API server: it does not know the Services yet");
    };
    let asked = tokio::task::spawn_blocking(move || state::State::of_plane(&plane)).await;
    answer(asked.map(|known| known.map(|state| axum::Json(state).into_response())))
}

fn answer(asked: Result<Result<Response, ApplyError>, tokio::task::JoinError>) -> Response {
    match asked {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => refusal(error),
        Err(error) => refusal(error),
    }
}

/// In the form in which clients of Portolan read a reason.
fn refusal(reason: impl std::fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(json!({"error": reason.to_string()}))).into_response()
}
