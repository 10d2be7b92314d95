//! The sets and maps of the table: all that changes when a mapping comes or goes. The rules never change.
//!
//! Plain maps are hash tables in the kernel (`nft_set_hash.c`), one element costs the same at any size. Intervals
//! over one port are trees (`nft_set_rbtree.c`), an insert walks its height. Intervals over several fields are
//! `pipapo` (`nft_set_pipapo.c`), which copies itself for each transaction that changes it: with 4,000 blocks an
//! insert took 3 to 60 milliseconds. Those hold only blocks that are bound to one host address, which are rare; the
//! others have their intervals over the port alone, and on the way back as aligned [`Run`]s in hash tables.

use std::fmt;

use portolan_model::Protocol;
use portolan_nft::{DataType, Set};

use crate::{Counting, Placement, PlanConfig, Version};

/// What a set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// The networks of the instances. Only with [`Placement::Own`].
    Instances,
    /// Each mapped instance's address. Only with [`Placement::Any`], as all up to [`SetKind::PublishedRun`].
    Mapped,
    /// Networks of instances on this machine.
    Local,
    /// Networks that instances reach as themselves.
    Direct,
    /// The host ports by which each instance is published: see [`crate::hairpin`].
    Published,
    /// Runs of such ports.
    PublishedRun(Run),
    /// The same as the two before, each with what was counted: see [`crate::counters`].
    Tally(Direction, Option<Run>),
    /// The clients that a policy allows, by its number: see [`crate::sources`].
    Allowed(u16),
    /// Each mapped instance's address beside itself: see [`crate::hairpin`].
    Hairpin,
    /// Single ports on every local address.
    Host,
    /// Single ports on one local address.
    HostAt,
    /// Blocks of a protocol on every local address.
    Block(Protocol),
    /// Blocks on one local address.
    BlockAt,
    /// The published port of an instance's port: see [`crate::reverse`].
    Reverse,
    /// The published address and port of an instance's port.
    ReverseAt,
    /// Runs of an instance's ports which are published under the same numbers.
    ReverseRun(Run),
    /// The published address of such ports.
    ReverseBlockAt,
}

/// A run of ports that begins at a multiple of its length, so that a mask tells whether a port is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Run {
    /// 4 ports.
    Four,
    /// 32 ports.
    ThirtyTwo,
    /// 256 ports.
    TwoFiftySix,
}

impl Run {
    /// All of them, the longest first.
    pub const ALL: [Self; 3] = [Self::TwoFiftySix, Self::ThirtyTwo, Self::Four];

    /// How many ports.
    pub const fn length(self) -> u16 {
        match self {
            Self::Four => 4,
            Self::ThirtyTwo => 32,
            Self::TwoFiftySix => 256,
        }
    }

    /// The bits of a port that all ports of a run share.
    pub const fn mask(self) -> u16 {
        !(self.length() - 1)
    }
}

/// A direction of what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To an instance.
    Received,
    /// From an instance.
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

/// A set: what it is for, and for which version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId {
    /// What it is for.
    pub kind: SetKind,
    /// The version of the addresses in it.
    pub version: Version,
}

impl SetId {
    /// A set of this kind and version.
    pub const fn new(kind: SetKind, version: Version) -> Self {
        Self { kind, version }
    }

    /// All sets of a table.
    pub fn all(config: &PlanConfig) -> impl Iterator<Item = Self> {
        let mut kinds = match config.placement {
            Placement::Own => vec![SetKind::Instances],
            Placement::Any => vec![
                SetKind::Mapped,
                SetKind::Local,
                SetKind::Direct,
                SetKind::Published,
                SetKind::PublishedRun(Run::Four),
                SetKind::PublishedRun(Run::ThirtyTwo),
                SetKind::PublishedRun(Run::TwoFiftySix),
            ],
        };
        if config.counting == Counting::Traffic {
            let runs = || Run::ALL.into_iter().map(Some).chain([None]);
            kinds.extend(
                Direction::ALL.into_iter().flat_map(|way| runs().map(move |run| SetKind::Tally(way, run))),
            );
        }
        kinds.extend((0..).zip(&config.sources).map(|(number, _)| SetKind::Allowed(number)));
        kinds.extend([
            SetKind::Hairpin,
            SetKind::Host,
            SetKind::HostAt,
            SetKind::Block(Protocol::Tcp),
            SetKind::Block(Protocol::Udp),
            SetKind::Block(Protocol::Sctp),
            SetKind::BlockAt,
            SetKind::Reverse,
            SetKind::ReverseAt,
            SetKind::ReverseRun(Run::Four),
            SetKind::ReverseRun(Run::ThirtyTwo),
            SetKind::ReverseRun(Run::TwoFiftySix),
            SetKind::ReverseBlockAt,
        ]);
        Version::ALL
            .into_iter()
            .flat_map(move |version| kinds.clone().into_iter().map(move |kind| Self { kind, version }))
    }

    /// Its name in the table.
    pub fn name(self) -> String {
        let suffix = self.version.suffix();
        match self.kind {
            SetKind::Instances => format!("instances_{suffix}"),
            SetKind::Mapped => format!("mapped_{suffix}"),
            SetKind::Local => format!("local_{suffix}"),
            SetKind::Direct => format!("direct_{suffix}"),
            SetKind::Published => format!("published_{suffix}"),
            SetKind::PublishedRun(run) => format!("published_{}_{suffix}", run.length()),
            SetKind::Tally(direction, None) => format!("{}_{suffix}", direction.as_str()),
            SetKind::Tally(direction, Some(run)) => {
                format!("{}_{}_{suffix}", direction.as_str(), run.length())
            }
            SetKind::Allowed(number) => format!("allowed_{number}_{suffix}"),
            SetKind::Hairpin => format!("hairpin_{suffix}"),
            SetKind::Host => format!("host_{suffix}"),
            SetKind::HostAt => format!("host_at_{suffix}"),
            SetKind::Block(protocol) => format!("block_{protocol}_{suffix}"),
            SetKind::BlockAt => format!("block_at_{suffix}"),
            SetKind::Reverse => format!("reverse_{suffix}"),
            SetKind::ReverseAt => format!("reverse_at_{suffix}"),
            SetKind::ReverseRun(run) => format!("reverse_{}_{suffix}", run.length()),
            SetKind::ReverseBlockAt => format!("reverse_block_at_{suffix}"),
        }
    }

    /// Whether its elements are the mappings by which packets are forwarded: what is counted.
    pub const fn is_forwarding(self) -> bool {
        matches!(self.kind, SetKind::Host | SetKind::HostAt | SetKind::Block(_) | SetKind::BlockAt)
    }

    /// Whether its elements count.
    pub fn is_counted(self, config: &PlanConfig) -> bool {
        match self.kind {
            SetKind::Tally(..) => true,
            _ => config.counting != Counting::Off && self.is_forwarding(),
        }
    }

    /// The sets whose elements are the mappings by which packets are forwarded.
    pub fn forwarding() -> impl Iterator<Item = Self> {
        let kinds = [SetKind::Host, SetKind::HostAt, SetKind::BlockAt].into_iter();
        let kinds = kinds.chain(Protocol::ALL.map(SetKind::Block));
        kinds.flat_map(|kind| Version::ALL.map(|version| Self { kind, version }))
    }

    /// Whether its elements follow from the configuration alone.
    pub const fn is_configured(self) -> bool {
        matches!(self.kind, SetKind::Instances | SetKind::Local | SetKind::Direct | SetKind::Allowed(_))
    }

    /// Its declaration.
    pub fn declaration(self, config: &PlanConfig) -> Set {
        let set = self.uncounted();
        if self.is_counted(config) { set.counter() } else { set }
    }

    fn uncounted(self) -> Set {
        const PROTOCOL: DataType = DataType::InetProto;
        const PORT: DataType = DataType::InetService;
        let name = self.name();
        let address = self.version.address();
        match self.kind {
            SetKind::Instances => Set::new(name, [address]).interval().comment("networks of the instances"),
            SetKind::Mapped => Set::new(name, [address]).comment("instances with published ports"),
            SetKind::Local => {
                Set::new(name, [address]).interval().comment("networks of instances on this machine")
            }
            SetKind::Direct => {
                Set::new(name, [address]).interval().comment("networks that instances reach as themselves")
            }
            SetKind::Published => Set::new(name, [address, PROTOCOL, PORT])
                .comment("published ports of instances: instance . protocol . published port"),
            SetKind::PublishedRun(run) => Set::new(name, [address, PROTOCOL, PORT])
                .comment(format!("the same of {} published ports, from this on", run.length())),
            SetKind::Tally(..) => Set::new(name, [address, PROTOCOL, PORT])
                .counter()
                .comment("packets and bytes: instance . protocol . published port"),
            SetKind::Allowed(_) => Set::new(name, [address]).interval().comment("who may reach these ports"),
            SetKind::Hairpin => Set::new(name, [address, address])
                .comment("an instance that reaches itself: source . destination"),
            SetKind::Host => Set::map(name, [PROTOCOL, PORT], [address, PORT])
                .comment("published ports: protocol . port : instance . port"),
            SetKind::HostAt => Set::map(name, [address, PROTOCOL, PORT], [address, PORT])
                .comment("published on one address: address . protocol . port : instance . port"),
            SetKind::Block(_) => {
                Set::map(name, [PORT], [address]).interval().comment("published blocks: ports : instance")
            }
            SetKind::BlockAt => Set::map(name, [address, PROTOCOL, PORT], [address])
                .interval()
                .comment("blocks on one address: address . protocol . ports : instance"),
            SetKind::Reverse => Set::map(name, [address, PROTOCOL, PORT], [PORT])
                .comment("sent from: instance . protocol . port : published port"),
            SetKind::ReverseAt => Set::map(name, [address, PROTOCOL, PORT], [address, PORT])
                .comment("sent from: instance . protocol . port : published address . port"),
            SetKind::ReverseRun(run) => Set::new(name, [address, PROTOCOL, PORT]).comment(format!(
                "sent from one of {} ports, from this on: instance . protocol . port",
                run.length()
            )),
            SetKind::ReverseBlockAt => Set::map(name, [address, PROTOCOL, PORT], [address])
                .interval()
                .comment("sent from a block: instance . protocol . ports : published address"),
        }
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
