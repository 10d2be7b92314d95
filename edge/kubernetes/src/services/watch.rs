//! What a service proxy watches, and the one stream of events that its watches become.

use std::sync::{Arc, atomic::AtomicUsize};

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::Resource;
use portolan_model::{EndpointSlice, ObjectName, Service};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    ProxyNode, convert,
    feed::{Differences, Feed, Outgoing, Whole},
    number, slice,
    watched::{WatchedNode, WatchedService, WatchedSlice},
};
use crate::{
    Connection, ViewHealth,
    mirror::{Follower, MirrorState, Wanted, follow},
};

/// Whose Services they are: kube-proxy leaves those alone that have this label, whatever its value.
pub const SERVICE_PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Slices with this label are those of headless Services.
const HEADLESS_LABEL: &str = "service.kubernetes.io/headless";
/// Events that wait for the consumer. When they are so many the watches wait too.
const QUEUE: usize = 256;

/// What is watched.
#[derive(Clone, Debug, Default)]
pub struct ServiceWatchConfig {
    /// The own Node's name.
    pub node: String,
    /// Only Services with this value of [`SERVICE_PROXY_NAME_LABEL`]. `None`: those without the label, as kube-proxy.
    pub proxy_name: Option<String>,
}

/// Something is other than it was. An event of an object comes when its facts are new or other, never twice the same,
/// also when a watch has expired and everything was listed again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServiceEvent {
    /// Every kind was seen as a whole: what came before is the state of the cluster. Once.
    Synced,
    /// A Service with frontends is new or other.
    SetService {
        /// It.
        service: Box<Service>,
        /// `metadata.uid`, for Events about it.
        uid: String,
        /// What of its annotations cannot be used.
        problems: Vec<String>,
    },
    /// A Service is gone, or no longer ours, or has no frontends any more.
    RemoveService(ObjectName),
    /// A slice is new or other.
    SetSlice(EndpointSlice),
    /// A slice is gone, or belongs to no Service any more.
    RemoveSlice(ObjectName),
    /// The own Node; `None` when there is no such object.
    Node(Option<ProxyNode>),
    /// The networks of cluster addresses (ServiceCIDR).
    ServiceNetworks(Vec<IpNet>),
}

/// The watches. They end when this is dropped.
pub struct ServiceWatch {
    events: mpsc::Receiver<ServiceEvent>,
    connection: Connection,
    states: Vec<watch::Receiver<MirrorState>>,
    _watches: DropGuard,
}

impl ServiceWatch {
    /// Begins to watch.
    pub fn start(connection: &Connection, config: &ServiceWatchConfig) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let mut starter = Starter {
            outgoing: Outgoing { events: sender, missing: Arc::new(AtomicUsize::new(4)) },
            stop: CancellationToken::new(),
            states: Vec::new(),
        };
        let services = Wanted::<WatchedService>::new(connection, "Services");
        let services = match &config.proxy_name {
            Some(name) => services.labels(&format!("{SERVICE_PROXY_NAME_LABEL}={name}")),
            None => services.labels(&format!("!{SERVICE_PROXY_NAME_LABEL}")),
        };
        starter.differences(services.fields("spec.clusterIP!=None"), ServiceDifferences);
        let slices = Wanted::<WatchedSlice>::new(connection, "EndpointSlices");
        starter.differences(slices.labels(&format!("!{HEADLESS_LABEL}")), SliceDifferences);
        let node = Wanted::<WatchedNode>::new(connection, "the own Node");
        let node = node.fields(&format!("metadata.name={}", config.node));
        starter.whole(
            node,
            |node| ProxyNode::from(node),
            |nodes| ServiceEvent::Node(nodes.into_values().next()),
        );
        let networks = Wanted::<ServiceCIDR>::new(connection, "ServiceCIDRs").optional();
        starter.whole(networks, networks_of, |all| {
            let mut networks: Vec<IpNet> = all.into_values().flatten().collect();
            networks.sort_unstable();
            networks.dedup();
            ServiceEvent::ServiceNetworks(networks)
        });
        Self {
            events,
            connection: connection.clone(),
            states: starter.states,
            _watches: starter.stop.drop_guard(),
        }
    }

    /// Waits for the next event. Can be dropped and called again without losing one.
    pub async fn next(&mut self) -> ServiceEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The watches hold the other end for as long as we live.
            None => std::future::pending().await,
        }
    }

    /// Waits for an event, and takes what else is there already, up to `most`.
    pub async fn next_many(&mut self, events: &mut Vec<ServiceEvent>, most: usize) {
        if self.events.recv_many(events, most).await == 0 {
            std::future::pending::<()>().await;
        }
    }

    /// How the watches are doing.
    pub fn health(&self) -> ViewHealth {
        self.health_of().health()
    }

    /// The same for somebody who does not read the events.
    pub fn health_of(&self) -> ServiceWatchHealth {
        ServiceWatchHealth { connection: self.connection.clone(), states: self.states.clone() }
    }
}

/// Says how the watches are doing.
#[derive(Clone)]
pub struct ServiceWatchHealth {
    connection: Connection,
    states: Vec<watch::Receiver<MirrorState>>,
}

impl ServiceWatchHealth {
    /// Now.
    pub fn health(&self) -> ViewHealth {
        let states: Vec<MirrorState> = self.states.iter().map(|state| state.borrow().clone()).collect();
        ViewHealth::of(states.iter(), self.connection.answered())
    }
}

/// What all watches have in common.
struct Starter {
    outgoing: Outgoing,
    stop: CancellationToken,
    states: Vec<watch::Receiver<MirrorState>>,
}

impl Starter {
    fn differences<D: Differences>(&mut self, wanted: Wanted<D::Object>, kind: D) {
        let (state, outgoing) = (self.state(), self.outgoing.clone());
        let feed = Feed::new(kind, outgoing, state, wanted.answered().clone());
        self.spawn(wanted, feed);
    }

    fn whole<K, F>(
        &mut self,
        wanted: Wanted<K>,
        facts: fn(&K) -> F,
        event: fn(std::collections::BTreeMap<String, F>) -> ServiceEvent,
    ) where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
        F: Clone + PartialEq + Send + Sync + 'static,
    {
        let (state, outgoing) = (self.state(), self.outgoing.clone());
        let whole =
            Whole::new(facts, event, outgoing, state, wanted.answered().clone(), wanted.is_optional());
        self.spawn(wanted, whole);
    }

    fn state(&mut self) -> watch::Sender<MirrorState> {
        let (state, receiver) = watch::channel(MirrorState::default());
        self.states.push(receiver);
        state
    }

    fn spawn<K>(&self, wanted: Wanted<K>, mut follower: impl Follower<K> + 'static)
    where
        K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(follow(wanted, &mut follower)).await });
    }
}

struct ServiceDifferences;

impl Differences for ServiceDifferences {
    type Object = WatchedService;

    fn set(&self, object: &WatchedService) -> Option<ServiceEvent> {
        let (service, problems) = convert::service(object)?;
        let uid = object.metadata.uid.clone().unwrap_or_default();
        Some(ServiceEvent::SetService { service: Box::new(service), uid, problems })
    }

    fn remove(&self, name: ObjectName) -> ServiceEvent {
        ServiceEvent::RemoveService(name)
    }
}

struct SliceDifferences;

impl Differences for SliceDifferences {
    type Object = WatchedSlice;

    fn set(&self, object: &WatchedSlice) -> Option<ServiceEvent> {
        slice::slice(object).map(ServiceEvent::SetSlice)
    }

    fn remove(&self, name: ObjectName) -> ServiceEvent {
        ServiceEvent::RemoveSlice(name)
    }
}

/// One that is being deleted still has addresses in use until it is gone.
fn networks_of(object: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = object.spec.as_ref().and_then(|spec| spec.cidrs.as_deref()).unwrap_or_default();
    cidrs.iter().filter_map(|cidr| number::network(cidr)).collect()
}
