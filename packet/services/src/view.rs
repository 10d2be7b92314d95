//! What became of a Service, for people: its frontends, its endpoints, and why each is chosen from or not.

use portolan_model::{ObjectName, Protocol};
use portolan_plan::Version;

use crate::{
    Front, List, Services, Standing, Target, Topology,
    claims::Rank,
    select::Selection,
    slices::Here,
    unit::{Part, Refusal, UnitId},
};

/// One port of a Service in one version of IP; or its ranges of ports and whole addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortView {
    /// The version.
    pub version: Version,
    /// The port's name, protocol and number; `None` for ranges and whole addresses.
    pub port: Option<(String, Protocol, u16)>,
    /// Its frontends.
    pub fronts: Vec<FrontView>,
    /// Whether hints are followed.
    pub topology: Topology,
    /// All that are known, by address and port.
    pub endpoints: Vec<EndpointView>,
}

/// A frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrontView {
    /// What clients connect to.
    pub front: Front,
    /// Whether it is a cluster address.
    pub cluster: bool,
    /// The chain that chooses; `None`: no endpoint is chosen for anybody.
    pub chain: Option<String>,
    /// What becomes of packets that no endpoint is chosen for.
    pub refusal: Option<Refusal>,
}

/// An endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointView {
    /// Where it answers.
    pub target: Target,
    /// The name of its Pod or instance.
    pub name: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// Whether it is chosen from where any node will do, and why.
    pub cluster: Standing,
    /// The same where it has to be this node.
    pub local: Standing,
    /// How many shares of new connections it gets.
    pub weight: u16,
}

impl Services {
    /// What became of a Service; `None` when there is none of that name. Ports whose cluster address belongs to another
    /// Service are left out; they are in [`Services::problems`].
    pub fn view(&self, name: &ObjectName) -> Option<Vec<PortView>> {
        let entry = self.entries.get(name)?;
        let service = entry.service.as_ref()?;
        let views = entry.units.iter().map(|unit| {
            let selection = self.selection(service, entry, unit.id);
            let port = match unit.id.part {
                Part::Port(place) => service.ports.get(usize::from(place)),
                Part::Wide => None,
            };
            PortView {
                version: unit.id.version,
                port: port.map(|port| (port.name.clone(), port.protocol, port.port)),
                fronts: unit
                    .fronts
                    .iter()
                    .map(|held| FrontView {
                        front: held.front,
                        cluster: held.rank == Rank::Cluster,
                        chain: unit.way(held).map(|way| way.name()),
                        refusal: unit.refusal(held),
                    })
                    .collect(),
                topology: selection.topology(),
                endpoints: self.endpoints(name, unit.id, &selection),
            }
        });
        Some(views.collect())
    }

    fn endpoints(&self, name: &ObjectName, id: UnitId, selection: &Selection) -> Vec<EndpointView> {
        let Some(entry) = self.entries.get(name) else { return Vec::new() };
        let here = Here::new(&self.config, &self.names);
        let kept = |target: &Target, local: bool| {
            let of_version = entry.slices.values().flat_map(|slice| slice.of_version(id.version));
            of_version.into_iter().find(|kept| kept.address == target.address && here.is_local(kept) == local)
        };
        let view = |one: &crate::Candidate| {
            let kept = kept(&one.target, one.local);
            EndpointView {
                target: one.target,
                name: kept.and_then(|kept| kept.target.as_deref()).map(str::to_owned),
                node: kept.and_then(|kept| kept.node).map(|node| self.names.text(node).to_owned()),
                cluster: selection.standing(List::Cluster, one),
                local: selection.standing(List::Local, one),
                weight: one.weight,
            }
        };
        selection.candidates().iter().map(view).collect()
    }

    /// Which generation of a Service is compiled; `None` when it is not there.
    pub fn generation(&self, name: &ObjectName) -> Option<i64> {
        self.service(name).map(|service| service.generation)
    }
}
