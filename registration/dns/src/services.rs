//! Names of Services, as Kubernetes has them (the specification 1.1.0 of kubernetes/dns):
//!
//! | name | what it stands for |
//! | --- | --- |
//! | `SERVICE.NAMESPACE.svc.Z` | its cluster addresses; of a headless one the addresses of its endpoints; of an ExternalName an alias |
//! | `_PORT._PROTOCOL.` before it | SRV: the port of the Service, or those of its endpoints |
//! | `HOST.SERVICE.NAMESPACE.svc.Z` | one endpoint, by its name or its address with dashes |
//!
//! Two things are otherwise, as everywhere in our zones ([`crate::answer()`]): a headless Service that has no endpoint
//! ready exists and says "nothing now" for 0 seconds, where the specification has NXDOMAIN; and negative answers are
//! never kept longer than a second.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, RwLock},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType, rdata::CNAME, rdata::SRV},
};
use portolan_model::{ObjectName, Protocol};
use rand::Rng;

use crate::{
    answer::{Answer, NEGATIVE, Question, View, address, found},
    respond::Catalog,
    zone::Part,
};

/// One port of a Service or of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// Empty where a Service has one port without a name: it has no SRV record.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The number that clients use.
    pub port: u16,
}

/// One endpoint that takes new clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The name by which it alone is found; without one it is its address with dashes.
    pub hostname: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// The ports of this very endpoint.
    pub ports: Vec<NamedPort>,
}

impl NamedEndpoint {
    /// The label before the Service's name: `172-0-0-2`; `5678-abcd--1`, and where that would end with a dash, a 0.
    pub fn label(&self) -> String {
        self.hostname.clone().map_or_else(|| dashed(self.address), |name| name.to_ascii_lowercase())
    }
}

fn dashed(address: IpAddr) -> String {
    let mut text = address.to_string().replace(['.', ':'], "-");
    if text.ends_with('-') {
        text.push('0');
    }
    if text.starts_with('-') {
        text.insert(0, '0');
    }
    text
}

/// What the name of a Service stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceName {
    /// Addresses of its own.
    Cluster {
        /// One of each family at most.
        addresses: Vec<IpAddr>,
        /// Its ports.
        ports: Vec<NamedPort>,
        /// Found by names of their own only.
        endpoints: Vec<NamedEndpoint>,
    },
    /// The addresses of its endpoints.
    Headless(Vec<NamedEndpoint>),
    /// Another name (`externalName`), without the dot at its end.
    External(String),
}

/// The names of all Services at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceNames {
    // A copy shares what each name stands for.
    namespaces: BTreeMap<String, BTreeMap<String, Arc<ServiceName>>>,
}

impl FromIterator<(ObjectName, ServiceName)> for ServiceNames {
    fn from_iter<I: IntoIterator<Item = (ObjectName, ServiceName)>>(services: I) -> Self {
        let mut names = Self::default();
        for (name, service) in services {
            names.set(name, service);
        }
        names
    }
}

impl ServiceNames {
    /// This name stands for something else now.
    pub fn set(&mut self, name: ObjectName, service: ServiceName) {
        self.namespaces.entry(name.namespace).or_default().insert(name.name, Arc::new(service));
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&ServiceName> {
        self.namespaces.get(namespace)?.get(name).map(Arc::as_ref)
    }
}

/// A catalog with Services beside it.
#[derive(Debug)]
pub struct WithServices<C> {
    catalog: C,
    names: Arc<RwLock<Arc<ServiceNames>>>,
}

/// Where the names are told.
#[derive(Clone, Debug, Default)]
pub struct ServiceBoard(Arc<RwLock<Arc<ServiceNames>>>);

impl ServiceBoard {
    /// These are the names from now on.
    pub fn set(&self, names: ServiceNames) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(names);
    }

    /// A catalog that answers for them too.
    pub fn beside<C>(&self, catalog: C) -> WithServices<C> {
        WithServices { catalog, names: Arc::clone(&self.0) }
    }
}

/// One moment of both.
#[derive(Debug)]
pub struct Both<V>(V, Arc<ServiceNames>);

impl<V: View> View for Both<V> {
    fn index(&self) -> u64 {
        self.0.index()
    }
    fn instance(&self, name: &str) -> Option<&Arc<portolan_model::Instance>> {
        self.0.instance(name)
    }
    fn copies(&self, service: &str) -> &[Arc<portolan_model::Instance>] {
        self.0.copies(service)
    }
    fn services(&self) -> Option<&ServiceNames> {
        Some(&self.1)
    }
}

impl<C: Catalog> Catalog for WithServices<C> {
    type View = Both<C::View>;

    fn now(&self) -> Option<Self::View> {
        let names = self.names.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(Both(self.catalog.now()?, Arc::clone(&names)))
    }
}

/// How many aliases are followed: an alias of an alias of an alias is somebody's mistake, or a circle.
const ALIASES: usize = 4;

impl<V: View, R: Rng> Question<'_, V, R> {
    /// `NAMESPACE.svc.Z`: exists where a Service is in it.
    pub(crate) fn namespace(&self, namespace: &str) -> Answer {
        let exists = self.view.services().is_some_and(|names| names.namespaces.contains_key(namespace));
        self.nothing(if exists { ResponseCode::NoError } else { ResponseCode::NXDomain }, NEGATIVE)
    }

    /// `SERVICE.NAMESPACE.svc.Z`, and what is before it.
    pub(crate) fn service(&mut self, namespace: &str, name: &str, part: Part<'_>) -> Answer {
        let Some(service) = self.view.services().and_then(|names| names.get(namespace, name)) else {
            return self.nothing(ResponseCode::NXDomain, NEGATIVE);
        };
        match service {
            ServiceName::External(target) => self.alias(target, part),
            ServiceName::Cluster { addresses, ports, .. } => {
                let owner = self.owner(namespace, name);
                let targets =
                    ports.iter().flat_map(|port| addresses.iter().map(move |address| (port, *address)));
                let targets = targets.map(|(port, address)| (owner.clone(), address, port.clone()));
                self.of_service(addresses, targets.collect(), part, NEGATIVE, ports)
            }
            ServiceName::Headless(endpoints) => {
                let addresses: Vec<IpAddr> = endpoints.iter().map(|endpoint| endpoint.address).collect();
                let owner = self.owner(namespace, name);
                let mut targets = Vec::new();
                for endpoint in endpoints {
                    let target = owner.as_ref().and_then(|owner| owner.prepend_label(endpoint.label()).ok());
                    targets.extend(
                        endpoint.ports.iter().map(|port| (target.clone(), endpoint.address, port.clone())),
                    );
                }
                let known: Vec<NamedPort> =
                    endpoints.iter().flat_map(|endpoint| endpoint.ports.clone()).collect();
                // An outage must end for a client in the moment in which it ends.
                let negative = if endpoints.is_empty() { 0 } else { NEGATIVE };
                if endpoints.is_empty() {
                    return self.nothing(ResponseCode::NoError, negative);
                }
                self.of_service(&addresses, targets, part, negative, &known)
            }
        }
    }

    /// `HOST.SERVICE.NAMESPACE.svc.Z`.
    pub(crate) fn endpoint(&mut self, namespace: &str, name: &str, host: &str) -> Answer {
        let endpoints = match self.view.services().and_then(|names| names.get(namespace, name)) {
            Some(ServiceName::Cluster { endpoints, .. } | ServiceName::Headless(endpoints)) => {
                endpoints.as_slice()
            }
            _ => &[],
        };
        let addresses: Vec<IpAddr> = endpoints
            .iter()
            .filter(|endpoint| endpoint.label() == host || dashed(endpoint.address) == host)
            .map(|endpoint| endpoint.address)
            .collect();
        match addresses.is_empty() {
            true => self.nothing(ResponseCode::NXDomain, NEGATIVE),
            false => self.addresses(addresses, NEGATIVE),
        }
    }

    fn owner(&self, namespace: &str, name: &str) -> Option<Name> {
        let labels = self.asked.origin.prepend_label("svc").ok()?.prepend_label(namespace).ok()?;
        labels.prepend_label(name).ok()
    }

    fn of_service(
        &mut self,
        addresses: &[IpAddr],
        mut targets: Vec<(Option<Name>, IpAddr, NamedPort)>,
        part: Part<'_>,
        negative: u32,
        known: &[NamedPort],
    ) -> Answer {
        let wanted = |port: &NamedPort| match part {
            Part::Whole => true,
            Part::Protocol(protocol) => port.protocol == protocol,
            Part::Port(name, protocol) => {
                !port.name.is_empty() && port.name.eq_ignore_ascii_case(name) && port.protocol == protocol
            }
        };
        if !matches!(part, Part::Whole) && !known.iter().any(wanted) {
            return self.nothing(ResponseCode::NXDomain, negative);
        }
        match (part, self.kind) {
            (Part::Whole, RecordType::A | RecordType::AAAA | RecordType::ANY) => {
                self.addresses(addresses.to_vec(), negative)
            }
            (Part::Whole, RecordType::SRV) | (Part::Port(..), RecordType::SRV | RecordType::ANY) => {
                targets.retain(|(_, _, port)| wanted(port));
                self.srv(targets, negative)
            }
            _ => self.nothing(ResponseCode::NoError, negative),
        }
    }

    /// One record for each target and port, as likely as each other, and the addresses of the targets.
    fn srv(&mut self, targets: Vec<(Option<Name>, IpAddr, NamedPort)>, negative: u32) -> Answer {
        let mut records: Vec<(Name, u16)> = Vec::new();
        let mut glue: Vec<(Name, IpAddr)> = Vec::new();
        for (target, ip, port) in targets {
            let Some(target) = target else { continue };
            if !records.contains(&(target.clone(), port.port)) {
                records.push((target.clone(), port.port));
            }
            if !glue.contains(&(target.clone(), ip)) {
                glue.push((target, ip));
            }
        }
        if records.is_empty() {
            return self.nothing(ResponseCode::NoError, negative);
        }
        let weight = (100 / records.len().min(100)) as u16;
        let cut = records.len() > self.most;
        let ttl = self.zone.ttl();
        let (name, most) = (self.name.clone(), self.most);
        let (chosen, _) = rand::seq::SliceRandom::partial_shuffle(records.as_mut_slice(), self.rng, most);
        let answers = chosen.iter().map(|(target, port)| {
            Record::from_rdata(name.clone(), ttl, RData::SRV(SRV::new(0, weight, *port, target.clone())))
        });
        let additional = glue.into_iter().take(self.most).map(|(target, ip)| address(target, ttl, ip));
        Answer { cut, answers: answers.collect(), additional: additional.collect(), ..found() }
    }

    /// The alias, and what it leads to as far as that is in the zone; the rest is the asker's, or the forwarder's.
    fn alias(&mut self, target: &str, part: Part<'_>) -> Answer {
        let name = Name::from_ascii(target).map(|mut name| {
            name.set_fqdn(true);
            name
        });
        // An address is no name that anybody could ask for.
        let (Part::Whole, Ok(target), Err(_)) = (part, name, target.parse::<IpAddr>()) else {
            return self.nothing(ResponseCode::NXDomain, NEGATIVE);
        };
        if !matches!(self.kind, RecordType::A | RecordType::AAAA | RecordType::CNAME | RecordType::ANY) {
            return self.nothing(ResponseCode::NoError, NEGATIVE);
        }
        let data = RData::CNAME(CNAME(target.clone()));
        let mut answer =
            Answer { answers: vec![Record::from_rdata(self.name.clone(), self.zone.ttl(), data)], ..found() };
        if matches!(self.kind, RecordType::A | RecordType::AAAA) {
            match self.zone.asked(&target) {
                Some(asked) if self.aliases < ALIASES => {
                    let mut question = Question {
                        zone: self.zone,
                        view: self.view,
                        asked: &asked,
                        name: &target,
                        kind: self.kind,
                        most: self.most,
                        rng: &mut *self.rng,
                        aliases: self.aliases + 1,
                    };
                    let led = question.answer();
                    answer.answers.extend(led.answers);
                    (answer.code, answer.authority, answer.cut, answer.leads_to) =
                        (led.code, led.authority, led.cut, led.leads_to);
                }
                Some(_) => {}
                None => answer.leads_to = Some(target),
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests;
