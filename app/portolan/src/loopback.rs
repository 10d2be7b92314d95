//! Published ports on the loopback: which relays there are, and which there should be.
//!
//! The kernel cannot forward `127.0.0.1:PORT` without opening the loopback to neighbours (see [`portolan_relay`]). A relay
//! listens on the very socket that holds the port. A socket that a relay has keeps its port from the next owner, so relays
//! end before their lease does; and from a holder that was started anew, so they end for it too.
//!
//! The agent has these for Pods, `up --localhost` for instances.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
    time::Duration,
};

use portolan_model::{Incarnation, InstanceId, Protocol, PublishedPort};
use portolan_ports::hold::Hold;
use portolan_relay::{Limits, Relay, Targets};
use tokio::sync::Mutex;

/// How long connections may take to end by themselves when their instance is gone: it answers nobody any more.
const GRACE: Duration = Duration::ZERO;

/// What one life of an instance is to have.
pub(crate) type Wanted = (Incarnation, BTreeMap<Hold, Targets>);

/// The relays of one instance.
#[derive(Debug)]
struct Served {
    life: Incarnation,
    relays: BTreeMap<Hold, Relay>,
}

impl Served {
    async fn stop(self) {
        for relay in self.relays.into_values() {
            relay.stop_within(GRACE).await;
        }
    }
}

/// All relays.
#[derive(Debug, Default)]
pub(crate) struct Loopback(Mutex<HashMap<InstanceId, Served>>);

impl Loopback {
    /// Ends the relays of an instance, whichever life of it.
    pub(crate) async fn stop(&self, instance: &InstanceId) {
        if let Some(served) = self.0.lock().await.remove(instance) {
            served.stop().await;
        }
    }

    /// Ends those of every life but this.
    pub(crate) async fn stop_others(&self, instance: &InstanceId, life: &Incarnation) {
        let mut all = self.0.lock().await;
        if all.get(instance).is_some_and(|served| served.life != *life)
            && let Some(served) = all.remove(instance)
        {
            served.stop().await;
        }
    }

    /// Ends the relays of instances whose ports are not held, although they should be: a holder that was started anew
    /// cannot bind what a relay still has. Answers whether there were any.
    pub(crate) async fn stop_unheld(&self, unheld: &HashSet<InstanceId>) -> bool {
        let mut all = self.0.lock().await;
        let mut any = false;
        for instance in unheld {
            if let Some(served) = all.remove(instance) {
                tracing::info!(%instance, "its ports are held by another holder now: the relay on the loopback begins anew");
                served.stop().await;
                any = true;
            }
        }
        any
    }

    /// Starts what should be and is not, and ends what is and should not be. `borrow` gets the socket of a hold of a life
    /// that is still there. What cannot be had now is tried again the next time.
    pub(crate) async fn follow<E: fmt::Display, F: Future<Output = Result<Option<OwnedFd>, E>>>(
        &self,
        wanted: HashMap<InstanceId, Wanted>,
        borrow: impl Fn(InstanceId, Incarnation, Hold) -> F,
    ) {
        let mut all = self.0.lock().await;
        let gone: Vec<InstanceId> = all
            .iter()
            .filter(|(instance, served)| wanted.get(*instance).is_none_or(|(life, _)| *life != served.life))
            .map(|(instance, _)| instance.clone())
            .collect();
        for served in gone.iter().filter_map(|instance| all.remove(instance)) {
            served.stop().await;
        }
        drop(all);
        self.start(wanted, borrow).await;
    }

    /// Starts what should be and is not.
    pub(crate) async fn start<E: fmt::Display, F: Future<Output = Result<Option<OwnedFd>, E>>>(
        &self,
        wanted: HashMap<InstanceId, Wanted>,
        borrow: impl Fn(InstanceId, Incarnation, Hold) -> F,
    ) {
        let mut all = self.0.lock().await;
        for (instance, (life, ports)) in wanted {
            let own = all
                .entry(instance.clone())
                .or_insert_with(|| Served { life: life.clone(), relays: BTreeMap::new() });
            for (hold, targets) in ports {
                if own.relays.contains_key(&hold) {
                    continue;
                }
                match borrow(instance.clone(), life.clone(), hold).await {
                    Ok(Some(socket)) => {
                        match Relay::start(hold.protocol, socket, targets, Limits::default()) {
                            Ok(relay) => drop(own.relays.insert(hold, relay)),
                            Err(error) => tracing::warn!(%instance, %hold, %error, "not on the loopback"),
                        }
                    }
                    Ok(None) => tracing::debug!(%instance, %hold, "not held, so not on the loopback yet"),
                    Err(error) => tracing::warn!(%instance, %hold, %error, "not on the loopback"),
                }
            }
        }
    }
}

/// One relay for each number and protocol of these ports. SCTP has none.
pub(crate) fn targets<'a>(
    ports: impl Iterator<Item = &'a PublishedPort>,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
) -> BTreeMap<Hold, Targets> {
    let one = |port: &'a PublishedPort| {
        let holds = Hold::of(port).filter(|hold| hold.protocol != Protocol::Sctp).flat_map(Hold::each);
        let (first, container) = (port.host.first(), port.container);
        holds.map(move |hold| {
            let inside = container.saturating_add(hold.ports.first() - first);
            (hold, Targets::new(v4, v6, inside))
        })
    };
    ports.flat_map(one).collect()
}
