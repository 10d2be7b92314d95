//! What a question in the zone is answered, from the catalog alone: pure, no I/O.
//!
//! The rules, which differ from what registries usually do where that hurts people:
//! * A service that exists is never denied. With nobody served the answer is empty (NODATA), and may be kept for 0 s;
//!   NXDOMAIN would be kept by resolvers beyond the outage and covers all names below (RFC 8020).
//! * "No" is kept for one second at most: a name that is unknown now may be registered in the next.
//! * Nothing is kept back: every served instance is in the answer, and what does not fit into a packet is announced by
//!   the TC bit ([`crate::message`]), never silently left out.
//!
//! [`crate::zone`] takes the name apart before this; [`crate::message`] puts the answer into a packet after it.

use std::{collections::BTreeSet, net::IpAddr, slice, sync::Arc};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};
use portolan_model::{Instance, Protocol, State};
use rand::{Rng, seq::SliceRandom};

use crate::{
    services::ServiceNames,
    zone::{Asked, Part, Place, Zone},
};

/// Weight of a copy that passes. Constant, so that one copy's coming and going does not change the others' records.
const PASSING: u16 = 100;

/// Weight of a copy that says it is near its limit: it gets a tenth of the new clients.
const WARNING: u16 = 10;

/// How long "no such name" and "no such record" may be kept, in seconds.
pub(crate) const NEGATIVE: u32 = 1;

/// The catalog as DNS sees it: one moment of it.
pub trait View {
    /// Rises with every change.
    fn index(&self) -> u64;
    /// The instance of this name, in whatever state.
    fn instance(&self, name: &str) -> Option<&Arc<Instance>>;
    /// All copies of the service, in whatever state; empty when there is no such service.
    fn copies(&self, service: &str) -> &[Arc<Instance>];
    /// The Services that have names of their own ([`crate::services`]); `None` where there can be none.
    fn services(&self) -> Option<&ServiceNames> {
        None
    }
}

/// The sections of a response, before it is known how much of them fits.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `NoError` or `NXDomain`.
    pub code: ResponseCode,
    /// The records that were asked for.
    pub answers: Vec<Record>,
    /// The start of authority when there are none.
    pub authority: Vec<Record>,
    /// Addresses of the targets of SRV records; what does not fit of these is left out without harm.
    pub additional: Vec<Record>,
    /// There were more records than `most`.
    pub cut: bool,
    /// The answers end with an alias of this name, which is outside the zone.
    pub leads_to: Option<Name>,
}

/// Answers `name` and `kind`; `None` when the name is not in the zone.
///
/// At most `most` records are made: a packet has room for so many, and a service of 10,000 copies need not be written
/// out for each question. `rng` shuffles, so that clients which take the first record spread.
pub fn answer(
    zone: &Zone,
    view: &impl View,
    name: &Name,
    kind: RecordType,
    most: usize,
    rng: &mut impl Rng,
) -> Option<Answer> {
    let asked = zone.asked(name)?;
    let mut question = Question { zone, view, asked: &asked, name, kind, most, rng, aliases: 0 };
    Some(question.answer())
}

/// One question with all it takes to answer it.
pub(crate) struct Question<'a, V, R> {
    pub(crate) zone: &'a Zone,
    pub(crate) view: &'a V,
    pub(crate) asked: &'a Asked,
    pub(crate) name: &'a Name,
    pub(crate) kind: RecordType,
    pub(crate) most: usize,
    pub(crate) rng: &'a mut R,
    /// How many aliases led here.
    pub(crate) aliases: usize,
}

impl<'a, V: View, R: Rng> Question<'a, V, R> {
    pub(crate) fn answer(&mut self) -> Answer {
        let (copies, part) = match self.asked.place() {
            Place::Apex => return self.apex(),
            Place::Server => return self.addresses(self.zone.servers().to_vec(), NEGATIVE),
            Place::Above(label) => match self.by_short_name(label) {
                [] => return self.nothing(ResponseCode::NoError, NEGATIVE),
                copies => (copies, Part::Whole),
            },
            Place::Short(name, part) => (self.by_short_name(name), part),
            Place::Long(name, part) => (self.view.instance(name).map_or(&[][..], slice::from_ref), part),
            Place::Namespace(namespace) => return self.namespace(namespace),
            Place::Service(namespace, name, part) => return self.service(namespace, name, part),
            Place::Endpoint(namespace, name, host) => return self.endpoint(namespace, name, host),
            Place::Nothing => (&[][..], Part::Whole),
        };
        let exists = copies.iter().any(|copy| match part {
            Part::Whole => true,
            Part::Protocol(protocol) => copy.ports.iter().any(|p| p.protocols.contains(protocol)),
            Part::Port(port, protocol) => has(copy, port, protocol),
        });
        if !exists {
            return self.nothing(ResponseCode::NXDomain, NEGATIVE);
        }
        let served: Vec<&Instance> =
            copies.iter().map(|copy| &**copy).filter(|copy| copy.state.is_served()).collect();
        // An outage must end for a client in the moment in which it ends.
        let negative = if served.is_empty() { 0 } else { NEGATIVE };
        match (part, self.kind) {
            // RFC 8482 section 4.1: a subset, here the addresses, is a legal answer to ANY.
            (Part::Whole, RecordType::A | RecordType::AAAA | RecordType::ANY) => self
                .addresses(served.iter().flat_map(|copy| copy.addresses.iter().copied()).collect(), negative),
            (Part::Whole, RecordType::SRV) => self.services(&served, negative, |_| true),
            (Part::Port(port, protocol), RecordType::SRV | RecordType::ANY) => {
                self.services(&served, negative, |p| {
                    p.name.as_str() == port && p.protocols.contains(protocol)
                })
            }
            _ => self.nothing(ResponseCode::NoError, negative),
        }
    }

    /// The copies of the service, or else the one instance.
    fn by_short_name(&self, name: &str) -> &'a [Arc<Instance>] {
        match self.view.copies(name) {
            [] => self.view.instance(name).map_or(&[], slice::from_ref),
            copies => copies,
        }
    }

    fn apex(&self) -> Answer {
        let origin = &self.asked.origin;
        let index = self.view.index();
        let records = match self.kind {
            RecordType::SOA => vec![self.zone.soa(origin, index, self.zone.ttl(), NEGATIVE)],
            RecordType::NS => vec![self.zone.ns(origin)],
            RecordType::ANY => {
                vec![self.zone.soa(origin, index, self.zone.ttl(), NEGATIVE), self.zone.ns(origin)]
            }
            _ => return self.nothing(ResponseCode::NoError, NEGATIVE),
        };
        let server = self.zone.server_name(origin);
        let additional = match self.kind {
            RecordType::SOA => Vec::new(),
            _ => self.zone.servers().iter().map(|&ip| address(server.clone(), self.zone.ttl(), ip)).collect(),
        };
        Answer { answers: records, additional, ..found() }
    }

    /// The addresses of the family that is asked for, each once.
    pub(crate) fn addresses(&mut self, mut addresses: Vec<IpAddr>, negative: u32) -> Answer {
        addresses.retain(|ip| match self.kind {
            RecordType::A => ip.is_ipv4(),
            RecordType::AAAA => ip.is_ipv6(),
            kind => kind == RecordType::ANY,
        });
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() {
            return self.nothing(ResponseCode::NoError, negative);
        }
        let cut = addresses.len() > self.most;
        let (chosen, _) = addresses.partial_shuffle(self.rng, self.most);
        let ttl = self.zone.ttl();
        let answers = chosen.iter().map(|&ip| address(self.name.clone(), ttl, ip)).collect();
        Answer { answers, cut, ..found() }
    }

    /// One SRV record for each port that `wanted` takes of each copy, and the addresses of the copies.
    fn services(
        &mut self,
        served: &[&Instance],
        negative: u32,
        wanted: impl Fn(&portolan_model::InstancePort) -> bool,
    ) -> Answer {
        let mut ports: Vec<(&Instance, u16)> = Vec::new();
        for copy in served {
            let own = ports.len();
            for port in copy.ports.iter().filter(|port| wanted(port)) {
                // One number under two names is one record: duplicates are no part of a set.
                let number = port.port.first();
                if !ports[own..].iter().any(|(_, other)| *other == number) {
                    ports.push((copy, number));
                }
            }
        }
        if ports.is_empty() {
            return self.nothing(ResponseCode::NoError, negative);
        }
        let cut = ports.len() > self.most;
        let (chosen, _) = ports.partial_shuffle(self.rng, self.most);
        let ttl = self.zone.ttl();
        let mut answer = Answer { cut, ..found() };
        let mut glued = BTreeSet::new();
        for &mut (copy, port) in chosen {
            let Some(target) = self.target(copy) else { continue };
            let weight = if copy.state == State::Warning { WARNING } else { PASSING };
            let srv = SRV::new(0, weight, port, target.clone());
            answer.answers.push(Record::from_rdata(self.name.clone(), ttl, RData::SRV(srv)));
            if glued.insert(&copy.key.name) {
                answer.additional.extend(copy.addresses.iter().map(|&ip| address(target.clone(), ttl, ip)));
            }
        }
        answer
    }

    /// The name under which this instance alone is found, in the asker's spelling of the zone.
    ///
    /// `None` cannot happen: [`Zone::new`] keeps room for it.
    fn target(&self, copy: &Instance) -> Option<Name> {
        let name = copy.key.name.as_str();
        let alone = match self.view.copies(name) {
            [] => true,
            [only] => only.key.name == copy.key.name,
            _ => false,
        };
        let reserved = matches!(name, "dns" | "instance" | "svc");
        let parent = if alone && !reserved {
            self.asked.origin.clone()
        } else {
            self.asked.origin.prepend_label("instance").ok()?
        };
        parent.prepend_label(name).ok()
    }

    pub(crate) fn nothing(&self, code: ResponseCode, minimum: u32) -> Answer {
        // RFC 2308 section 3: the record's own time to live is the minimum too, as some resolvers look there.
        let soa = self.zone.soa(&self.asked.origin, self.view.index(), minimum, minimum);
        Answer { code, authority: vec![soa], ..found() }
    }
}

/// Whether the instance has that port for that protocol.
fn has(instance: &Instance, port: &str, protocol: Protocol) -> bool {
    instance.port(port).is_some_and(|port| port.protocols.contains(protocol))
}

/// An answer without records yet.
pub(crate) const fn found() -> Answer {
    Answer {
        code: ResponseCode::NoError,
        answers: Vec::new(),
        authority: Vec::new(),
        additional: Vec::new(),
        cut: false,
        leads_to: None,
    }
}

/// The address record of the right family.
pub(crate) fn address(name: Name, ttl: u32, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(name, ttl, data)
}

#[cfg(test)]
mod tests;
