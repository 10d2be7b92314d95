//! Whether a registration says something usable, and what it means with everything filled in.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use portolan_model::{CheckSpec, Incarnation, InstancePort, Name, Protocol, Protocols, Registration};

use super::{Admission, Caller, Claim, Refusal};
use crate::RegistryError;

/// Leases that make sense: shorter ones would expire between two packets, longer ones promise nothing.
const TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);
/// Bounds of what one instance may say, so that its record stays within some tens of KiB.
const MOST_ADDRESSES: usize = 16;
const MOST_PORTS: usize = 256;
const MOST_LABELS: usize = 64;
const MOST_TAGS: usize = 64;
const LONGEST_TEXT: usize = 256;

/// A registration that was let in: nothing left out, nothing unusable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) name: Name,
    /// `None`: speaks for the life that the table knows, or begins one.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) service: Name,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<InstancePort>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) tags: Vec<String>,
    pub(crate) check: Option<CheckSpec>,
    pub(crate) ttl: Duration,
    /// Whose registration it may replace.
    pub(crate) claim: Claim,
}

impl Admission {
    /// Fills in what was left out and refuses what is unusable or not the caller's to say.
    pub(crate) fn admit(&self, from: Registration, caller: Caller) -> Result<Accepted, RegistryError> {
        let accepted = Accepted {
            service: from.service.unwrap_or_else(|| from.name.clone()),
            node: from.node.unwrap_or_else(|| self.node.to_string()),
            addresses: self.addresses(from.addresses, caller)?,
            ports: ports(from.ports)?,
            labels: labels(from.labels)?,
            tags: tags(from.tags)?,
            check: from.check,
            ttl: from.ttl.unwrap_or(self.ttl),
            incarnation: from.incarnation,
            claim: self.claim(caller),
            name: from.name,
        };
        text("node", &accepted.node)?;
        if !TTL.contains(&accepted.ttl) {
            let ttl = humantime::format_duration(accepted.ttl);
            return Err(RegistryError::invalid("ttl", format!("{ttl} is not between 1s and 1day")));
        }
        if let Some(check) = &accepted.check {
            check.validate().map_err(|e| RegistryError::invalid("check", e))?;
            if checked_port(check, &accepted.ports).is_none() {
                return Err(RegistryError::invalid(
                    "check.port",
                    match &check.port {
                        Some(port) => format!("the instance has no TCP port {port}"),
                        None => "the instance has no TCP port to look at".to_owned(),
                    },
                ));
            }
        }
        Ok(accepted)
    }

    fn addresses(&self, given: Vec<IpAddr>, caller: Caller) -> Result<Vec<IpAddr>, RegistryError> {
        if given.len() > MOST_ADDRESSES {
            let reason = format!("{} addresses are more than {MOST_ADDRESSES}", given.len());
            return Err(RegistryError::invalid("addresses", reason));
        }
        let mut addresses = Vec::with_capacity(given.len().max(1));
        for address in given {
            let address = address.to_canonical();
            self.address(address, caller)?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            let own =
                caller.address().ok_or_else(|| RegistryError::invalid("addresses", "give at least one"))?;
            addresses.push(own);
        }
        Ok(addresses)
    }

    fn address(&self, address: IpAddr, caller: Caller) -> Result<(), Refusal> {
        if let Some(reason) = never(address) {
            return Err(Refusal::NoTarget(address, reason));
        }
        if address.is_loopback() {
            return if caller.is_on_this_machine() {
                Ok(())
            } else {
                Err(Refusal::NoTarget(address, "loopback is another machine for everybody else"))
            };
        }
        let allowed = match caller {
            Caller::Process | Caller::Token(_) => true,
            Caller::Unix => (self.is_local)(address),
            Caller::Loopback(own) => own == address || (self.is_local)(address),
            Caller::Anonymous(from) => {
                let theirs = self.claim(caller).covers(&[address]);
                return if theirs { Ok(()) } else { Err(Refusal::NotFromThere { given: address, from }) };
            }
        };
        if allowed { Ok(()) } else { Err(Refusal::NotYours(address)) }
    }
}

/// Why no instance ever has this address, whoever says so.
fn never(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("it means every address of a machine and none in particular"),
        _ if address.is_multicast() => Some("it is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("it is the broadcast address"),
        // 169.254.169.254 is where clouds hand out credentials; the rest of the range is of no use beyond one link.
        IpAddr::V4(v4) if v4.is_link_local() => Some("it is link-local, where clouds keep their metadata"),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("0.0.0.0/8 means this network (RFC 6890)"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("it is link-local and needs an interface"),
        // Amazon's metadata service over IPv6.
        IpAddr::V6(v6) if v6.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => {
            Some("a cloud keeps its metadata there")
        }
        _ => None,
    }
}

/// The number that a check looks at, if the instance has such a port.
pub(crate) fn checked_port(check: &CheckSpec, ports: &[InstancePort]) -> Option<u16> {
    ports
        .iter()
        .filter(|port| port.protocols.contains(Protocol::Tcp))
        .find(|port| check.port.as_ref().is_none_or(|name| *name == port.name))
        .map(|port| port.port.first())
}

fn ports(ports: Vec<InstancePort>) -> Result<Vec<InstancePort>, RegistryError> {
    if ports.len() > MOST_PORTS {
        return Err(RegistryError::invalid(
            "ports",
            format!("{} ports are more than {MOST_PORTS}", ports.len()),
        ));
    }
    let mut names = BTreeSet::new();
    for (at, port) in ports.iter().enumerate() {
        if !names.insert(&port.name) {
            let reason = format!("the name {} is used twice", port.name);
            return Err(RegistryError::invalid(format!("ports[{at}].name"), reason));
        }
        if port.protocols == Protocols::NONE {
            let reason = "name at least one of tcp, udp and sctp";
            return Err(RegistryError::invalid(format!("ports[{at}].protocols"), reason));
        }
        if port.container == Some(0) {
            return Err(RegistryError::invalid(format!("ports[{at}].container"), "port 0 is not a port"));
        }
    }
    Ok(ports)
}

fn labels(labels: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, RegistryError> {
    if labels.len() > MOST_LABELS {
        return Err(RegistryError::invalid(
            "labels",
            format!("{} are more than {MOST_LABELS}", labels.len()),
        ));
    }
    for (key, value) in &labels {
        text(&format!("labels[{key:?}]"), value)?;
        if key.is_empty() || key.contains(['=', ',']) {
            let reason = format!("the key {key:?} is empty or has '=' or ',' in it");
            return Err(RegistryError::invalid("labels", reason));
        }
        text("labels", key)?;
    }
    Ok(labels)
}

fn tags(tags: Vec<String>) -> Result<Vec<String>, RegistryError> {
    if tags.len() > MOST_TAGS {
        return Err(RegistryError::invalid("tags", format!("{} are more than {MOST_TAGS}", tags.len())));
    }
    for (at, tag) in tags.iter().enumerate() {
        text(&format!("tags[{at}]"), tag)?;
    }
    Ok(tags)
}

/// Texts end up in tables on terminals and in headers: no control characters, and not without end.
fn text(field: &str, text: &str) -> Result<(), RegistryError> {
    if text.len() > LONGEST_TEXT {
        let reason = format!("{} bytes are more than {LONGEST_TEXT}", text.len());
        return Err(RegistryError::invalid(field, reason));
    }
    if text.chars().any(char::is_control) {
        return Err(RegistryError::invalid(field, "it has control characters in it"));
    }
    Ok(())
}
