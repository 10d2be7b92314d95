//! Published ports on the node's loopback: `127.0.0.1:PORT` and `[::1]:PORT`, by a relay in this process.
//!
//! The kernel cannot forward them without opening the loopback to neighbours (see [`portolan_relay`]). A relay listens
//! on the very socket that holds the port. A host port that a Pod wants on a loopback address (`hostIP: 127.0.0.1`) is
//! always served, as there is no other way to it; all others if `--localhost` says so.
//!
//! A socket that a relay has keeps its port from the next owner, so relays end before their lease does.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use portolan_model::{Incarnation, InstanceId, Network, Protocol, PublishedPort};
use portolan_ports::hold::Hold;
use portolan_relay::{Limits, Relay, Targets};
use tokio::sync::Mutex;

use super::{Agent, directory::Entry};

/// How long connections may take to end by themselves when their Pod is gone: it answers nobody any more.
const GRACE: Duration = Duration::ZERO;

/// The relays of one Pod.
#[derive(Debug)]
struct Served {
    life: Incarnation,
    relays: BTreeMap<Hold, Relay>,
}

/// All relays.
#[derive(Debug)]
pub(crate) struct Localhost {
    /// Whether every port is served, not only those of the loopback.
    all: bool,
    served: Mutex<HashMap<InstanceId, Served>>,
}

impl Localhost {
    /// None yet.
    pub(crate) fn new(all: bool) -> Self {
        Self { all, served: Mutex::default() }
    }

    /// Ends the relays of a Pod, whichever life of it.
    pub(crate) async fn stop(&self, instance: &InstanceId) {
        let served = self.served.lock().await.remove(instance);
        for (_, relay) in served.into_iter().flat_map(|served| served.relays) {
            relay.stop_within(GRACE).await;
        }
    }

    /// Starts what should be and is not, and ends what is and should not be. What cannot be had now is tried again the
    /// next time.
    pub(crate) async fn follow(&self, agent: &Agent) {
        let wanted: HashMap<InstanceId, (Incarnation, BTreeMap<Hold, Targets>)> = agent
            .directory
            .select(|entry| self.concerns(entry))
            .into_iter()
            .map(|entry| (entry.instance.clone(), (entry.incarnation.clone(), self.wanted(&entry))))
            .collect();
        let mut served = self.served.lock().await;
        let gone: Vec<InstanceId> = served
            .iter()
            .filter(|(instance, served)| wanted.get(*instance).is_none_or(|(life, _)| *life != served.life))
            .map(|(instance, _)| instance.clone())
            .collect();
        for relays in gone.iter().filter_map(|instance| served.remove(instance)) {
            for relay in relays.relays.into_values() {
                relay.stop_within(GRACE).await;
            }
        }
        for (instance, (life, ports)) in wanted {
            let own = served
                .entry(instance.clone())
                .or_insert_with(|| Served { life: life.clone(), relays: BTreeMap::new() });
            for (hold, targets) in ports {
                if own.relays.contains_key(&hold) {
                    continue;
                }
                let (key, of_life) = (instance.clone(), life.clone());
                let borrowed = agent.engine.call(move |attach| match attach.has(&key, &of_life) {
                    true => attach.borrow(hold),
                    false => Ok(None),
                });
                match borrowed.await {
                    Ok(Ok(Some(socket))) => {
                        match Relay::start(hold.protocol, socket, targets, Limits::default()) {
                            Ok(relay) => drop(own.relays.insert(hold, relay)),
                            Err(error) => tracing::warn!(%instance, %hold, %error, "not on the loopback"),
                        }
                    }
                    Ok(Ok(None)) => tracing::debug!(%instance, %hold, "not held, so not on the loopback yet"),
                    Ok(Err(error)) => tracing::warn!(%instance, %hold, %error, "not on the loopback"),
                    Err(_) => return,
                }
            }
        }
    }

    fn concerns(&self, entry: &Entry) -> bool {
        entry.network == Network::Own && entry.ports.iter().any(|port| self.serves(port.address))
    }

    fn serves(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) if address.is_loopback() => true,
            Some(address) => self.all && address.is_unspecified(),
            None => self.all,
        }
    }

    /// One relay for each number and protocol. SCTP has none.
    fn wanted(&self, entry: &Entry) -> BTreeMap<Hold, Targets> {
        let v4 = entry.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let v6 = entry.addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        let served = entry.ports.iter().filter(|port| self.serves(port.address));
        served.flat_map(|port| targets(port, v4, v6)).collect()
    }
}

fn targets(port: &PublishedPort, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> Vec<(Hold, Targets)> {
    let holds = Hold::of(port).filter(|hold| hold.protocol != Protocol::Sctp).flat_map(Hold::each);
    let inside = |hold: &Hold| port.container.saturating_add(hold.ports.first() - port.host.first());
    holds.map(|hold| (hold, Targets::new(v4, v6, inside(&hold)))).collect()
}
