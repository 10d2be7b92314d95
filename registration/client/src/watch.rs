//! A watch: what happens to the instances that match a filter, without gaps.

use std::{collections::VecDeque, time::Duration};

use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use portolan_model::{Filter, Instance, Listing, Transition};
use rand::RngExt;

use crate::{
    Client, ClientError,
    client::query,
    events::{Parser, RawEvent},
    transport::{Connection, Reply, broken, within},
};

/// The registry sends something every 15 s, if only a heartbeat: after three that did not come it is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// The largest event that is read, in bytes: the first one holds the whole list.
const LARGEST: usize = 128 << 20;

/// What a watcher sees.
// One event at a time is looked at and dropped: a box for each would cost more than the room it saves.
#[expect(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// All instances that match, at the beginning, and again when the registry no longer remembers what happened
    /// since the connection was lost. What is not in it is not there.
    Snapshot(Listing),
    /// One of them changed, began to match or ceased to match.
    Change {
        /// The catalog's index from this change on.
        index: u64,
        /// What happened.
        transition: Transition,
    },
}

/// A stream of [`Event`]s. Dropping it ends the watch.
pub struct Watch {
    client: Client,
    filter: Filter,
    stream: Option<Stream>,
    /// The index of what has been seen, and so where to go on after the connection was lost.
    seen: Option<u64>,
    failures: u32,
}

struct Stream {
    body: Incoming,
    parser: Parser,
    ready: VecDeque<RawEvent>,
    _connection: Connection,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("endpoint", self.client.endpoint())
            .field("filter", &self.filter)
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl Watch {
    pub(crate) async fn start(client: Client, filter: Filter) -> Result<Self, ClientError> {
        let mut watch = Self { client, filter, stream: None, seen: None, failures: 0 };
        watch.stream = Some(watch.connect().await?);
        Ok(watch)
    }

    /// The next event. An error says that the connection was lost or could not be made again; the next call makes it
    /// again, after a while that grows with the failures, and goes on where the last one ended. So a caller that
    /// wants to watch for ever shows the error and calls again.
    ///
    /// Cancel-safe: an event is not lost when the future is dropped.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    tokio::time::sleep(pause(self.failures)).await;
                    self.failures = self.failures.saturating_add(1);
                    let stream = self.connect().await?;
                    self.stream.insert(stream)
                }
            };
            while let Some(event) = stream.ready.pop_front() {
                self.failures = 0;
                if let Some(event) = read(&self.client, event)? {
                    self.seen = Some(match &event {
                        Event::Snapshot(listing) => listing.index,
                        Event::Change { index, .. } => *index,
                    });
                    return Ok(event);
                }
            }
            if let Err(error) = stream.fill(&self.client).await {
                self.stream = None;
                return Err(error);
            }
        }
    }

    async fn connect(&self) -> Result<Stream, ClientError> {
        let index: Vec<_> = self.seen.iter().map(|index| ("index", index.to_string())).collect();
        let path = format!("/v1/watch{}", query(&self.filter, &index));
        let client = &self.client;
        let work = async {
            let Reply { response, connection } =
                client.send(Method::GET, &path, None, "text/event-stream").await?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(client.refused(head.status, &client.read(body).await?));
            }
            let kind = head.headers.get(http::header::CONTENT_TYPE).map(|kind| kind.as_bytes());
            if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
                return Err(client.strange("its reply is no stream of events".to_owned()));
            }
            Ok(Stream { body, parser: Parser::default(), ready: VecDeque::new(), _connection: connection })
        };
        within(client.endpoint(), client.timeout(), work).await
    }
}

impl Stream {
    async fn fill(&mut self, client: &Client) -> Result<(), ClientError> {
        let frame = tokio::time::timeout(SILENCE, self.body.frame())
            .await
            .map_err(|_| ClientError::Timeout { endpoint: client.endpoint().to_string(), after: SILENCE })?;
        let frame = match frame {
            Some(frame) => frame.map_err(|e| broken(client.endpoint(), &e))?,
            None => {
                let endpoint = client.endpoint().to_string();
                return Err(ClientError::Broken {
                    endpoint,
                    reason: "the registry ended the watch".to_owned(),
                });
            }
        };
        self.ready.extend(self.parser.feed(frame.data_ref().map_or(&[][..], |data| data)));
        if self.parser.pending() > LARGEST {
            return Err(client.strange(format!("it sends an event of more than {LARGEST} bytes")));
        }
        Ok(())
    }
}

fn read(client: &Client, event: RawEvent) -> Result<Option<Event>, ClientError> {
    let wrong =
        |e: serde_json::Error| client.strange(format!("an event {:?} of it cannot be read: {e}", event.name));
    let instance = || serde_json::from_str::<Instance>(&event.data).map_err(wrong);
    let transition = match event.name.as_str() {
        "snapshot" => return Ok(Some(Event::Snapshot(serde_json::from_str(&event.data).map_err(wrong)?))),
        "added" => Transition::Added(instance()?),
        "changed" => Transition::Changed(instance()?),
        "removed" => Transition::Removed(instance()?),
        // `resync` announces a snapshot; the rest is of a later version.
        _ => return Ok(None),
    };
    let index = event.id.as_deref().and_then(|id| id.parse().ok());
    let index =
        index.ok_or_else(|| client.strange(format!("an event {:?} of it has no index", event.name)))?;
    Ok(Some(Event::Change { index, transition }))
}

/// None, then a quarter of a second, doubling up to 8 s, each shortened by up to half so that those who lost the same
/// registry do not come back at the same time.
fn pause(failures: u32) -> Duration {
    let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
    Duration::from_millis(250 << doublings.min(5)).mul_f64(rand::rng().random_range(0.5..=1.0))
}
