//! One port of a Service in one version of IP, compiled: what its elements follow from.

use std::net::IpAddr;

use portolan_model::{AffinityScope, Protocol, Service, TrafficPolicy};
use portolan_nft::{Data, Element};
use portolan_plan::{Counting, Version};

use crate::{
    Direction, Entrance, Front, Identity, List, ServicesConfig, SetId, SetKind, Space, Sticky, Target, Way,
    changes::Piece, claims::Rank, roster::Roster, shared::Shared, sources,
};

/// Which part of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UnitId {
    pub(crate) version: Version,
    pub(crate) part: Part,
}

/// See [`UnitId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Part {
    /// The port at this place of the Service's list.
    Port(u16),
    /// Its ranges of ports and its whole addresses.
    Wide,
}

/// What a unit is known by in the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Known {
    /// Cluster address, protocol and port.
    By(Identity),
    /// The cluster address.
    Wide(IpAddr),
}

impl Known {
    /// Behind what is there already.
    fn append_to(&self, data: Data) -> Data {
        match self {
            Self::By(identity) => identity.append_to(data),
            Self::Wide(address) => data.ip(*address),
        }
    }

    const fn is_wide(&self) -> bool {
        matches!(self, Self::Wide(_))
    }
}

/// A frontend that a unit has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) front: Front,
    pub(crate) rank: Rank,
    /// Which source ranges it has.
    pub(crate) allowed: Option<u64>,
    /// Addresses that may be the source although the ranges do not name them.
    pub(crate) itself: Box<[IpAddr]>,
}

/// What becomes of packets that get no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// The client is told.
    Reject,
    /// Nothing.
    Drop,
}

/// A unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) id: UnitId,
    pub(crate) known: Known,
    /// `None`: any.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) fronts: Box<[Held]>,
    pub(crate) cluster: Roster,
    pub(crate) local: Roster,
    /// Addresses of endpoints of this node, on either list.
    pub(crate) here: Box<[IpAddr]>,
    /// All endpoints of a Service that drains, whatever their conditions.
    pub(crate) present: Option<Box<[Target]>>,
    /// Where UDP is served: endpoints that serve what was led to them, and are on no list. When one is gone, its flows
    /// are stale, although nothing changes in the kernel's table.
    pub(crate) lingering: Box<[Target]>,
    pub(crate) has_endpoints: bool,
    pub(crate) internal: TrafficPolicy,
    pub(crate) external: TrafficPolicy,
    pub(crate) sticky: Option<Sticky>,
    /// Whether it is noted who was chosen: with affinity, or counted.
    pub(crate) noted: bool,
    pub(crate) reject_without_local: bool,
}

/// Affinity as the kernel counts it; seconds that do not fit are as good as for ever.
pub(crate) fn sticky(service: &Service) -> Option<Sticky> {
    let seconds = u32::try_from(service.affinity?.as_secs()).unwrap_or(u32::MAX).max(1);
    Some(Sticky { scope: service.options.affinity_scope, seconds })
}

impl Unit {
    /// How a packet to this frontend gets an endpoint; `None`: it gets none.
    pub(crate) fn way(&self, held: &Held) -> Option<Way> {
        let entrance = match (held.rank, self.internal, self.external) {
            (Rank::Cluster, TrafficPolicy::Cluster, _) => {
                Entrance::Cluster(List::Cluster, self.cluster.choice()?)
            }
            (Rank::Cluster, TrafficPolicy::Local, _) => Entrance::Cluster(List::Local, self.local.choice()?),
            (Rank::External, _, TrafficPolicy::Cluster) => Entrance::External(self.cluster.choice()?),
            (Rank::External, _, TrafficPolicy::Local) => {
                Entrance::Local { inside: self.cluster.choice()?, local: self.local.choice() }
            }
        };
        let (version, space) = (self.id.version, held.front.space());
        Some(Way { version, space, entrance, sticky: self.sticky, noted: self.noted })
    }

    /// What becomes of packets that get no endpoint.
    pub(crate) fn refusal(&self, held: &Held) -> Option<Refusal> {
        let policy = match held.rank {
            Rank::Cluster => self.internal,
            Rank::External => self.external,
        };
        let list = match policy {
            TrafficPolicy::Cluster => &self.cluster,
            TrafficPolicy::Local => &self.local,
        };
        if !list.is_empty() {
            return None;
        }
        let elsewhere = self.has_endpoints && policy == TrafficPolicy::Local;
        Some(if elsewhere && !self.reject_without_local { Refusal::Drop } else { Refusal::Reject })
    }

    pub(crate) fn list(&self, list: List) -> &Roster {
        match list {
            List::Cluster => &self.cluster,
            List::Local => &self.local,
        }
    }

    /// The set of its backends.
    pub(crate) fn backends(&self, list: List) -> SetId {
        let kind = match (self.noted, self.known.is_wide()) {
            (false, false) => SetKind::Backends(list),
            (false, true) => SetKind::AddressBackends(list),
            (true, false) => SetKind::NotedBackends(list),
            (true, true) => SetKind::NotedAddressBackends(list),
        };
        SetId::new(kind, self.id.version)
    }

    pub(crate) fn backend(&self, number: usize, target: &Target) -> Element {
        let key = self.known.append_to(Data::new().number(number as u32));
        let value = if self.noted { self.leading() } else { Data::new() };
        Element::new(key).value(self.endpoint(value, target))
    }

    fn endpoint(&self, data: Data, target: &Target) -> Data {
        let data = data.ip(target.address);
        if self.known.is_wide() { data } else { data.port(target.port) }
    }

    /// What values begin with that are looked up further.
    fn leading(&self) -> Data {
        Data::new().field(&[match self.id.version {
            Version::V4 => 2,
            Version::V6 => 10,
        }])
    }

    /// Whether it could have elements of this kind: asked for each unit and each set, so it has to be quick.
    pub(crate) fn may_have(&self, kind: SetKind) -> bool {
        match kind {
            SetKind::Members(_) | SetKind::AddressMembers(_) => self.noted,
            SetKind::Targets(_) => self.sticky.is_some(),
            SetKind::Identities(space)
            | SetKind::Connections(space)
            | SetKind::FrontTraffic(space, _)
            | SetKind::Firewalls(space)
            | SetKind::Rejected(space)
            | SetKind::Dropped(space)
            | SetKind::Entrances(space) => self.fronts.iter().any(|held| held.front.space() == space),
            SetKind::AllowedItself => self.fronts.iter().any(|held| !held.itself.is_empty()),
            _ => false,
        }
    }

    /// All its elements of a set, or of all sets but those of backends, which are compared by number.
    pub(crate) fn others(&self, config: &ServicesConfig, to: &mut Sink<'_>) {
        for list in List::ALL {
            for noted in self.notes(config, list, to) {
                for target in &noted.targets {
                    to.put(noted.set, self.note(noted.set, target));
                }
            }
        }
        self.of_fronts(config, to);
    }

    /// Endpoints that have an element each in a set, by address and port.
    pub(crate) fn notes(&self, config: &ServicesConfig, list: List, to: &Sink<'_>) -> Vec<Noted> {
        let set = |kind| SetId::new(kind, self.id.version);
        let wide = self.known.is_wide();
        let mut all = Vec::new();
        let roster = self.list(list);
        if roster.is_empty() || !self.noted {
            return all;
        }
        // A range or a whole address has no port of its own: its clients keep an address, and any port.
        let to_addresses = !wide && self.sticky.is_some_and(|sticky| sticky.scope == AffinityScope::Service);
        let members = set(if wide { SetKind::AddressMembers(list) } else { SetKind::Members(list) });
        if to.wants(members) && (config.is_counting() || !to_addresses) {
            all.push(Noted { set: members, targets: roster.targets() });
        }
        let addresses = set(SetKind::Targets(list));
        if to_addresses && to.wants(addresses) {
            // An address that has the port twice is one endpoint here.
            let mut targets = roster.targets();
            targets.dedup_by_key(|target| target.address);
            all.push(Noted { set: addresses, targets });
        }
        all
    }

    /// The element of such an endpoint.
    pub(crate) fn note(&self, set: SetId, target: &Target) -> Element {
        if matches!(set.kind, SetKind::Targets(_)) {
            let key = self.known.append_to(Data::new().ip(target.address));
            return Element::new(key).value(Data::new().port(target.port));
        }
        Element::new(self.known.append_to(self.endpoint(Data::new(), target)))
    }

    /// The elements of its frontends.
    pub(crate) fn of_fronts(&self, config: &ServicesConfig, to: &mut Sink<'_>) {
        for held in &self.fronts {
            self.front(config, held, to);
        }
    }

    fn front(&self, config: &ServicesConfig, held: &Held, to: &mut Sink<'_>) {
        let set = |kind| SetId::new(kind, self.id.version);
        let space = held.front.space();
        let element = || {
            let (key, key_end) = held.front.data();
            Element { key_end, ..Element::new(key) }
        };
        let firewalls = set(SetKind::Firewalls(space));
        if let Some(number) = held.allowed.filter(|_| to.wants(firewalls)) {
            to.put(firewalls, element().value(self.leading().interface(&sources::label(number))));
        }
        let itself = set(SetKind::AllowedItself);
        if let (true, Front::Port { address, protocol, port }) = (to.wants(itself), held.front) {
            for source in &held.itself {
                let key = Data::new().ip(*source).protocol(protocol.number()).port(port).ip(address);
                to.put(itself, Element::new(key));
            }
        }
        let connections = set(SetKind::Connections(space));
        if config.is_counting() && to.wants(connections) {
            to.put(connections, element());
        }
        if config.counting == Counting::Traffic {
            for way in Direction::ALL {
                let traffic = set(SetKind::FrontTraffic(space, way));
                if to.wants(traffic) {
                    to.put(traffic, element());
                }
            }
        }
        let (identities, entrances) = (set(SetKind::Identities(space)), set(SetKind::Entrances(space)));
        if let Some(way) = self.way(held).filter(|_| to.wants(identities) || to.wants(entrances)) {
            if held.rank == Rank::External && to.wants(identities) {
                to.put(identities, element().value(self.known.append_to(self.leading())));
            }
            if to.wants(entrances) {
                to.put(entrances, element().value(self.leading().interface(&way.label())));
            }
        }
        let (rejected, dropped) = (set(SetKind::Rejected(space)), set(SetKind::Dropped(space)));
        if to.wants(rejected) || to.wants(dropped) {
            match self.refusal(held) {
                Some(Refusal::Reject) if to.wants(rejected) => to.put(rejected, element()),
                Some(Refusal::Drop) if to.wants(dropped) => to.put(dropped, element()),
                _ => {}
            }
        }
    }

    /// The kinds of sets that it has elements of, and maybe more.
    fn kinds(&self, config: &ServicesConfig, mut each: impl FnMut(SetKind)) {
        for list in List::ALL {
            if self.list(list).is_empty() {
                continue;
            }
            each(self.backends(list).kind);
            if self.noted {
                each(SetKind::Members(list));
                each(SetKind::AddressMembers(list));
            }
            if self.sticky.is_some() {
                each(SetKind::Targets(list));
            }
        }
        for held in &self.fronts {
            let space = held.front.space();
            match self.refusal(held) {
                Some(Refusal::Reject) => each(SetKind::Rejected(space)),
                Some(Refusal::Drop) => each(SetKind::Dropped(space)),
                None => {}
            }
            if self.way(held).is_some() {
                each(SetKind::Entrances(space));
                if held.rank == Rank::External {
                    each(SetKind::Identities(space));
                }
            }
            if held.allowed.is_some() {
                each(SetKind::Firewalls(space));
            }
            if !held.itself.is_empty() {
                each(SetKind::AllowedItself);
            }
            if config.is_counting() {
                each(SetKind::Connections(space));
            }
            if config.counting == Counting::Traffic {
                Direction::ALL.into_iter().for_each(|way| each(SetKind::FrontTraffic(space, way)));
            }
        }
    }

    /// What it uses that others may use too.
    pub(crate) fn uses(&self, config: &ServicesConfig) -> Vec<Shared> {
        let mut uses = Vec::with_capacity(6);
        let mut once = |shared: Shared| {
            if !uses.contains(&shared) {
                uses.push(shared);
            }
        };
        self.kinds(config, |kind| once(Shared::Set(SetId::new(kind, self.id.version))));
        for held in &self.fronts {
            if let Some(way) = self.way(held) {
                once(Shared::Piece(Piece::Way(way)));
                if let Some(inner) = way.inner() {
                    once(Shared::Piece(Piece::Way(inner)));
                }
            }
            if let Some(number) = held.allowed {
                once(Shared::Piece(Piece::Allowed(self.id.version, number)));
                once(Shared::Piece(Piece::Sources));
            }
            if let (true, Some(address)) = (held.front.space().keeps_port(), held.front.address()) {
                once(Shared::Wide(address));
            }
        }
        if self.present.is_some() {
            once(Shared::Piece(Piece::Drain));
        }
        once(Shared::ClusterAddress(match self.known {
            Known::By(identity) => identity.address,
            Known::Wide(address) => address,
        }));
        uses.extend(self.here.iter().map(|address| Shared::Hairpin(*address)));
        if let (Counting::Traffic, Some(protocol)) = (config.counting, self.protocol) {
            let mut targets = self.cluster.targets();
            targets.extend(self.local.targets());
            targets.sort_unstable();
            targets.dedup();
            uses.extend(targets.into_iter().map(|target| Shared::Traffic(target, protocol)));
        }
        uses
    }
}

/// Endpoints in a set.
pub(crate) struct Noted {
    pub(crate) set: SetId,
    /// By address and port.
    pub(crate) targets: Vec<Target>,
}

/// Takes elements: of one set, or of all.
pub(crate) struct Sink<'a> {
    only: Option<SetId>,
    each: &'a mut dyn FnMut(SetId, Element),
}

impl<'a> Sink<'a> {
    pub(crate) fn all(each: &'a mut dyn FnMut(SetId, Element)) -> Self {
        Self { only: None, each }
    }

    pub(crate) fn only(set: SetId, each: &'a mut dyn FnMut(SetId, Element)) -> Self {
        Self { only: Some(set), each }
    }

    /// Asked before an element is made, which costs more.
    fn wants(&self, set: SetId) -> bool {
        self.only.is_none_or(|only| only == set)
    }

    fn put(&mut self, set: SetId, element: Element) {
        (self.each)(set, element);
    }
}

/// The frontends that a Service asks for in one version of IP, for one of its ports or for the wide rest.
pub(crate) fn fronts(service: &Service, id: UnitId) -> Vec<(Front, Rank)> {
    let of_version = |address: &&IpAddr| Version::of(**address) == id.version;
    let cluster =
        service.cluster_addresses.iter().filter(of_version).take(1).map(|one| (*one, Rank::Cluster));
    let external =
        service.external_addresses.iter().chain(&service.load_balancer_addresses).filter(of_version);
    let addresses: Vec<(IpAddr, Rank)> = cluster.chain(external.map(|one| (*one, Rank::External))).collect();
    let mut fronts = Vec::new();
    for (address, rank) in addresses {
        match id.part {
            Part::Port(place) => {
                let Some(one) = service.ports.get(usize::from(place)) else { continue };
                fronts.push((Front::Port { address, protocol: one.protocol, port: one.port }, rank));
            }
            Part::Wide => {
                let options = &service.options;
                fronts.extend(
                    options.spans.iter().map(|span| {
                        (Front::Span { address, protocol: span.protocol, ports: span.ports }, rank)
                    }),
                );
                if options.whole_address {
                    fronts.push((Front::Address(address), rank));
                }
            }
        }
    }
    if let Part::Port(place) = id.part
        && let Some(one) = service.ports.get(usize::from(place))
        && let Some(port) = one.node_port
    {
        fronts.push((Front::Node { version: id.version, protocol: one.protocol, port }, Rank::External));
    }
    // A Service has a handful of them.
    let mut at = 0;
    while at < fronts.len() {
        if fronts[..at].iter().any(|(front, _)| *front == fronts[at].0) {
            fronts.remove(at);
        } else {
            at += 1;
        }
    }
    fronts
}

/// The source ranges of a frontend that a Service has, and which addresses may be sources besides.
pub(crate) fn held(
    service: &Service,
    (front, rank): (Front, Rank),
    config: &ServicesConfig,
) -> (Held, Option<sources::Ranges>) {
    let version = front.version();
    let balanced = front.address().is_some_and(|address| service.load_balancer_addresses.contains(&address));
    let ranges = match rank {
        Rank::Cluster => None,
        Rank::External if balanced => sources::Ranges::new(&service.source_ranges, version),
        Rank::External => sources::Ranges::new(&service.options.node_source_ranges, version),
    };
    let own = config
        .node
        .addresses
        .iter()
        .any(|address| ranges.as_ref().is_some_and(|ranges| ranges.contains(*address)));
    let itself: Box<[IpAddr]> = if balanced && own && front.space() == Space::Port {
        let of_version = service.load_balancer_addresses.iter().filter(|one| Version::of(**one) == version);
        let mut all: Vec<IpAddr> = of_version.copied().collect();
        all.sort_unstable();
        all.dedup();
        all.into()
    } else {
        Box::default()
    };
    let allowed = ranges.as_ref().map(sources::Ranges::number);
    (Held { front, rank, allowed, itself }, ranges)
}
