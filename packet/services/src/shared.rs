//! What several units may use: pieces of the table, addresses, endpoints that are counted.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Bound,
};

use portolan_model::Protocol;
use portolan_nft::{Data, Element};
use portolan_plan::Version;

use crate::{Direction, SetId, SetKind, Target, changes::Piece, counters, sources};

/// What several units may use: it is there as long as one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Shared {
    /// A chain, or more.
    Piece(Piece),
    /// A cluster address.
    ClusterAddress(IpAddr),
    /// An endpoint of this node.
    Hairpin(IpAddr),
    /// An address with a range of ports, or served as a whole.
    Wide(IpAddr),
    /// An endpoint whose packets are counted.
    Traffic(Target, Protocol),
    /// A set that has elements of units, so that nobody has to look for any in the others.
    Set(SetId),
}

impl Shared {
    /// Where those are, in order, that may have elements of this kind; `None`: there are none of that kind.
    pub(crate) fn with_elements(kind: SetKind) -> Option<(Bound<Self>, Bound<Self>)> {
        use Bound::{Excluded, Included, Unbounded};
        let least = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let traffic = Self::Traffic(Target { address: least, port: 0 }, Protocol::Tcp);
        match kind {
            SetKind::Ways(_) | SetKind::Sources => Some((Unbounded, Excluded(Self::ClusterAddress(least)))),
            SetKind::ClusterAddresses => {
                Some((Included(Self::ClusterAddress(least)), Excluded(Self::Hairpin(least))))
            }
            SetKind::Hairpin => Some((Included(Self::Hairpin(least)), Excluded(Self::Wide(least)))),
            SetKind::Wide => Some((Included(Self::Wide(least)), Excluded(traffic))),
            SetKind::BackendTraffic(_) => Some((Included(traffic), Unbounded)),
            _ => None,
        }
    }

    /// Whether it may have elements of this set: asked for all of them, so it has to be quick.
    pub(crate) fn may_have(&self, set: SetId) -> bool {
        match (self, set.kind) {
            (Self::Piece(Piece::Way(way)), SetKind::Ways(space)) => {
                way.space == space && way.version == set.version
            }
            (Self::Piece(Piece::Allowed(version, _)), SetKind::Sources) => *version == set.version,
            (Self::ClusterAddress(address), SetKind::ClusterAddresses)
            | (Self::Hairpin(address), SetKind::Hairpin)
            | (Self::Wide(address), SetKind::Wide) => Version::of(*address) == set.version,
            (Self::Traffic(target, _), SetKind::BackendTraffic(_)) => {
                Version::of(target.address) == set.version
            }
            _ => false,
        }
    }

    /// Its elements.
    pub(crate) fn elements(&self) -> Vec<(SetId, Element)> {
        let one = |kind, address: IpAddr, key: Data| {
            vec![(SetId::new(kind, Version::of(address)), Element::new(key))]
        };
        match *self {
            Self::Piece(Piece::Way(way)) => way.element().into_iter().collect(),
            Self::Piece(Piece::Allowed(version, number)) => vec![sources::element(version, number)],
            Self::Piece(Piece::Sources | Piece::Drain) | Self::Set(_) => Vec::new(),
            Self::ClusterAddress(address) => one(SetKind::ClusterAddresses, address, address.into()),
            Self::Hairpin(address) => one(SetKind::Hairpin, address, Data::new().ip(address).ip(address)),
            Self::Wide(address) => one(SetKind::Wide, address, address.into()),
            Self::Traffic(target, protocol) => {
                let (address, key) = (target.address, counters::endpoint_key(target, protocol));
                Direction::ALL
                    .into_iter()
                    .flat_map(|way| one(SetKind::BackendTraffic(way), address, key.clone()))
                    .collect()
            }
        }
    }
}
