//! Who registers without a token, and what such a caller may say.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Admission, Caller};

/// Networks whose addresses may register themselves without a token. Nobody, as it begins.
#[derive(Clone, Debug, Default)]
pub struct Anonymous {
    /// Where such callers come from. Loopback is none of it: it may write anyway.
    pub from: Vec<IpNet>,
    /// What they may register beside the address that they come from. Behind a Service, kube-proxy may have put an
    /// address of the node's in its place, which is none of the caller's own.
    pub addresses: Arc<[IpNet]>,
}

impl Anonymous {
    pub(super) fn includes(&self, address: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(&address))
    }
}

/// Whose instances a caller may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Everybody's.
    All,
    /// Those at this address, and those whose addresses are all in these networks.
    Addresses(IpAddr, Arc<[IpNet]>),
}

impl Claim {
    pub(crate) fn covers(&self, addresses: &[IpAddr]) -> bool {
        match self {
            Self::All => true,
            Self::Addresses(own, networks) => addresses
                .iter()
                .all(|address| address == own || networks.iter().any(|net| net.contains(address))),
        }
    }
}

impl Admission {
    /// What this caller may change.
    pub(crate) fn claim(&self, caller: Caller) -> Claim {
        match caller {
            Caller::Anonymous(own) => Claim::Addresses(own, Arc::clone(&self.anonymous.addresses)),
            Caller::Process | Caller::Unix | Caller::Loopback(_) | Caller::Token(_) => Claim::All,
        }
    }
}
