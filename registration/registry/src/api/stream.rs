//! `/v1/watch`: server-sent events.
//!
//! `event: snapshot` holds the list, as `GET /v1/instances` gives it. Then come `added`, `changed` and `removed`, each
//! with the catalog's index as its id and the instance as its data. A client that comes back with the last id (a
//! browser does so by itself, in `Last-Event-ID`) goes on where it was. If the registry no longer knows what happened
//! since then, it says `event: resync` and begins with a snapshot again.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use portolan_model::{Filter, Instance, Transition};
use portolan_telemetry::metrics::Metrics;
use serde::Serialize;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{Problem, query, serve::Closing};
use crate::{Change, Changes, Registry};

/// A heartbeat, so that both ends notice when the other is gone.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Between two batches of changes for one client: a hundred changes a second are ten batches a second.
const GAP: Duration = Duration::from_millis(100);

pub(super) async fn watch(
    State(registry): State<Registry>,
    closing: Option<Extension<Closing>>,
    headers: HeaderMap,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = query::wanted(pairs.map_err(Problem::bad_request)?.0)?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let feed = Feed {
        bell: registry.subscribe(),
        _waiting: Waiting::new(&registry),
        filter: wanted.filter,
        seen: last.or(wanted.index),
        ready: VecDeque::new(),
        next_batch: Instant::now(),
        registry,
    };
    let events = stream::unfold((feed, closing), |(mut feed, closing)| async move {
        let ended = feed.registry.closing();
        let event = tokio::select! {
            event = feed.next() => event?,
            () = ended.cancelled() => return None,
            () = super::serve::closed(closing.clone()) => return None,
        };
        Some((Ok::<_, Infallible>(event), (feed, closing)))
    });
    let keep_alive = KeepAlive::new().interval(HEARTBEAT).text("heartbeat");
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // A proxy that collects the stream before it passes it on would make it useless (nginx's word for it).
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    Ok(response)
}

/// What one client has seen and is about to see.
struct Feed {
    registry: Registry,
    bell: watch::Receiver<u64>,
    filter: Filter,
    /// The index up to which it has seen everything; `None` before the first snapshot.
    seen: Option<u64>,
    ready: VecDeque<Event>,
    next_batch: Instant,
    _waiting: Waiting,
}

impl Feed {
    /// The next event; `None` when the registry has ended. Can be dropped and called again without losing one.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let Some(seen) = self.seen else {
                self.snapshot();
                continue;
            };
            self.bell.borrow_and_update();
            match self.registry.changes(seen) {
                Changes::Resync => {
                    let index = self.registry.snapshot().index();
                    self.push("resync", index, &serde_json::json!({"index": index}));
                    self.snapshot();
                }
                Changes::Since(changes) if changes.is_empty() => {
                    self.bell.changed().await.ok()?;
                    sleep_until(self.next_batch).await;
                    self.next_batch = Instant::now() + GAP;
                }
                Changes::Since(changes) => changes.iter().for_each(|change| self.change(change)),
            }
        }
    }

    fn snapshot(&mut self) {
        #[derive(Serialize)]
        struct Listing<'a> {
            index: u64,
            instances: Vec<&'a Instance>,
        }
        let snapshot = self.registry.snapshot();
        let index = snapshot.index();
        let instances = snapshot.select(&self.filter).into_iter().map(|instance| &**instance).collect();
        self.push("snapshot", index, &Listing { index, instances });
        self.seen = Some(index);
    }

    fn change(&mut self, change: &Change) {
        self.seen = Some(change.index);
        if let Some(transition) = change.seen_through(&self.filter) {
            let name = match transition {
                Transition::Added(_) => "added",
                Transition::Changed(_) => "changed",
                Transition::Removed(_) => "removed",
            };
            self.push(name, change.index, transition.instance());
        }
    }

    fn push(&mut self, name: &str, index: u64, data: &impl Serialize) {
        match Event::default().event(name).id(index.to_string()).json_data(data) {
            Ok(event) => self.ready.push_back(event),
            // Structs of texts and numbers have nothing that JSON cannot say.
            Err(error) => tracing::error!(%error, index, "an event cannot be written and is left out"),
        }
    }
}

/// Counts somebody who waits, for as long as it lives.
pub(super) struct Waiting(Arc<Metrics>);

impl Waiting {
    pub(super) fn new(registry: &Registry) -> Self {
        let metrics = Arc::clone(&registry.shared().metrics);
        metrics.watchers.inc();
        Self(metrics)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.watchers.dec();
    }
}
