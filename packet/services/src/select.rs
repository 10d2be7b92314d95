//! Which endpoints take new connections of a Service port on this node, and why the others do not.
//!
//! As `CategorizeEndpoints` of `pkg/proxy/topology.go` (Kubernetes 1.36): all that are ready, of these only those that
//! hints give to this node or zone if every one has hints; and if none is ready, those that terminate and still serve.
//! The list for this node alone is made in the same way, without hints, from its own endpoints.

use std::fmt;

use portolan_model::{Endpoint, EndpointSlice, Protocol, Service, ServiceNode};
use portolan_plan::Version;

use crate::{List, Target};

/// What an endpoint's hints say to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hint {
    /// It has none.
    #[default]
    None,
    /// It is for others.
    Others,
    /// It is for us.
    Us,
}

impl Hint {
    /// What these names say to the one of that name.
    pub fn of<T: PartialEq>(mut names: impl ExactSizeIterator<Item = T>, own: Option<T>) -> Self {
        match own {
            _ if names.len() == 0 => Self::None,
            Some(own) if names.any(|name| name == own) => Self::Us,
            _ => Self::Others,
        }
    }
}

/// An endpoint as this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// Where it answers.
    pub target: Target,
    /// Takes new connections.
    pub ready: bool,
    /// Answers.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
    /// Is on this node.
    pub local: bool,
    /// Hints for nodes.
    pub node_hint: Hint,
    /// Hints for zones.
    pub zone_hint: Hint,
    /// How many shares of new connections it gets.
    pub weight: u16,
}

impl Candidate {
    /// Which of two entries for the same address and port is believed: an address is given to another Pod before the
    /// old entry has gone.
    const fn belief(&self) -> (bool, bool, bool) {
        (!self.terminating, self.ready, self.serving)
    }

    const fn is_fallback(&self) -> bool {
        self.serving && self.terminating
    }
}

/// Why an endpoint is on a list, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// It is chosen from.
    In,
    /// It is on its way out, but serves, and no other is ready.
    LastResort,
    /// It is not ready.
    NotReady,
    /// It is on its way out, and others are ready.
    Terminating,
    /// Its hints are for other nodes.
    OtherNodes,
    /// Its hints are for other zones.
    OtherZones,
    /// It is on another node.
    Elsewhere,
    /// Its weight is 0.
    NoWeight,
    /// Nobody asks for this list.
    NotAsked,
}

impl Standing {
    /// Whether it takes new connections.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::In | Self::LastResort)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::In => "ready",
            Self::LastResort => "terminating, but none is ready",
            Self::NotReady => "not ready",
            Self::Terminating => "terminating",
            Self::OtherNodes => "its hints are for other nodes",
            Self::OtherZones => "its hints are for other zones",
            Self::Elsewhere => "on another node",
            Self::NoWeight => "its weight is 0",
            Self::NotAsked => "no policy asks for it",
        })
    }
}

/// Which lists a Service's policies ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asked {
    /// Endpoints of all nodes.
    pub cluster: bool,
    /// Endpoints of this node.
    pub local: bool,
}

impl Asked {
    /// By this Service.
    pub fn by(service: &Service) -> Self {
        use portolan_model::{ServiceType, TrafficPolicy};
        let internal_local = service.internal_policy == TrafficPolicy::Local;
        let external = service.kind != ServiceType::ClusterIp || !service.external_addresses.is_empty();
        // Also where the external policy is Local: Pods and the node itself are sent to all endpoints.
        Self { cluster: !internal_local || external, local: internal_local || service.is_externally_local() }
    }
}

/// Whom the hints are followed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topology {
    /// Nobody: endpoints of all nodes and zones.
    All,
    /// Endpoints for this node.
    Node,
    /// Endpoints for this zone.
    Zone,
}

/// The candidates of one Service port, without duplicates, and what is decided about them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// By address and port.
    candidates: Vec<Candidate>,
    asked: Asked,
    topology: Topology,
    ready: bool,
    ready_here: bool,
}

impl Selection {
    /// Decides about these candidates. Of two with the same address and port the more alive one is believed, or the
    /// first.
    pub fn new(mut candidates: Vec<Candidate>, asked: Asked) -> Self {
        candidates.sort_by(|one, other| {
            one.target.cmp(&other.target).then_with(|| other.belief().cmp(&one.belief()))
        });
        candidates.dedup_by_key(|candidate| candidate.target);
        let all_ready = || candidates.iter().filter(|one| one.ready && one.weight > 0);
        let level = |hint: fn(&Candidate) -> Hint| {
            all_ready().all(|one| hint(one) != Hint::None) && all_ready().any(|one| hint(one) == Hint::Us)
        };
        let topology = if level(|one| one.node_hint) {
            Topology::Node
        } else if level(|one| one.zone_hint) {
            Topology::Zone
        } else {
            Topology::All
        };
        let ready = all_ready().next().is_some();
        let ready_here = all_ready().any(|one| one.local);
        Self { candidates, asked, topology, ready, ready_here }
    }

    /// All of them, by address and port.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Whom the hints are followed to.
    pub const fn topology(&self) -> Topology {
        self.topology
    }

    /// Whether some endpoint of any node takes new connections: without any, clients are told; with some, but none
    /// that the policy allows, they are not.
    pub fn has_endpoints(&self) -> bool {
        self.ready || self.candidates.iter().any(|one| one.is_fallback() && one.weight > 0)
    }

    /// The list, by address and port.
    pub fn list(&self, list: List) -> impl Iterator<Item = &Candidate> {
        self.candidates.iter().filter(move |one| self.standing(list, one).is_in())
    }

    /// Why a candidate is on this list, or is not.
    pub fn standing(&self, list: List, one: &Candidate) -> Standing {
        let (asked, ready) = match list {
            List::Cluster => (self.asked.cluster, self.ready),
            List::Local => (self.asked.local, self.ready_here),
        };
        if !asked {
            return Standing::NotAsked;
        }
        if list == List::Local && !one.local {
            return Standing::Elsewhere;
        }
        if one.weight == 0 {
            return Standing::NoWeight;
        }
        match (one.ready, ready) {
            (true, _) if list == List::Local => Standing::In,
            (true, _) => match self.topology {
                Topology::Node if one.node_hint != Hint::Us => Standing::OtherNodes,
                Topology::Zone if one.zone_hint != Hint::Us => Standing::OtherZones,
                _ => Standing::In,
            },
            (false, false) if one.is_fallback() => Standing::LastResort,
            (false, true) if one.is_fallback() => Standing::Terminating,
            (false, _) => Standing::NotReady,
        }
    }
}

/// The endpoints of one port of a Service in one version of IP, as a node sees them. `slices`: in the order in which they
/// are believed; those of other Services are left out.
pub fn select<'a>(
    service: &Service,
    port: (&str, Protocol),
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    version: Version,
    node: &ServiceNode,
) -> Selection {
    let mut candidates = Vec::new();
    for slice in slices.into_iter().filter(|slice| slice.service == service.name) {
        let ports =
            slice.ports.iter().filter(|one| one.name == port.0 && one.protocol == port.1 && one.port != 0);
        for number in ports.map(|one| one.port) {
            let of_version = slice.endpoints.iter().filter(|one| Version::of(one.address) == version);
            candidates.extend(of_version.map(|one| candidate(service, one, number, node)));
        }
    }
    Selection::new(candidates, Asked::by(service))
}

fn candidate(service: &Service, endpoint: &Endpoint, port: u16, node: &ServiceNode) -> Candidate {
    let own = (!node.name.is_empty()).then_some(&node.name);
    Candidate {
        target: Target { address: endpoint.address, port },
        ready: endpoint.ready,
        serving: endpoint.serving,
        terminating: endpoint.terminating,
        local: own.is_some() && endpoint.node.as_ref() == own,
        node_hint: Hint::of(endpoint.nodes.iter(), own),
        zone_hint: Hint::of(endpoint.zones.iter(), node.zone.as_ref()),
        weight: weight(service, endpoint.target.as_deref(), &endpoint.address),
    }
}

/// By name, by address, or 1.
pub(crate) fn weight(service: &Service, target: Option<&str>, address: &std::net::IpAddr) -> u16 {
    let weights = &service.options.weights;
    if weights.is_empty() {
        return 1;
    }
    let named = target.and_then(|name| weights.get(name));
    named.or_else(|| weights.get(&address.to_string())).copied().unwrap_or(1)
}
