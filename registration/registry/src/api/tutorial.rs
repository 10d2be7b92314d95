//! The register API of the dynamic-ports tutorial (github.com/kelseyhightower/dynamic-ports-tutorial,
//! `service-registry/main.go`), so that its clients work unchanged.
//!
//! One path, any method, any content type. The body is the first JSON value in it, read as Go's `encoding/json`
//! reads it into a struct: keys in any case, the last of two equal keys counts, `null` leaves a field empty, unknown
//! keys and everything after the value are ignored. The reply is an empty 200, or an empty 500 for what cannot be
//! read.
//!
//! It differs where the original did harm: it stored what can never be probed, and connected to any address it was
//! told. Here such a registration gets a 400 or 403 with a reason.

mod go_json;

use std::{net::SocketAddr, time::Duration};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::any,
};
use go_json::Words;
use portolan_model::{CheckKind, CheckSpec, InstancePort, Name, PortRange, Protocols, Registration};

use super::{Problem, body, count, instances};
use crate::{Registry, RegistryError, admit::Peer};

/// Its clients register again every 30 s; two of those may be lost.
const TTL: Duration = Duration::from_secs(90);

/// A router with `/register` alone, for a listener of its own: 127.0.0.1:10081, as in the original.
pub fn tutorial(registry: Registry) -> Router {
    let metrics = registry.shared().metrics.clone();
    let router = Router::new().route("/register", any(register)).fallback(not_found).with_state(registry);
    count(router, metrics)
}

async fn register(
    State(registry): State<Registry>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let work = async {
        let caller = instances::caller(&registry, peer, &headers)?;
        let body = body::read(body).await?;
        let Ok(words) = Words::read(&body) else {
            return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        };
        registry.register(registration(words)?, caller).await?;
        Ok(StatusCode::OK.into_response())
    };
    work.await.unwrap_or_else(|problem: Problem| {
        let status = problem.status();
        let mut response = (status, problem.into_reason() + "\n").into_response();
        response.headers_mut().extend(Problem::header(status));
        response
    })
}

/// What the original's server answers for a path it does not have: Go's `http.NotFound`.
async fn not_found() -> Response {
    let headers = [(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))];
    (StatusCode::NOT_FOUND, headers, "404 page not found\n").into_response()
}

fn registration(words: Words) -> Result<Registration, RegistryError> {
    let name: Name = words.name.parse().map_err(|e| RegistryError::invalid("Name", e))?;
    let address: SocketAddr = words.address.parse().map_err(|_| {
        let said = format!("{:?} is no address: write 192.0.2.1:4000 or [2001:db8::1]:4000", words.address);
        RegistryError::invalid("Address", said)
    })?;
    let port = PortRange::single(address.port()).map_err(|e| RegistryError::invalid("Address", e))?;
    let http: Name = "http".parse().map_err(|e| RegistryError::invalid("Name", e))?;
    // The original looks every 10 s, gives each look 5 s, and takes four that fail as the end; one that passes is
    // a new beginning.
    let check = CheckSpec {
        port: Some(http.clone()),
        timeout: Duration::from_secs(5),
        fall: 4,
        rise: 1,
        ..CheckSpec::new(CheckKind::Http { path: "/healthz".to_owned() })
    };
    Ok(Registration {
        addresses: vec![address.ip()],
        ports: vec![InstancePort { name: http, protocols: Protocols::TCP, port, container: None }],
        tags: words.tags,
        check: Some(check),
        ttl: Some(TTL),
        ..Registration::new(name)
    })
}

#[cfg(test)]
mod tests;
