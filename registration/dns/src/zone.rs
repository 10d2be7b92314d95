//! The zone: its name, its times to live, and what a name in it asks for.
//!
//! | name | what it stands for |
//! | --- | --- |
//! | `SERVICE.Z` | all served copies of the service |
//! | `INSTANCE.Z` | one instance, when no service has that name |
//! | `INSTANCE.instance.Z` | one instance, always |
//! | `_PORT._PROTOCOL.` before any of these | the instances which have such a port |
//! | `SERVICE.NAMESPACE.svc.Z` | a Service, as in Kubernetes ([`crate::services`]) |
//! | `ns.dns.Z` | the name server |
//!
//! The long form of an instance's name exists because a service and an instance may share a name (one copy is often
//! called what its service is called), and the target of an SRV record must mean one instance only.
//! [`crate::answer()`] says what each name answers.

use std::net::IpAddr;

use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{NS, SOA},
};
use portolan_model::Protocol;

/// Longest zone in octets of wire format, so that `INSTANCE.instance.Z` always fits into the 255 of RFC 1035.
const LONGEST: usize = 255 - (1 + 63) - (1 + "instance".len());

/// Times to live above an hour would outlive any port.
const LONGEST_TTL: u32 = 3600;

/// A zone that this server is authoritative for.
#[derive(Clone, Debug)]
pub struct Zone {
    origin: Name,
    ttl: u32,
    servers: Vec<IpAddr>,
}

/// Why a text and a number make no [`Zone`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ZoneError {
    /// No domain name.
    #[error("{0:?} is no DNS zone: write a domain name such as portolan.internal")]
    Syntax(String),
    /// The root would make this server the authority of the whole internet.
    #[error("the DNS zone may not be the root: write a domain name such as portolan.internal")]
    Root,
    /// No room for the names of instances before it.
    #[error("the DNS zone {0:?} has {1} octets: {LONGEST} at most, so that names of instances fit before it")]
    TooLong(String, usize),
    /// Records that live too long.
    #[error("a DNS time to live of {0} s is too long: 0 to {LONGEST_TTL} s")]
    Ttl(u32),
}

impl Zone {
    /// The zone `origin`, whose records live `ttl` seconds in caches (0 to 3600).
    pub fn new(origin: &str, ttl: u32) -> Result<Self, ZoneError> {
        let syntax = || ZoneError::Syntax(origin.to_owned());
        let mut name = Name::from_ascii(origin).map_err(|_| syntax())?.to_lowercase();
        name.set_fqdn(true);
        let hostname = |label: &[u8]| label.iter().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(b));
        if !name.iter().all(hostname) {
            return Err(syntax());
        }
        let octets = name.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
        match () {
            () if name.is_root() => Err(ZoneError::Root),
            () if octets > LONGEST => Err(ZoneError::TooLong(origin.to_owned(), octets)),
            () if ttl > LONGEST_TTL => Err(ZoneError::Ttl(ttl)),
            () => Ok(Self { origin: name, ttl, servers: Vec::new() }),
        }
    }

    /// The addresses that `ns.dns.Z` answers with: where this server listens.
    #[must_use]
    pub fn with_servers(mut self, servers: Vec<IpAddr>) -> Self {
        self.servers = servers;
        self
    }

    /// Seconds that a positive answer may be kept.
    pub const fn ttl(&self) -> u32 {
        self.ttl
    }

    /// Its name, in lower case, with the dot at the end.
    pub fn origin(&self) -> String {
        self.origin.to_ascii()
    }

    /// The addresses of the name server.
    pub(crate) fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// What `name` asks for; `None` when it is not in the zone.
    pub(crate) fn asked(&self, name: &Name) -> Option<Asked> {
        if !self.origin.zone_of(name) {
            return None;
        }
        let labels: Vec<&[u8]> = name.iter().collect();
        let (before, origin) = labels.split_at(labels.len() - self.origin.iter().count());
        // The zone as the asker spells it: clients that mix case on purpose see their own spelling come back.
        let spelled = Name::from_labels(origin.iter().copied()).unwrap_or_else(|_| self.origin.clone());
        // No name of ours has a byte beyond ASCII, so a replaced byte matches nothing, as it should.
        let labels = before.iter().map(|l| String::from_utf8_lossy(l).to_ascii_lowercase()).collect();
        Some(Asked { origin: spelled, labels })
    }

    /// The start of authority. `minimum` is how long "no" may be kept (RFC 2308 section 5).
    pub(crate) fn soa(&self, origin: &Name, index: u64, ttl: u32, minimum: u32) -> Record {
        let child = |label: &str| origin.prepend_label(label).unwrap_or_else(|_| origin.clone());
        // Serial arithmetic (RFC 1982) allows the wrap of a u64 index into 32 bits.
        let serial = (index & u64::from(u32::MAX)) as u32;
        let soa = SOA::new(self.server_name(origin), child("hostmaster"), serial, 7200, 1800, 86400, minimum);
        Record::from_rdata(origin.clone(), ttl, RData::SOA(soa))
    }

    /// The name server record.
    pub(crate) fn ns(&self, origin: &Name) -> Record {
        Record::from_rdata(origin.clone(), self.ttl, RData::NS(NS(self.server_name(origin))))
    }

    /// `ns.dns.Z`.
    pub(crate) fn server_name(&self, origin: &Name) -> Name {
        origin
            .prepend_label("dns")
            .and_then(|name| name.prepend_label("ns"))
            .unwrap_or_else(|_| origin.clone())
    }
}

/// A name in the zone, taken apart.
pub(crate) struct Asked {
    /// The zone in the asker's spelling.
    pub(crate) origin: Name,
    /// What is before the zone, in lower case.
    labels: Vec<String>,
}

/// What the labels before the zone say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// Nothing: the zone itself.
    Apex,
    /// `ns.dns`.
    Server,
    /// A service, or an instance by its short name.
    Short(&'a str, Part<'a>),
    /// An instance by its long name.
    Long(&'a str, Part<'a>),
    /// `NAMESPACE.svc`: of Services.
    Namespace(&'a str),
    /// `SERVICE` of a namespace, the latter first.
    Service(&'a str, &'a str, Part<'a>),
    /// One endpoint of a Service: namespace, Service and its own label.
    Endpoint(&'a str, &'a str, &'a str),
    /// `dns`, `instance` or `svc`: names exist below it, so it exists too (RFC 8020), even where no service has that name.
    Above(&'a str),
    /// Nothing that can exist.
    Nothing,
}

/// What of an owner is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The owner itself.
    Whole,
    /// `_PROTOCOL`: nothing of its own, but there may be ports below.
    Protocol(Protocol),
    /// `_PORT._PROTOCOL`.
    Port(&'a str, Protocol),
}

impl Asked {
    /// Takes the labels for what they say.
    pub(crate) fn place(&self) -> Place<'_> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [] => Place::Apex,
            ["ns", "dns"] => Place::Server,
            [label @ ("dns" | "instance" | "svc")] => Place::Above(label),
            [namespace, "svc"] if !namespace.starts_with('_') => Place::Namespace(namespace),
            [before @ .., name, namespace, "svc"] if !namespace.starts_with('_') => match before {
                [host] if !host.starts_with('_') => Place::Endpoint(namespace, name, host),
                before => part(before).map_or(Place::Nothing, |part| Place::Service(namespace, name, part)),
            },
            [before @ .., name, "instance"] if !name.starts_with('_') => {
                part(before).map_or(Place::Nothing, |part| Place::Long(name, part))
            }
            [before @ .., name] => part(before).map_or(Place::Nothing, |part| Place::Short(name, part)),
        }
    }
}

/// Reads the labels of RFC 2782 before an owner.
fn part<'a>(before: &[&'a str]) -> Option<Part<'a>> {
    let protocol = |label: &str| label.strip_prefix('_')?.parse::<Protocol>().ok();
    match before {
        [] => Some(Part::Whole),
        [p] => Some(Part::Protocol(protocol(p)?)),
        [port, p] => Some(Part::Port(port.strip_prefix('_')?, protocol(p)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_a_domain_name_with_room_before_it() {
        assert_eq!(Zone::new("Portolan.Internal", 5).unwrap().origin(), "portolan.internal.");
        assert_eq!(Zone::new("portolan.internal.", 3600).unwrap().ttl(), 3600);
        assert_eq!(Zone::new(".", 5).unwrap_err(), ZoneError::Root);
        assert_eq!(Zone::new("a..b", 5).unwrap_err(), ZoneError::Syntax("a..b".into()));
        assert_eq!(Zone::new("a b", 5).unwrap_err(), ZoneError::Syntax("a b".into()));
        assert_eq!(Zone::new("a", 3601).unwrap_err(), ZoneError::Ttl(3601));
        let long = vec!["x".repeat(60); 4].join(".");
        assert!(matches!(Zone::new(&long, 5), Err(ZoneError::TooLong(_, 245))));
    }

    #[test]
    fn names_are_taken_apart_from_the_right() {
        let zone = Zone::new("portolan.internal", 5).unwrap();
        let place = |text: &str, expected: Place<'_>| {
            let asked = zone.asked(&Name::from_ascii(text).unwrap()).unwrap();
            assert_eq!(asked.place(), expected, "{text}");
        };
        use Protocol::{Tcp, Udp};
        place("portolan.internal.", Place::Apex);
        place("WEB.Portolan.INTERNAL.", Place::Short("web", Part::Whole));
        place("_tcp.web.portolan.internal.", Place::Short("web", Part::Protocol(Tcp)));
        place("_http._TCP.web.portolan.internal.", Place::Short("web", Part::Port("http", Tcp)));
        place("_g._udp.a.instance.portolan.internal.", Place::Long("a", Part::Port("g", Udp)));
        place("a.instance.portolan.internal.", Place::Long("a", Part::Whole));
        place("instance.portolan.internal.", Place::Above("instance"));
        place("_tcp.instance.portolan.internal.", Place::Short("instance", Part::Protocol(Tcp)));
        place("ns.dns.portolan.internal.", Place::Server);
        place("_http._icmp.web.portolan.internal.", Place::Nothing);
        place("http._tcp.web.portolan.internal.", Place::Nothing);
        place("a.b.portolan.internal.", Place::Nothing);
        place("svc.portolan.internal.", Place::Above("svc"));
        place("_http._tcp.svc.portolan.internal.", Place::Short("svc", Part::Port("http", Tcp)));
        place("default.svc.portolan.internal.", Place::Namespace("default"));
        place("Web.default.svc.portolan.internal.", Place::Service("default", "web", Part::Whole));
        place("_h._udp.web.x.svc.portolan.internal.", Place::Service("x", "web", Part::Port("h", Udp)));
        place("10-0-0-1.web.x.svc.portolan.internal.", Place::Endpoint("x", "web", "10-0-0-1"));
        place("a.b.web.x.svc.portolan.internal.", Place::Nothing);
        assert!(zone.asked(&Name::from_ascii("internal.").unwrap()).is_none());
        assert!(zone.asked(&Name::from_ascii("xportolan.internal.").unwrap()).is_none());
    }
}
