//! Events about Pods, Nodes and pools, as `events.k8s.io/v1`.
//!
//! The same Event again becomes a series of the first one, as Kubernetes asks of its reporters:
//! <https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/>. kube has a recorder that does so too;
//! it takes Events that differ in their message only for the same and keeps the first message, which here would be the
//! reason of a refusal that no longer holds.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event, events::v1::EventSeries},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::Counters;
use crate::{ApiError, Connection, PodKey, backoff::Backoff, connection::CALL};

/// How many different Events are remembered, to count them when they come again.
const REMEMBERED: usize = 512;
/// How long the same Event is counted in its first one.
const SERIES_SECONDS: i64 = 360;
/// How often an Event is tried that is refused as if by RBAC: so are those of a namespace that is being deleted.
const TRIES: u32 = 4;
/// The API server's limit for `note` is 1 kB.
const NOTE_BYTES: usize = 1000;

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A Pod.
    Pod(PodKey),
    /// A Node, by its name.
    Node(String),
    /// A `PortPool`, by its name and UID.
    Pool(String, String),
    /// A Service, by its namespace, name and UID.
    Service(String, String, String),
}

/// How serious an Event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// All is well.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An Event before it is written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    about: About,
    kind: EventKind,
    reason: String,
    action: String,
    message: String,
}

impl Note {
    pub(super) fn new(about: &About, kind: EventKind, reason: &str, action: &str, message: &str) -> Self {
        let mut end = message.len().min(NOTE_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Self {
            about: about.clone(),
            kind,
            reason: reason.to_owned(),
            action: action.to_owned(),
            message: message[..end].to_owned(),
        }
    }

    fn reference(&self) -> ObjectReference {
        let of =
            |version: &str, kind: &str, namespace: Option<&str>, name: &str, uid: &str| ObjectReference {
                api_version: Some(version.to_owned()),
                kind: Some(kind.to_owned()),
                namespace: namespace.map(str::to_owned),
                name: Some(name.to_owned()),
                uid: (!uid.is_empty()).then(|| uid.to_owned()),
                ..ObjectReference::default()
            };
        match &self.about {
            About::Pod(pod) => of("v1", "Pod", Some(&pod.namespace), &pod.name, &pod.uid),
            // kubelet uses a Node's name for its UID in Events, and `kubectl describe node` looks for that.
            About::Node(name) => of("v1", "Node", None, name, name),
            About::Pool(name, uid) => of("portolan.dev/v1alpha1", "PortPool", None, name, uid),
            About::Service(namespace, name, uid) => of("v1", "Service", Some(namespace), name, uid),
        }
    }

    fn event(&self, instance: &str, now: Timestamp) -> Event {
        let regarding = self.reference();
        Event {
            action: Some(self.action.clone()),
            event_time: Some(MicroTime(now)),
            metadata: ObjectMeta {
                // Events of what has no namespace belong into this one.
                namespace: regarding.namespace.clone().or_else(|| Some("default".to_owned())),
                name: Some(format!(
                    "{}.{:x}",
                    regarding.name.as_deref().unwrap_or("portolan"),
                    now.as_nanosecond()
                )),
                ..ObjectMeta::default()
            },
            note: Some(self.message.clone()),
            reason: Some(self.reason.clone()),
            regarding: Some(regarding),
            reporting_controller: Some("portolan.dev/portolan".to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(format!("{:?}", self.kind)),
            ..Event::default()
        }
    }
}

/// An Event that the API server has.
struct Written {
    namespace: String,
    name: String,
    count: i32,
    last: Timestamp,
}

/// Those of the last minutes, bounded.
#[derive(Default)]
struct Memory {
    written: HashMap<Note, Written>,
    order: VecDeque<Note>,
}

impl Memory {
    fn recent(&mut self, note: &Note, now: Timestamp) -> Option<&mut Written> {
        let written = self.written.get_mut(note)?;
        (now.as_second() - written.last.as_second() < SERIES_SECONDS).then_some(written)
    }

    fn remember(&mut self, note: Note, written: Written) {
        if self.written.insert(note.clone(), written).is_none() {
            self.order.push_back(note);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
    }
}

/// Writes one Event after the other.
pub(super) struct Writer {
    connection: Connection,
    instance: String,
    counters: Arc<Counters>,
    waiting: Arc<watch::Sender<usize>>,
    memory: Memory,
}

impl Writer {
    pub(super) fn new(
        connection: &Connection,
        instance: &str,
        counters: Arc<Counters>,
        waiting: Arc<watch::Sender<usize>>,
    ) -> Self {
        let (connection, instance) = (connection.clone(), instance.to_owned());
        Self { connection, instance, counters, waiting, memory: Memory::default() }
    }

    pub(super) async fn work(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            self.insist(&note).await;
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }

    async fn insist(&mut self, note: &Note) {
        let (mut backoff, mut tries) = (Backoff::new(), 0);
        while let Err(error) = self.write(note).await {
            tries += u32::from(!error.is_away());
            if !error.is_retryable() || tries >= TRIES {
                tracing::debug!(?note, %error, "an Event is lost");
                self.counters.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.counters.retried.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(backoff.next()).await;
        }
        self.counters.landed.fetch_add(1, Ordering::Relaxed);
    }

    async fn write(&mut self, note: &Note) -> Result<(), ApiError> {
        let now = Timestamp::now();
        if let Some(written) = self.memory.recent(note, now) {
            let api = Api::<Event>::namespaced(self.connection.client(), &written.namespace);
            let series = EventSeries { count: written.count + 1, last_observed_time: MicroTime(now) };
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(json!({ "series": series })));
            let call = api.patch(&written.name, &parameters, &patch);
            match self.connection.limited("count an Event", CALL, call).await {
                Ok(_) => {
                    (written.count, written.last) = (series.count, now);
                    return Ok(());
                }
                // Events go after an hour, or by hand: then it is a new one.
                Err(ApiError::Missing { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let event = note.event(&self.instance, now);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        let api = Api::<Event>::namespaced(self.connection.client(), &namespace);
        let parameters = PostParams::default();
        self.connection.limited("create an Event", CALL, api.create(&parameters, &event)).await?;
        self.memory.remember(note.clone(), Written { namespace, name, count: 1, last: now });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(message: &str) -> Note {
        let pod = PodKey { namespace: "a".to_owned(), name: "b".to_owned(), uid: "u".to_owned() };
        Note::new(&About::Pod(pod), EventKind::Warning, "PortsRefused", "Allocate", message)
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(NOTE_BYTES);
        assert_eq!(note(&long).message.len(), NOTE_BYTES);
        assert_eq!(note(&format!("x{long}")).message.len(), NOTE_BYTES - 1);
    }

    #[test]
    fn memory_is_bounded_and_forgets_the_oldest() {
        let (mut memory, now) = (Memory::default(), Timestamp::now());
        let written = || Written { namespace: String::new(), name: String::new(), count: 1, last: now };
        for number in 0..REMEMBERED + 5 {
            memory.remember(note(&number.to_string()), written());
        }
        assert_eq!((memory.written.len(), memory.order.len()), (REMEMBERED, REMEMBERED));
        assert!(memory.recent(&note("0"), now).is_none() && memory.recent(&note("5"), now).is_some());
    }

    #[test]
    fn an_event_names_its_object_its_reporter_and_its_reason() {
        let event = note("why").event("node1", Timestamp::now());
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.regarding.unwrap().uid.as_deref(), Some("u"));
        assert_eq!(event.reporting_instance.as_deref(), Some("node1"));
        let node = Note::new(&About::Node("node1".to_owned()), EventKind::Normal, "R", "A", "m");
        assert_eq!(node.event("node1", Timestamp::now()).metadata.namespace.as_deref(), Some("default"));
    }
}
