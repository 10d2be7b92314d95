//! What came by each frontend and each endpoint, read back from the elements that count.

use std::{collections::HashMap, net::IpAddr};

use portolan_model::{ObjectName, Protocol};
use portolan_nft::{Counter, Data, Nft, Table};
use portolan_plan::Counts;
use portolan_services::{Direction, Front, Services, ServicesConfig, SetId, SetKind, Space, Target, Version};

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

/// Keys with what they have counted, by set.
pub(super) type Read = Vec<(SetId, Vec<(Data, Option<Data>, Counter)>)>;

/// Reads every set that counts. What has counted nothing is left out.
pub(super) fn read<N: Nft>(
    nft: &mut N,
    config: &ServicesConfig,
    table: &Table,
) -> Result<Read, portolan_nft::Error> {
    let mut all = Vec::new();
    for id in SetId::all(config).filter(|id| id.is_counted(config)) {
        let mut counted = std::cell::RefCell::new(Vec::new());
        let found = nft.visit_elements(
            table,
            &id.declaration(config),
            &mut || counted.borrow_mut().clear(),
            &mut |element| {
                if let Some(counter) = element.counter.filter(|counter| counter.packets > 0) {
                    counted.borrow_mut().push((element.key, element.key_end, counter));
                }
            },
        );
        match found {
            Ok(()) => all.push((id, std::mem::take(counted.get_mut()))),
            // Flushed a moment ago, and not repaired yet.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// Cluster address, protocol and port of the Service, and an endpoint.
type Backend = (IpAddr, Option<(Protocol, u16)>, Target);

/// Says whose keys these are.
pub(super) fn name(services: &Services, read: Read) -> ServiceCounts {
    let mut fronts: HashMap<Front, Counts> = HashMap::new();
    let mut backends: HashMap<Backend, u64> = HashMap::new();
    let mut traffic: HashMap<(Target, Protocol), Counts> = HashMap::new();
    for (id, keys) in read {
        for (key, last, counter) in keys {
            let mut fields = Fields { bytes: key.as_bytes(), version: id.version };
            match id.kind {
                SetKind::Connections(space) | SetKind::FrontTraffic(space, _) => {
                    let Some(front) = fields.front(space, last.as_ref()) else { continue };
                    add(fronts.entry(front).or_default(), id.kind, counter);
                }
                SetKind::Members(_) => {
                    let Some((address, port, target)) = fields.member() else { continue };
                    *backends.entry((address, Some(port), target)).or_default() += counter.packets;
                }
                SetKind::AddressMembers(_) => {
                    let (Some(address), Some(endpoint)) = (fields.address(), fields.address()) else {
                        continue;
                    };
                    *backends.entry((address, None, Target { address: endpoint, port: 0 })).or_default() +=
                        counter.packets;
                }
                SetKind::BackendTraffic(_) => {
                    let Some((target, protocol)) = fields.endpoint() else { continue };
                    add(traffic.entry((target, protocol)).or_default(), id.kind, counter);
                }
                _ => {}
            }
        }
    }
    let mut owners: HashMap<IpAddr, Vec<&portolan_model::Service>> = HashMap::new();
    for service in services.services() {
        let addresses =
            [&service.cluster_addresses, &service.external_addresses, &service.load_balancer_addresses];
        for address in addresses.into_iter().flatten() {
            owners.entry(*address).or_default().push(service);
        }
    }
    let node_ports: HashMap<(Protocol, u16), &ObjectName> = services
        .services()
        .flat_map(|service| service.ports.iter().map(move |port| (service, port)))
        .filter_map(|(service, port)| Some(((port.protocol, port.node_port?), &service.name)))
        .collect();
    let owner = |front: &Front| match *front {
        Front::Node { protocol, port, .. } => node_ports.get(&(protocol, port)).map(|name| (*name).clone()),
        Front::Port { address, protocol, port } => {
            let has = |service: &&&portolan_model::Service| {
                service.ports.iter().any(|one| one.protocol == protocol && one.port == port)
            };
            owners.get(&address)?.iter().find(has).map(|service| service.name.clone())
        }
        Front::Span { address, .. } | Front::Address(address) => {
            owners.get(&address)?.first().map(|service| service.name.clone())
        }
    };
    let frontends = fronts
        .into_iter()
        .filter_map(|(front, counts)| Some(FrontendCounts { service: owner(&front)?, front, counts }));
    let backends = backends.into_iter().filter_map(|((address, port, target), connections)| {
        let front =
            port.map_or(Front::Address(address), |(protocol, port)| Front::Port { address, protocol, port });
        Some(BackendCounts { service: owner(&front)?, port, target, connections })
    });
    let mut counts = ServiceCounts {
        frontends: frontends.collect(),
        backends: backends.collect(),
        traffic: traffic.into_iter().map(|((target, protocol), counts)| (target, protocol, counts)).collect(),
    };
    counts.frontends.sort_by(|one, two| (&one.service, one.front).cmp(&(&two.service, two.front)));
    counts
        .backends
        .sort_by(|one, two| (&one.service, one.port, one.target).cmp(&(&two.service, two.port, two.target)));
    counts.traffic.sort_by_key(|(target, protocol, _)| (*target, *protocol));
    counts
}

fn add(counts: &mut Counts, kind: SetKind, counter: Counter) {
    match kind {
        SetKind::FrontTraffic(_, Direction::Received) | SetKind::BackendTraffic(Direction::Received) => {
            counts.received_packets += counter.packets;
            counts.received_bytes += counter.bytes;
        }
        SetKind::FrontTraffic(_, Direction::Sent) | SetKind::BackendTraffic(Direction::Sent) => {
            counts.sent_packets += counter.packets;
            counts.sent_bytes += counter.bytes;
        }
        _ => counts.connections += counter.packets,
    }
}

/// A key, read field by field; each begins at a multiple of four bytes.
struct Fields<'a> {
    bytes: &'a [u8],
    version: Version,
}

impl Fields<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let field = self.bytes.get(..length)?;
        self.bytes = self.bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(field)
    }

    fn address(&mut self) -> Option<IpAddr> {
        let version = self.version;
        let bytes = self.take(version.bytes())?;
        match version {
            Version::V4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            Version::V6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        }
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let number = *self.take(1)?.first()?;
        Protocol::ALL.into_iter().find(|protocol| protocol.number() == number)
    }

    fn port(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn front(&mut self, space: Space, last: Option<&Data>) -> Option<Front> {
        let version = self.version;
        Some(match space {
            Space::Port => {
                Front::Port { address: self.address()?, protocol: self.protocol()?, port: self.port()? }
            }
            Space::Node => Front::Node { version, protocol: self.protocol()?, port: self.port()? },
            Space::Address => Front::Address(self.address()?),
            Space::Span => {
                let (address, protocol, first) = (self.address()?, self.protocol()?, self.port()?);
                let mut end = Fields { bytes: last.map_or(&[], Data::as_bytes), version };
                let last =
                    end.address().and_then(|_| end.protocol()).and_then(|_| end.port()).unwrap_or(first);
                let ports = portolan_model::PortRange::new(first, last).ok()?;
                Front::Span { address, protocol, ports }
            }
        })
    }

    fn member(&mut self) -> Option<(IpAddr, (Protocol, u16), Target)> {
        let (address, protocol, port) = (self.address()?, self.protocol()?, self.port()?);
        Some((address, (protocol, port), Target { address: self.address()?, port: self.port()? }))
    }

    fn endpoint(&mut self) -> Option<(Target, Protocol)> {
        let (address, protocol, port) = (self.address()?, self.protocol()?, self.port()?);
        Some((Target { address, port }, protocol))
    }
}
