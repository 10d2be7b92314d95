//! Slices as they are kept: without a string for each endpoint.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use portolan_model::{Endpoint, EndpointSlice, ObjectName, Protocol, Service, SlicePort};
use portolan_plan::Version;

use crate::{
    ServicesConfig, Target,
    select::{Candidate, Hint, weight},
};

/// The number of a name that many endpoints have in common: a node or a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name(u32);

/// Names of nodes and zones, each once. There are as many as nodes, so none is ever forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    by_text: HashMap<Arc<str>, Name>,
    texts: Vec<Arc<str>>,
}

impl Names {
    pub(crate) fn number(&mut self, text: &str) -> Name {
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.by_text.insert(text, name);
        name
    }

    pub(crate) fn find(&self, text: &str) -> Option<Name> {
        self.by_text.get(text).copied()
    }

    pub(crate) fn text(&self, name: Name) -> &str {
        self.texts.get(name.0 as usize).map_or("", |text| text)
    }
}

/// For which zones and nodes an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hints {
    zones: Box<[Name]>,
    nodes: Box<[Name]>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) address: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) node: Option<Name>,
    /// Nearly always none.
    hints: Option<Box<Hints>>,
    pub(crate) target: Option<Box<str>>,
}

impl Kept {
    fn zones(&self) -> &[Name] {
        self.hints.as_ref().map_or(&[], |hints| &hints.zones)
    }

    fn nodes(&self) -> &[Name] {
        self.hints.as_ref().map_or(&[], |hints| &hints.nodes)
    }
}

/// A slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Box<[SlicePort]>,
    pub(crate) endpoints: Box<[Kept]>,
}

impl Slice {
    pub(crate) fn new(slice: EndpointSlice, names: &mut Names) -> Self {
        let hints = |endpoint: &Endpoint, names: &mut Names| {
            let mut numbers = |of: &[String]| of.iter().map(|one| names.number(one)).collect();
            let hints = Hints { zones: numbers(&endpoint.zones), nodes: numbers(&endpoint.nodes) };
            (hints != Hints::default()).then(|| Box::new(hints))
        };
        let keep = |endpoint: Endpoint| Kept {
            address: endpoint.address,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            node: endpoint.node.as_deref().map(|node| names.number(node)),
            hints: hints(&endpoint, names),
            target: endpoint.target.map(String::into_boxed_str),
        };
        let endpoints = slice.endpoints.into_iter().map(keep).collect();
        Self { ports: slice.ports.into(), endpoints }
    }

    /// As it was given.
    pub(crate) fn given(&self, name: ObjectName, service: ObjectName, names: &Names) -> EndpointSlice {
        let texts = |of: &[Name]| of.iter().map(|name| names.text(*name).to_owned()).collect();
        let endpoint = |kept: &Kept| Endpoint {
            address: kept.address,
            ready: kept.ready,
            serving: kept.serving,
            terminating: kept.terminating,
            node: kept.node.map(|name| names.text(name).to_owned()),
            zones: texts(kept.zones()),
            nodes: texts(kept.nodes()),
            target: kept.target.as_deref().map(str::to_owned),
        };
        let endpoints = self.endpoints.iter().map(endpoint).collect();
        EndpointSlice { name, service, ports: self.ports.to_vec(), endpoints, triggered: None }
    }

    /// Its endpoints for one port of the Service, with the numbers of that port.
    pub(crate) fn of_port<'a>(
        &'a self,
        name: &'a str,
        protocol: Protocol,
        version: Version,
    ) -> impl Iterator<Item = (&'a Kept, u16)> {
        let fits = move |port: &&SlicePort| port.name == name && port.protocol == protocol && port.port != 0;
        self.ports
            .iter()
            .filter(fits)
            .flat_map(move |port| self.of_version(version).map(|one| (one, port.port)))
    }

    pub(crate) fn of_version(&self, version: Version) -> impl Iterator<Item = &Kept> {
        self.endpoints.iter().filter(move |one| Version::of(one.address) == version)
    }
}

/// The slices of a Service by name: nearly always one or two, for which a tree would have room for eleven.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slices(Vec<(Box<str>, Slice)>);

impl Slices {
    pub(crate) fn insert(&mut self, name: &str, slice: Slice) {
        match self.find(name) {
            Ok(at) => self.0[at].1 = slice,
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (name.into(), slice));
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.0.remove(at);
        }
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Slice)> {
        self.0.iter().map(|(name, slice)| (&**name, slice))
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Slice> {
        self.0.iter().map(|(_, slice)| slice)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// This node, in numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Here {
    node: Option<Name>,
    zone: Option<Name>,
}

impl Here {
    pub(crate) fn new(config: &ServicesConfig, names: &Names) -> Self {
        let node = &config.node.name;
        Self {
            node: if node.is_empty() { None } else { names.find(node) },
            zone: config.node.zone.as_deref().and_then(|zone| names.find(zone)),
        }
    }

    pub(crate) fn candidate(self, service: &Service, kept: &Kept, port: u16) -> Candidate {
        Candidate {
            target: Target { address: kept.address, port },
            ready: kept.ready,
            serving: kept.serving,
            terminating: kept.terminating,
            local: self.is_local(kept),
            node_hint: Hint::of(kept.nodes().iter(), self.node.as_ref()),
            zone_hint: Hint::of(kept.zones().iter(), self.zone.as_ref()),
            weight: weight(service, kept.target.as_deref(), &kept.address),
        }
    }

    pub(crate) fn is_local(self, kept: &Kept) -> bool {
        self.node.is_some() && kept.node == self.node
    }
}
