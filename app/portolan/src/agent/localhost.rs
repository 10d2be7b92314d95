//! Published ports on the node's loopback: `127.0.0.1:PORT` and `[::1]:PORT`, by relays in this process
//! ([`crate::loopback`]).
//!
//! A host port that a Pod wants on a loopback address (`hostIP: 127.0.0.1`) is always served, as there is no other way to
//! it; all others if `--localhost` says so.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
};

use portolan_model::{InstanceId, Network};
use portolan_ports::hold::Hold;
use portolan_relay::Targets;

use super::{Agent, directory::Entry};
use crate::loopback::{Loopback, Wanted, targets};

/// All relays.
#[derive(Debug)]
pub(crate) struct Localhost {
    /// Whether every port is served, not only those of the loopback.
    all: bool,
    relays: Loopback,
}

impl Localhost {
    /// None yet.
    pub(crate) fn new(all: bool) -> Self {
        Self { all, relays: Loopback::default() }
    }

    /// Ends the relays of a Pod, whichever life of it.
    pub(crate) async fn stop(&self, instance: &InstanceId) {
        self.relays.stop(instance).await;
    }

    /// Starts what should be and is not, and ends what is and should not be.
    pub(crate) async fn follow(&self, agent: &Agent) {
        let unheld = agent.engine.call(|attach| attach.unheld().cloned().collect::<HashSet<_>>()).await;
        if self.relays.stop_unheld(&unheld.unwrap_or_default()).await {
            // Now they can be held.
            let _ = agent.engine.call(|attach| attach.maintain()).await;
        }
        let wanted: HashMap<InstanceId, Wanted> = agent
            .directory
            .select(|entry| self.concerns(entry))
            .into_iter()
            .map(|entry| (entry.instance.clone(), (entry.incarnation.clone(), self.wanted(&entry))))
            .collect();
        self.relays
            .follow(wanted, |instance, life, hold| {
                let engine = agent.engine.clone();
                async move {
                    let borrowed = engine.call(move |attach| match attach.has(&instance, &life) {
                        true => attach.borrow(hold),
                        false => Ok(None),
                    });
                    anyhow::Ok(borrowed.await??)
                }
            })
            .await;
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

    fn wanted(&self, entry: &Entry) -> BTreeMap<Hold, Targets> {
        let v4 = entry.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let v6 = entry.addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        targets(entry.ports.iter().filter(|port| self.serves(port.address)), v4, v6)
    }
}
