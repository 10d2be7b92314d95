//! What came by each frontend and each endpoint, read back from the elements that count.

use std::{cell::RefCell, collections::BTreeMap};

use portolan_model::{ObjectName, Protocol};
use portolan_nft::{Element, Nft, Table};
use portolan_plan::Counts;
use portolan_services::{Counted, Direction, Front, Identity, Services, ServicesConfig, SetId, Target};

/// What came by a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontendCounts {
    /// Whose it is.
    pub service: ObjectName,
    /// What clients connect to.
    pub front: Front,
    /// Connections; packets and bytes with [`Counting::Traffic`](portolan_plan::Counting).
    pub counts: Counts,
}

/// What came to an endpoint by one Service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCounts {
    /// Whose it is.
    pub service: ObjectName,
    /// Protocol and port of the Service; `None` for ranges of ports and whole addresses.
    pub port: Option<(Protocol, u16)>,
    /// Where connections went.
    pub target: Target,
    /// Connections.
    pub connections: u64,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceCounts {
    /// By frontend; those by which nothing came are left out.
    pub frontends: Vec<FrontendCounts>,
    /// By endpoint; those to which nothing came are left out.
    pub backends: Vec<BackendCounts>,
    /// Packets and bytes of endpoints, of all Services together.
    pub traffic: Vec<(Target, Protocol, Counts)>,
}

/// Elements that have counted something, by set.
pub(super) type Read = Vec<(SetId, Vec<Element>)>;

/// Reads every set that counts. What has counted nothing is left out.
pub(super) fn read<N: Nft>(
    nft: &mut N,
    config: &ServicesConfig,
    table: &Table,
) -> Result<Read, portolan_nft::Error> {
    let mut all = Vec::new();
    for id in SetId::all(config).filter(|id| id.is_counted(config)) {
        let counted = RefCell::new(Vec::new());
        let found = nft.visit_elements(
            table,
            &id.declaration(config),
            &mut || counted.borrow_mut().clear(),
            &mut |element| {
                if element.counter.is_some_and(|counter| counter.packets > 0) {
                    counted.borrow_mut().push(element);
                }
            },
        );
        match found {
            Ok(()) => all.push((id, counted.into_inner())),
            // Flushed a moment ago, and not repaired yet.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Says whose elements these are, and adds up what several of them counted.
pub(super) fn name(services: &Services, read: Read) -> ServiceCounts {
    let mut fronts: BTreeMap<(ObjectName, Front), Counts> = BTreeMap::new();
    let mut chosen: BTreeMap<(ObjectName, Identity, Target), u64> = BTreeMap::new();
    let mut traffic: BTreeMap<(Target, Protocol), Counts> = BTreeMap::new();
    for (set, elements) in read {
        for element in elements {
            let Some(counter) = element.counter else { continue };
            let seen = |counts: &mut Counts, direction| match direction {
                Direction::Received => {
                    counts.received_packets += counter.packets;
                    counts.received_bytes += counter.bytes;
                }
                Direction::Sent => {
                    counts.sent_packets += counter.packets;
                    counts.sent_bytes += counter.bytes;
                }
            };
            match services.counted(set, &element) {
                Some(Counted::Connections { service, front }) => {
                    fronts.entry((service, front)).or_default().connections += counter.packets;
                }
                Some(Counted::Traffic { service, front, direction }) => {
                    seen(fronts.entry((service, front)).or_default(), direction);
                }
                Some(Counted::Chosen { service, of, target }) => {
                    *chosen.entry((service, of, target)).or_default() += counter.packets;
                }
                Some(Counted::Endpoint { target, protocol, direction }) => {
                    seen(traffic.entry((target, protocol)).or_default(), direction);
                }
                // It went while it was read.
                None => {}
            }
        }
    }
    let frontends =
        fronts.into_iter().map(|((service, front), counts)| FrontendCounts { service, front, counts });
    let backends = chosen.into_iter().map(|((service, of, target), connections)| {
        let port = (of.port != 0).then_some((of.protocol, of.port));
        BackendCounts { service, port, target, connections }
    });
    let traffic = traffic.into_iter().map(|((target, protocol), counts)| (target, protocol, counts));
    ServiceCounts { frontends: frontends.collect(), backends: backends.collect(), traffic: traffic.collect() }
}
