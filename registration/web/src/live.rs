//! `/live`: the catalog and what changes in it, as server-sent events.
//!
//! | event | data | when |
//! | --- | --- | --- |
//! | `begin` | `{"life", "count", "now"}` | first, and when the log no longer reaches back to what the page has |
//! | `rows` | `[row, …]` | some hundred rows each, until all are there |
//! | `ready` | `{"index"}` | then |
//! | `patch` | `{"index", "set": [row, …], "gone": [name, …]}` | a change; several within 100 ms are one |
//! | `beat` | `{"now"}` | each 10 s without a change, so that a page notices a dead connection |
//!
//! The id of an event is `LIFE-INDEX`, the catalog's index in one life of this server: who reconnects sends it back
//! (`Last-Event-ID`, or `?since=`) and gets only what it missed. After a restart everything comes anew, as the index
//! may be that of another catalog. A slow reader costs nothing: each event is made when the socket takes it, from the log that all
//! readers share.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response, Sse, sse::Event},
};
use futures_util::{Stream, stream};
use http::{HeaderMap, StatusCode, header};
use portolan_model::{Instance, Transition};
use portolan_registry::{Changes, Registry};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until, timeout},
};

use crate::{
    Shared,
    row::{Row, milliseconds},
};

/// Rows of one `rows` event: about 100 KiB.
const ROWS: usize = 250;

/// From one patch to the next at least. Nobody reads faster, and a storm of changes is drawn ten times a second.
const RHYTHM: Duration = Duration::from_millis(100);

/// From one sign of life to the next at most. The script takes twice as long for a dead connection.
const BEAT: Duration = Duration::from_secs(10);

/// What of the catalog.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    /// This instance only.
    name: Option<String>,
    /// `LIFE-INDEX`: up to where the page knows everything already.
    since: Option<String>,
}

/// Streams, or says that there are too many streams.
pub(crate) async fn live(
    State(shared): State<Shared>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> Response {
    let Ok(permit) = shared.streams.clone().try_acquire_owned() else {
        let text = "too many pages are open: close some, or try again in a moment\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], text).into_response();
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let seen = last.or(wanted.since.as_deref()).and_then(|mark| {
        let (life, index) = mark.split_once('-')?;
        index.parse().ok().filter(|_| life == &*shared.life)
    });
    let reader = Reader::new(shared, wanted.name, seen, permit);
    (
        [(header::CACHE_CONTROL, "no-store"), (header::HeaderName::from_static("x-accel-buffering"), "no")],
        Sse::new(events(reader)),
    )
        .into_response()
}

fn events(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, |mut reader| async move {
        let closing = reader.registry.closing();
        let event = closing.run_until_cancelled(reader.next()).await??;
        Some((Ok(event), reader))
    })
}

/// How far one page is.
struct Reader {
    registry: Registry,
    life: Arc<str>,
    bell: watch::Receiver<u64>,
    name: Option<String>,
    /// The index up to which the page knows everything; `None` when it knows nothing.
    seen: Option<u64>,
    /// Rows of a snapshot that are still to be sent, the next one last.
    rest: Option<Vec<Arc<Instance>>>,
    /// Not before this.
    pace: Instant,
    _permit: OwnedSemaphorePermit,
}

#[derive(Serialize)]
struct Begin<'a> {
    life: &'a str,
    count: usize,
    now: u64,
}

#[derive(Serialize)]
struct Ready {
    index: u64,
}

#[derive(Serialize)]
struct Beat {
    now: u64,
}

#[derive(Serialize)]
struct Patch {
    index: u64,
    set: Vec<Row>,
    gone: Vec<String>,
}

impl Reader {
    fn new(shared: Shared, name: Option<String>, seen: Option<u64>, permit: OwnedSemaphorePermit) -> Self {
        let Shared { registry, life, .. } = shared;
        let bell = registry.subscribe();
        Self { registry, life, bell, name, seen, rest: None, pace: Instant::now(), _permit: permit }
    }

    /// The next event; `None` when the registry has ended.
    async fn next(&mut self) -> Option<Event> {
        loop {
            match (&mut self.rest, self.seen) {
                (Some(rest), Some(index)) if rest.is_empty() => {
                    self.rest = None;
                    return Some(self.event("ready", index, &Ready { index }));
                }
                (Some(rest), Some(_)) => {
                    let rows = rest.split_off(rest.len().saturating_sub(ROWS));
                    let rows: Vec<Row> = rows.iter().rev().map(|instance| Row::new(instance)).collect();
                    // Without an id: who is cut off in the middle begins again.
                    return Event::default().event("rows").json_data(rows).ok();
                }
                (_, None) => return Some(self.begin()),
                (None, Some(seen)) => {
                    sleep_until(self.pace).await;
                    match self.patch(seen) {
                        Some(Some(event)) => {
                            self.pace = Instant::now() + RHYTHM;
                            return Some(event);
                        }
                        Some(None) => {}
                        None => {
                            self.seen = None;
                            continue;
                        }
                    }
                    match timeout(BEAT, self.bell.changed()).await {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return None,
                        Err(_) => {
                            let beat = Beat { now: milliseconds(SystemTime::now()) };
                            return Event::default().event("beat").json_data(beat).ok();
                        }
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> Event {
        let snapshot = self.registry.snapshot();
        let mut rows: Vec<_> = match &self.name {
            Some(name) => snapshot.get(name).cloned().into_iter().collect(),
            None => snapshot.iter().cloned().collect(),
        };
        rows.reverse();
        let begin = Begin { life: &self.life, count: rows.len(), now: milliseconds(SystemTime::now()) };
        // Index 0 is of no catalog: a browser that is cut off before `ready` begins again.
        let event = self.event("begin", 0, &begin);
        self.seen = Some(snapshot.index());
        self.rest = Some(rows);
        event
    }

    /// What happened since `seen`, the last word about each instance only. `None`: begin again. `Some(None)`: nothing.
    fn patch(&mut self, mut seen: u64) -> Option<Option<Event>> {
        let mut latest: BTreeMap<String, Option<Row>> = BTreeMap::new();
        loop {
            let Changes::Since(changes) = self.registry.changes(seen) else { return None };
            let Some(last) = changes.last() else { break };
            seen = last.index;
            for change in &changes {
                let instance = change.transition.instance();
                let name = instance.key.name.as_str();
                if self.name.as_ref().is_some_and(|wanted| wanted != name) {
                    continue;
                }
                let gone = matches!(change.transition, Transition::Removed(_));
                latest.insert(name.to_owned(), (!gone).then(|| Row::new(instance)));
            }
        }
        self.seen = Some(seen);
        if latest.is_empty() {
            return Some(None);
        }
        let mut patch = Patch { index: seen, set: Vec::new(), gone: Vec::new() };
        for (name, row) in latest {
            match row {
                Some(row) => patch.set.push(row),
                None => patch.gone.push(name),
            }
        }
        Some(Some(self.event("patch", seen, &patch)))
    }

    fn event(&self, kind: &str, index: u64, data: &impl Serialize) -> Event {
        let event = Event::default().event(kind).id(format!("{}-{index}", self.life));
        // Numbers and text always serialize; without its data the event would be an empty one, which is harmless.
        event.clone().json_data(data).unwrap_or(event)
    }
}
