//! The web page: every instance with the addresses that reach it, live.
//!
//! Four kinds of request, each a file: [`pages`](router) writes HTML from the registry's snapshot (it works without
//! scripts, then shows the first rows only), `live` streams what changes from there on as server-sent events,
//! `history` remembers who changed state when, `assets` is the style sheet and the one script. Nothing comes from
//! another host and nothing in the page is a script or style of its own, so the content security policy in `headers`
//! is as strict as it gets: a name or a check's output can never become code.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod assets;
mod headers;
mod history;
mod live;
mod pages;
mod row;
mod view;

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
};

use axum::{Router, middleware, response::Response, routing::get};
use portolan_registry::Registry;
use tokio::sync::Semaphore;

use crate::history::History;

/// Streams at once. Each is a task and a socket; beyond, a page is told to try again later and shows so.
const STREAMS: usize = 512;

/// What the handlers share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) registry: Registry,
    pub(crate) history: Arc<History>,
    /// Tells this life of the server from another, whose indexes may be those of another catalog.
    pub(crate) life: Arc<str>,
    pub(crate) streams: Arc<Semaphore>,
}

/// The page's routes and no others: `/`, `/instances/{name}`, `/live` and `/assets/…`. Merge it with the API's.
///
/// Must be called inside a tokio runtime: it starts the task that remembers transitions, which ends with the registry.
pub fn router(registry: Registry) -> Router {
    let history = History::follow(registry.clone());
    // The keys of a fresh hasher are random, and nobody gains by guessing them.
    let life = format!("{:016x}", RandomState::new().hash_one(())).into();
    let shared = Shared { registry, history, life, streams: Arc::new(Semaphore::new(STREAMS)) };
    Router::new()
        .route("/", get(pages::index))
        .route("/instances/{name}", get(pages::instance))
        .route("/live", get(live::live))
        .route("/assets/portolan.css", get(assets::style))
        .route("/assets/portolan.js", get(assets::script))
        .route("/assets/portolan.svg", get(assets::icon))
        .layer(middleware::map_response(headers::protect))
        .with_state(shared)
}

/// The page for addresses that are nobody's: for the fallback of the router that this one is merged into.
pub async fn not_found() -> Response {
    headers::protect(pages::not_found()).await
}
