//! `/v1/instances`: list, get, register, renew, deregister.

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use portolan_model::{Instance, Name, Registration};
use rand::RngExt;
use serde::Serialize;
use tokio::time::{Duration, Instant};

use super::{INDEX, Problem, body, query, serve::Closing};
use crate::{
    Caller, Registry, RegistryError,
    admit::{Peer, Refusal},
    watch::wait_for_change,
};

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// A list as it is, without a copy of every instance.
#[derive(Serialize)]
struct Listing<'a> {
    index: u64,
    instances: Vec<&'a Instance>,
}

pub(super) async fn list(
    State(registry): State<Registry>,
    closing: Option<Extension<Closing>>,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let wanted = query::wanted(pairs.map_err(Problem::bad_request)?.0)?;
    if let Some(index) = wanted.index {
        let wait = wanted.wait();
        // Those who wait for the same thing must not all come back at the same moment (as in Consul: up to 1/16 more).
        let spread = Duration::from_millis(rand::rng().random_range(0..=wait.as_millis() as u64 / 16));
        let _waiting = super::stream::Waiting::new(&registry);
        let changed = wait_for_change(&registry, &wanted.filter, index, Instant::now() + wait + spread);
        tokio::select! {
            () = changed => {}
            () = super::serve::closed(closing) => {}
        }
    }
    let snapshot = registry.snapshot();
    let instances = snapshot.select(&wanted.filter).into_iter().map(|instance| &**instance).collect();
    json(StatusCode::OK, snapshot.index(), &Listing { index: snapshot.index(), instances })
}

pub(super) async fn get(
    State(registry): State<Registry>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let name = name_of(&name)?;
    let snapshot = registry.snapshot();
    match snapshot.get(name.as_str()) {
        Some(instance) => json(StatusCode::OK, snapshot.index(), &**instance),
        None => Err(Problem::new(StatusCode::NOT_FOUND, format!("no instance is registered as {name}"))),
    }
}

pub(super) async fn put(
    State(registry): State<Registry>,
    peer: Option<Extension<Peer>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = caller(&registry, peer, &headers)?;
    let registration = registration(name_of(&name)?, &body::read(body).await?)?;
    let registered = registry.register(registration, caller).await?;
    let status = if registered.created { StatusCode::CREATED } else { StatusCode::OK };
    json(status, registered.index, &registered)
}

pub(super) async fn renew(
    State(registry): State<Registry>,
    peer: Option<Extension<Peer>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let caller = caller(&registry, peer, &headers)?;
    let incarnation = query::incarnation(pairs.map_err(Problem::bad_request)?.0)?;
    registry.renew_as(caller, &name_of(&name)?, incarnation.as_ref()).await?;
    Ok(done(&registry))
}

pub(super) async fn delete(
    State(registry): State<Registry>,
    peer: Option<Extension<Peer>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    pairs: Pairs,
) -> Result<Response, Problem> {
    let caller = caller(&registry, peer, &headers)?;
    let incarnation = query::incarnation(pairs.map_err(Problem::bad_request)?.0)?;
    registry.deregister_as(caller, &name_of(&name)?, incarnation.as_ref()).await?;
    Ok(done(&registry))
}

/// Who asks. A listener that does not say who is at the other end serves strangers only.
pub(super) fn caller(
    registry: &Registry,
    peer: Option<Extension<Peer>>,
    headers: &HeaderMap,
) -> Result<Caller, Refusal> {
    let unknown = Peer::Address(std::net::Ipv4Addr::UNSPECIFIED.into());
    registry.shared().admission.caller(peer.map_or(unknown, |Extension(peer)| peer), headers)
}

fn name_of(text: &str) -> Result<Name, RegistryError> {
    text.parse().map_err(|e| RegistryError::invalid("name", e))
}

/// The registration in a body, which need not repeat the name of the path but must not say another. No body at all
/// registers a name and nothing else.
fn registration(name: Name, body: &Bytes) -> Result<Registration, Problem> {
    if body.trim_ascii().is_empty() {
        return Ok(Registration::new(name));
    }
    let wrong = |e: serde_json::Error| Problem::bad_request(format!("the body is no registration: {e}"));
    let mut value: serde_json::Value = serde_json::from_slice(body).map_err(wrong)?;
    let Some(object) = value.as_object_mut() else {
        return Err(Problem::bad_request("the body is no registration: it must be a JSON object"));
    };
    match object.get("name") {
        Some(said) if said.as_str() != Some(name.as_str()) => {
            return Err(Problem::bad_request(format!("name: the body says {said}, the path says {name}")));
        }
        _ => object.insert("name".to_owned(), name.to_string().into()),
    };
    serde_json::from_value(value).map_err(wrong)
}

fn json(status: StatusCode, index: u64, value: &impl Serialize) -> Result<Response, Problem> {
    let bytes = serde_json::to_vec(value).map_err(|e| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the reply: {e}"))
    })?;
    let json = HeaderValue::from_static("application/json");
    let headers = [(header::CONTENT_TYPE, json), (HeaderName::from_static(INDEX), HeaderValue::from(index))];
    Ok((status, headers, bytes).into_response())
}

fn done(registry: &Registry) -> Response {
    let index = HeaderValue::from(registry.snapshot().index());
    (StatusCode::NO_CONTENT, [(HeaderName::from_static(INDEX), index)]).into_response()
}
