//! Who has a frontend that several Services claim.
//!
//! A cluster address belongs to its Service, whatever external address another one names. Among equals the Service
//! that is first by name has it, so that who it is does not depend on who came first; the next one takes over when it
//! goes.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use portolan_model::{ObjectName, PortRange, Protocol};

use crate::{Front, unit::UnitId};

/// What is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Claimed {
    /// A frontend.
    Front(Front),
    /// To be what ranges of ports and the whole of a cluster address are known by.
    Wide(IpAddr),
}

/// How strong a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Rank {
    /// By a cluster address.
    Cluster,
    /// By any other.
    External,
}

/// Whose claim it is. The least wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Claim {
    pub(crate) rank: Rank,
    pub(crate) service: Arc<ObjectName>,
    pub(crate) unit: UnitId,
}

/// Claims to one thing: nearly always one.
#[derive(Clone, Debug)]
enum Claims {
    One(Claim),
    Several(Vec<Claim>),
}

impl Claims {
    fn winner(&self) -> Option<&Claim> {
        match self {
            Self::One(claim) => Some(claim),
            Self::Several(claims) => claims.iter().min(),
        }
    }
}

/// All claims.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    exact: HashMap<Claimed, Claims>,
    spans: HashMap<(IpAddr, Protocol), Vec<(PortRange, Claim)>>,
}

impl Registry {
    /// None yet, and room for those of so many Services.
    pub(crate) fn with_room(services: usize) -> Self {
        Self { exact: HashMap::with_capacity(services), spans: HashMap::new() }
    }

    /// One more claim. Tells `each` the services whose frontends are others now; maybe the claimant itself.
    pub(crate) fn add(&mut self, what: Claimed, claim: Claim, each: &mut dyn FnMut(&Arc<ObjectName>)) {
        if let Claimed::Front(Front::Span { address, protocol, ports }) = what {
            let spans = self.spans.entry((address, protocol)).or_default();
            spans.push((ports, claim));
            spans.iter().for_each(|(_, claim)| each(&claim.service));
            return;
        }
        each(&claim.service);
        match self.exact.entry(what) {
            Entry::Vacant(place) => {
                place.insert(Claims::One(claim));
            }
            Entry::Occupied(mut place) => {
                let claims = place.get_mut();
                if let Some(winner) = claims.winner().filter(|winner| claim < **winner) {
                    each(&winner.service);
                }
                match claims {
                    Claims::One(first) => *claims = Claims::Several(vec![first.clone(), claim]),
                    Claims::Several(all) => all.push(claim),
                }
            }
        }
    }

    /// One claim less.
    pub(crate) fn remove(&mut self, what: Claimed, claim: &Claim, each: &mut dyn FnMut(&Arc<ObjectName>)) {
        if let Claimed::Front(Front::Span { address, protocol, ports }) = what {
            let Some(spans) = self.spans.get_mut(&(address, protocol)) else { return };
            if let Some(place) = spans.iter().position(|(range, other)| *range == ports && other == claim) {
                spans.swap_remove(place);
            }
            spans.iter().for_each(|(_, other)| each(&other.service));
            if spans.is_empty() {
                self.spans.remove(&(address, protocol));
            }
            return;
        }
        let Some(claims) = self.exact.get_mut(&what) else { return };
        let Claims::Several(all) = claims else {
            self.exact.remove(&what);
            return;
        };
        let won = all.iter().min() == Some(claim);
        if let Some(place) = all.iter().position(|other| other == claim) {
            all.swap_remove(place);
        }
        if let Some(winner) = all.iter().min().filter(|_| won) {
            each(&winner.service);
        }
        if let [only] = all.as_slice() {
            *claims = Claims::One(only.clone());
        }
    }

    /// Who has it.
    pub(crate) fn winner(&self, what: Claimed) -> Option<&Claim> {
        match what {
            Claimed::Front(Front::Span { address, protocol, ports }) => {
                let spans = self.spans.get(&(address, protocol))?;
                settled(spans).into_iter().find(|(range, _)| range.overlaps(ports)).map(|(_, claim)| claim)
            }
            _ => self.exact.get(&what)?.winner(),
        }
    }

    /// Whether this claim wins.
    pub(crate) fn has(&self, what: Claimed, claim: &Claim) -> bool {
        match what {
            Claimed::Front(Front::Span { address, protocol, ports }) => {
                let spans = self.spans.get(&(address, protocol));
                spans.is_some_and(|spans| settled(spans).contains(&(ports, claim)))
            }
            _ => self.winner(what) == Some(claim),
        }
    }

    /// Who has the range of ports with this port in it.
    pub(crate) fn span(&self, address: IpAddr, protocol: Protocol, port: u16) -> Option<&Claim> {
        let spans = self.spans.get(&(address, protocol))?;
        settled(spans).into_iter().find(|(range, _)| range.contains(port)).map(|(_, claim)| claim)
    }
}

/// Those that overlap no stronger one.
fn settled(spans: &[(PortRange, Claim)]) -> Vec<(PortRange, &Claim)> {
    let mut by_strength: Vec<(PortRange, &Claim)> =
        spans.iter().map(|(range, claim)| (*range, claim)).collect();
    by_strength.sort_by_key(|(range, claim)| (*claim, range.first(), range.last()));
    let mut settled: Vec<(PortRange, &Claim)> = Vec::new();
    for one in by_strength {
        if settled.iter().all(|(range, _)| !range.overlaps(one.0)) {
            settled.push(one);
        }
    }
    settled
}
