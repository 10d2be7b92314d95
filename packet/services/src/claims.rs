//! Who has a frontend that several Services claim.
//!
//! A cluster address belongs to its Service, whatever external address another one names. Among equals the Service
//! that is first by name has it, so that who it is does not depend on who came first; the next one takes over when it
//! goes.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

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
    /// One more claim. Gives the services whose frontends are others now; maybe the claimant itself.
    pub(crate) fn add(&mut self, what: Claimed, claim: Claim) -> Vec<Arc<ObjectName>> {
        if let Claimed::Front(Front::Span { address, protocol, ports }) = what {
            let spans = self.spans.entry((address, protocol)).or_default();
            let mut affected: Vec<_> = spans.iter().map(|(_, other)| other.service.clone()).collect();
            affected.push(claim.service.clone());
            spans.push((ports, claim));
            return affected;
        }
        let Some(claims) = self.exact.get_mut(&what) else {
            let service = claim.service.clone();
            self.exact.insert(what, Claims::One(claim));
            return vec![service];
        };
        let before = claims.winner().cloned();
        match claims {
            Claims::One(first) => *claims = Claims::Several(vec![first.clone(), claim.clone()]),
            Claims::Several(all) => all.push(claim.clone()),
        }
        let after = claims.winner();
        let mut affected = vec![claim.service.clone()];
        if before.as_ref() != after {
            affected.extend(before.map(|claim| claim.service));
        }
        affected
    }

    /// One claim less.
    pub(crate) fn remove(&mut self, what: Claimed, claim: &Claim) -> Vec<Arc<ObjectName>> {
        if let Claimed::Front(Front::Span { address, protocol, ports }) = what {
            let Some(spans) = self.spans.get_mut(&(address, protocol)) else { return Vec::new() };
            if let Some(place) = spans.iter().position(|(range, other)| *range == ports && other == claim) {
                spans.swap_remove(place);
            }
            let affected = spans.iter().map(|(_, other)| other.service.clone()).collect();
            if spans.is_empty() {
                self.spans.remove(&(address, protocol));
            }
            return affected;
        }
        let Some(claims) = self.exact.get_mut(&what) else { return Vec::new() };
        let Claims::Several(all) = claims else {
            self.exact.remove(&what);
            return Vec::new();
        };
        let before = all.iter().min().cloned();
        if let Some(place) = all.iter().position(|other| other == claim) {
            all.swap_remove(place);
        }
        let after = all.iter().min().cloned();
        if let [only] = all.as_slice() {
            *claims = Claims::One(only.clone());
        }
        if before == after { Vec::new() } else { after.into_iter().map(|claim| claim.service).collect() }
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
