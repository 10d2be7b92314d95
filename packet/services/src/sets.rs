//! The sets and maps of the table: a fixed number for each version of IP, whatever the number of Services.
//!
//! They are named for people. [`SetId::all`] has them in the order in which they are filled when there is nothing yet:
//! where endpoints are, who a frontend belongs to, and only then the maps that lead packets into chains, so that at no
//! moment a Service is served by half. Whatever is emptied, is emptied the other way round.
//!
//! No verdict map grows with the number of Services: frontends lead to the name of a way, and names to chains. The kernel
//! follows each element of each verdict map whenever a `goto` is added anywhere (`nft_table_validate`), which took 15
//! milliseconds for each base chain at 45,000 elements.

use std::{fmt, time::Duration};

use portolan_nft::{DataType, Selector, Set};
use portolan_plan::{Counting, Version};

use crate::{ServicesConfig, Space};

/// Which endpoints of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum List {
    /// Those for traffic that may go to any node.
    Cluster,
    /// Those of this node.
    Local,
}

impl List {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Cluster, Self::Local];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Cluster => "",
            Self::Local => "local_",
        }
    }
}

/// A direction of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the Service.
    Received,
    /// From it.
    Sent,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Received, Self::Sent];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Sent => "sent",
        }
    }
}

/// What a set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// Number . protocol . port . cluster address : endpoint.
    Backends(List),
    /// Number . cluster address : address of an endpoint. For spans and whole addresses.
    AddressBackends(List),
    /// As [`SetKind::Backends`], where it is noted who was chosen: with affinity, or counted.
    NotedBackends(List),
    /// As [`SetKind::AddressBackends`], where it is noted who was chosen.
    NotedAddressBackends(List),
    /// Endpoint . protocol . port . cluster address: who affinity may still lead to, and what is counted.
    Members(List),
    /// The same for spans and whole addresses: address of an endpoint . cluster address.
    AddressMembers(List),
    /// Address of an endpoint . protocol . port . cluster address : its port. For affinity to a whole Service.
    Targets(List),
    /// Frontend : protocol . port . cluster address, or only the cluster address for spans and whole addresses.
    Identities(Space),
    /// Addresses of endpoints on this node, each beside itself: they may reach themselves.
    Hairpin,
    /// Protocol . port . cluster address . client : endpoint. Filled by packets.
    Affinity,
    /// Cluster address . client : address of an endpoint. Filled by packets.
    ServiceAffinity,
    /// Source ranges; the number follows from what is in it.
    Allowed(u64),
    /// Load balancer addresses that may be sources of packets to themselves.
    AllowedItself,
    /// The node's addresses that serve node ports.
    NodeAddresses,
    /// New connections to frontends.
    Connections(Space),
    /// Packets and bytes of frontends.
    FrontTraffic(Space, Direction),
    /// Packets and bytes of endpoints: address . protocol . port.
    BackendTraffic(Direction),
    /// Connections that are to end: what was asked for . endpoint.
    Drained(Space),
    /// Addresses with spans, or served as a whole.
    Wide,
    /// The name of a list of source ranges : its chain.
    Sources,
    /// The name of a way of choosing : its chain.
    Ways(Space),
    /// Frontend : the name of its list of source ranges.
    Firewalls(Space),
    /// Frontends that nobody serves, whose clients are told.
    Rejected(Space),
    /// Frontends that nobody serves here.
    Dropped(Space),
    /// Frontend : the name of the way in which an endpoint is chosen.
    Entrances(Space),
    /// All cluster addresses, for ports that no Service has.
    ClusterAddresses,
    /// Networks of cluster addresses, for those that no Service has.
    ServiceNetworks,
}

/// A set: what it is for, and for which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    /// What it is for.
    pub kind: SetKind,
    /// The version of the addresses in it.
    pub version: Version,
}

/// `4` or `6`.
pub(crate) const fn suffix(version: Version) -> &'static str {
    match version {
        Version::V4 => "4",
        Version::V6 => "6",
    }
}

impl SetId {
    /// A set of this kind and version.
    pub const fn new(kind: SetKind, version: Version) -> Self {
        Self { kind, version }
    }

    /// Those that are there whatever the Services are, in the order in which they are filled. Those of source ranges,
    /// which come and go with their content, have their place before [`SetKind::AllowedItself`].
    pub fn all(config: &ServicesConfig) -> impl Iterator<Item = Self> {
        let mut kinds = Vec::new();
        kinds.extend(List::ALL.map(SetKind::Backends));
        kinds.extend(List::ALL.map(SetKind::AddressBackends));
        kinds.extend(List::ALL.map(SetKind::NotedBackends));
        kinds.extend(List::ALL.map(SetKind::NotedAddressBackends));
        kinds.extend(List::ALL.map(SetKind::Members));
        kinds.extend(List::ALL.map(SetKind::AddressMembers));
        kinds.extend(List::ALL.map(SetKind::Targets));
        kinds.extend(Space::ALL.map(SetKind::Identities));
        kinds.extend([SetKind::Hairpin, SetKind::Affinity, SetKind::ServiceAffinity]);
        kinds.extend([SetKind::AllowedItself, SetKind::NodeAddresses]);
        if config.is_counting() {
            kinds.extend(Space::ALL.map(SetKind::Connections));
        }
        if config.counting == Counting::Traffic {
            for way in Direction::ALL {
                kinds.extend(Space::ALL.map(|space| SetKind::FrontTraffic(space, way)));
                kinds.push(SetKind::BackendTraffic(way));
            }
        }
        kinds.extend([Space::Port, Space::Node, Space::Address].map(SetKind::Drained));
        kinds.extend([SetKind::Wide, SetKind::Sources]);
        kinds.extend(Space::ALL.map(SetKind::Ways));
        kinds.extend(Space::ALL.map(SetKind::Firewalls));
        kinds.extend(Space::ALL.map(SetKind::Rejected));
        kinds.extend(Space::ALL.map(SetKind::Dropped));
        kinds.extend([Space::Node, Space::Span, Space::Address, Space::Port].map(SetKind::Entrances));
        kinds.extend([SetKind::ClusterAddresses, SetKind::ServiceNetworks]);
        kinds.into_iter().flat_map(|kind| Version::ALL.map(|version| Self { kind, version }))
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        let version = suffix(self.version);
        match self.kind {
            SetKind::Backends(list) => format!("{}backends{version}", list.prefix()),
            SetKind::AddressBackends(list) => format!("{}address_backends{version}", list.prefix()),
            SetKind::NotedBackends(list) => format!("noted_{}backends{version}", list.prefix()),
            SetKind::NotedAddressBackends(list) => {
                format!("noted_{}address_backends{version}", list.prefix())
            }
            SetKind::Members(list) => format!("{}members{version}", list.prefix()),
            SetKind::AddressMembers(list) => format!("{}address_members{version}", list.prefix()),
            SetKind::Targets(list) => format!("{}targets{version}", list.prefix()),
            SetKind::Identities(space) => format!("{}identities{version}", prefix(space)),
            SetKind::Hairpin => format!("hairpin{version}"),
            SetKind::Affinity => format!("affinity{version}"),
            SetKind::ServiceAffinity => format!("service_affinity{version}"),
            SetKind::Allowed(number) => format!("allowed{version}_{:015x}", number >> 4),
            SetKind::AllowedItself => format!("allowed_itself{version}"),
            SetKind::NodeAddresses => format!("node_addresses{version}"),
            SetKind::Connections(space) => format!("{}connections{version}", prefix(space)),
            SetKind::FrontTraffic(space, way) => format!("{}{}{version}", prefix(space), way.as_str()),
            SetKind::BackendTraffic(way) => format!("backend_{}{version}", way.as_str()),
            SetKind::Drained(space) => format!("{}drained{version}", prefix(space)),
            SetKind::Wide => format!("wide{version}"),
            SetKind::Firewalls(space) => format!("{}firewalls{version}", prefix(space)),
            SetKind::Sources => format!("sources{version}"),
            SetKind::Ways(space) => format!("{}ways{version}", prefix(space)),
            SetKind::Rejected(space) => format!("{}rejected{version}", prefix(space)),
            SetKind::Dropped(space) => format!("{}dropped{version}", prefix(space)),
            SetKind::Entrances(Space::Port) => format!("services{version}"),
            SetKind::Entrances(Space::Node) => format!("node_ports{version}"),
            SetKind::Entrances(Space::Span) => format!("spans{version}"),
            SetKind::Entrances(Space::Address) => format!("addresses{version}"),
            SetKind::ClusterAddresses => format!("cluster_addresses{version}"),
            SetKind::ServiceNetworks => format!("service_networks{version}"),
        }
    }

    /// Whether its elements come from packets, or from whoever drains, and not from Services.
    pub const fn is_foreign(self) -> bool {
        matches!(self.kind, SetKind::Affinity | SetKind::ServiceAffinity | SetKind::Drained(_))
    }

    /// Whether its elements count.
    pub fn is_counted(self, config: &ServicesConfig) -> bool {
        match self.kind {
            SetKind::Connections(_) | SetKind::FrontTraffic(..) | SetKind::BackendTraffic(_) => true,
            SetKind::Members(_) | SetKind::AddressMembers(_) | SetKind::Targets(_) => config.is_counting(),
            _ => false,
        }
    }

    /// Its declaration.
    pub fn declaration(self, config: &ServicesConfig) -> Set {
        let set = self.uncounted(config);
        if self.is_counted(config) { set.counter() } else { set }
    }

    fn uncounted(self, config: &ServicesConfig) -> Set {
        const PROTOCOL: DataType = DataType::InetProto;
        const PORT: DataType = DataType::InetService;
        const NAME: DataType = DataType::InterfaceName;
        // Values that are looked up further begin with it, see `crate::way`.
        const VERSION: DataType = DataType::NfProto;
        let name = self.name();
        let address = self.version.address();
        let spans = |space, set: Set| if space == Space::Span { set.interval() } else { set };
        match self.kind {
            SetKind::Backends(_) => Set::map(name, [], [address, PORT])
                .key_typeof(numbered(self.version))
                .comment("number . protocol . port . cluster address : endpoint"),
            SetKind::NotedBackends(_) => Set::map(name, [], [VERSION, address, PORT])
                .key_typeof(numbered(self.version))
                .comment("number . protocol . port . cluster address : endpoint, where it is noted"),
            SetKind::AddressBackends(_) => Set::map(name, [], [address])
                .key_typeof([NUMBER, self.version.destination()])
                .comment("number . cluster address : endpoint, ports kept"),
            SetKind::NotedAddressBackends(_) => Set::map(name, [], [VERSION, address])
                .key_typeof([NUMBER, self.version.destination()])
                .comment("number . cluster address : endpoint, ports kept, where it is noted"),
            SetKind::Members(_) => Set::new(name, [address, PORT, PROTOCOL, PORT, address])
                .comment("endpoint . protocol . port . cluster address"),
            SetKind::AddressMembers(_) => {
                Set::new(name, [address, address]).comment("endpoint . cluster address, ports kept")
            }
            SetKind::Targets(_) => Set::map(name, [address, PROTOCOL, PORT, address], [PORT])
                .comment("endpoint . protocol . port . cluster address : its port"),
            SetKind::Identities(space) if space.keeps_port() => {
                spans(space, Set::map(name, key(space, address), [VERSION, address]))
                    .comment("asked for : cluster address")
            }
            SetKind::Identities(space) => {
                Set::map(name, key(space, address), [VERSION, PROTOCOL, PORT, address])
                    .comment("asked for : protocol . port . cluster address")
            }
            SetKind::Hairpin => Set::new(name, [address, address])
                .comment("an endpoint of this node that reaches itself: source . destination"),
            SetKind::Affinity => Set::map(name, [PROTOCOL, PORT, address, address], [VERSION, address, PORT])
                .dynamic(config.affinity_size)
                .timeouts()
                .comment("protocol . port . cluster address . client : endpoint"),
            SetKind::ServiceAffinity => Set::map(name, [address, address], [VERSION, address])
                .dynamic(config.affinity_size)
                .timeouts()
                .comment("cluster address . client : endpoint, for all ports of a Service"),
            SetKind::Allowed(_) => Set::new(name, [address]).interval().comment("source ranges"),
            SetKind::AllowedItself => Set::new(name, [address, PROTOCOL, PORT, address])
                .comment("a load balancer's address as source: source . asked for"),
            SetKind::NodeAddresses => Set::new(name, [address]).comment("addresses that serve node ports"),
            SetKind::Connections(space) => {
                spans(space, Set::new(name, key(space, address))).comment("new connections: asked for")
            }
            SetKind::FrontTraffic(space, _) => {
                spans(space, Set::new(name, key(space, address))).comment("packets and bytes: asked for")
            }
            SetKind::BackendTraffic(_) => Set::new(name, [address, PROTOCOL, PORT])
                .comment("packets and bytes: endpoint . protocol . port"),
            SetKind::Drained(space) => {
                let mut fields = key(space, address);
                fields.push(address);
                fields.extend((!space.keeps_port()).then_some(PORT));
                Set::new(name, fields)
                    .dynamic(65_536)
                    .timeout(Duration::from_secs(600))
                    .comment("connections to reset: asked for . endpoint")
            }
            SetKind::Wide => {
                Set::new(name, [address]).comment("addresses with ranges of ports, or served as a whole")
            }
            SetKind::Sources => Set::verdict_map(name, [NAME]).comment("a list of source ranges : its chain"),
            SetKind::Ways(_) => Set::verdict_map(name, [NAME]).comment("a way of choosing : its chain"),
            SetKind::Firewalls(space) => spans(space, Set::map(name, key(space, address), [VERSION, NAME]))
                .comment("asked for : list of source ranges"),
            SetKind::Rejected(space) => spans(space, Set::new(name, key(space, address)))
                .comment("asked for, and served by nobody: clients are told"),
            SetKind::Dropped(space) => spans(space, Set::new(name, key(space, address)))
                .comment("asked for, and served by nobody here"),
            SetKind::Entrances(space) => spans(space, Set::map(name, key(space, address), [VERSION, NAME]))
                .comment("asked for : how an endpoint is chosen"),
            SetKind::ClusterAddresses => {
                Set::new(name, [address]).comment("rejected where no Service has the port")
            }
            SetKind::ServiceNetworks => {
                Set::new(name, [address]).interval().comment("dropped where no Service has the address")
            }
        }
    }
}

/// What `numgen` and `jhash` give.
const NUMBER: Selector = Selector::NumgenRandom(65_536);

/// A number, and who has it.
fn numbered(version: Version) -> Vec<Selector> {
    let mut selectors = vec![NUMBER];
    selectors.extend(asked(Space::Port, version));
    selectors
}

const fn prefix(space: Space) -> &'static str {
    match space {
        Space::Port => "",
        Space::Node => "node_",
        Space::Span => "span_",
        Space::Address => "address_",
    }
}

/// The fields that say what was asked for.
fn key(space: Space, address: DataType) -> Vec<DataType> {
    match space {
        Space::Port | Space::Span => vec![DataType::InetProto, DataType::InetService, address],
        Space::Node => vec![DataType::InetProto, DataType::InetService],
        Space::Address => vec![address],
    }
}

/// The same, as a rule reads them from the packet.
pub(crate) fn asked(space: Space, version: Version) -> Vec<Selector> {
    match space {
        Space::Port | Space::Span => {
            vec![Selector::L4Proto, Selector::DestinationPort, version.destination()]
        }
        Space::Node => vec![Selector::L4Proto, Selector::DestinationPort],
        Space::Address => vec![version.destination()],
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
