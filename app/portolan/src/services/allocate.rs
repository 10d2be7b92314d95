//! Which cluster addresses and node ports Services get: pure, as the API server's allocators
//! (`pkg/registry/core/service/{ipallocator,portallocator}` of Kubernetes 1.36).
//!
//! What somebody asked for by number he gets or is told why not; what nobody chose is random, and comes from the upper
//! part of the range first, so that the lower one, the "static band", is left to those who choose. What a Service has it
//! keeps, over restarts too, and gets again when it comes back and nobody else has it.

mod address;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::{ObjectName, PortRange, Protocol};
use rand::{Rng, RngExt as _};
use serde::{Deserialize, Serialize};

pub(crate) use self::words::{AllocateError, Family, Given, PortKey, Ranges, Wanted};

/// Random attempts before a range is searched from its end.
const ATTEMPTS: usize = 64;
/// So many Services that are gone are remembered.
const FORMER: usize = 1024;

/// Who has what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocations {
    #[serde(with = "by_text")]
    given: BTreeMap<ObjectName, Given>,
    /// What those had who are gone.
    #[serde(default, with = "by_text")]
    former: BTreeMap<ObjectName, Given>,
}

/// Says who has a port for something else: a pool, a process. `None`: nobody.
pub(crate) type Others<'a> = &'a dyn Fn(u16) -> Option<String>;

impl Allocations {
    /// What this Service has.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<&Given> {
        self.given.get(name)
    }

    /// Every node port that somebody has.
    pub(crate) fn node_ports(&self) -> BTreeSet<u16> {
        self.given.values().flat_map(Given::ports).collect()
    }

    /// Node ports with their protocols, without those for health checks.
    pub(crate) fn held_ports(&self) -> impl Iterator<Item = (Protocol, u16)> {
        self.given.values().flat_map(|given| given.node_ports.iter().map(|(key, port)| (key.protocol, *port)))
    }

    /// Gives to all of `wanted` and takes from all others; says who gets nothing, and why. Those who have something
    /// already come first, then those who ask by number, then the rest.
    pub(crate) fn settle(
        &mut self,
        ranges: &Ranges,
        wanted: &[Wanted],
        others: Others<'_>,
        rng: &mut impl Rng,
    ) -> BTreeMap<ObjectName, AllocateError> {
        let names: BTreeSet<&ObjectName> = wanted.iter().map(|one| &one.name).collect();
        let gone: Vec<ObjectName> = self.given.keys().filter(|name| !names.contains(name)).cloned().collect();
        for name in gone {
            let Some(given) = self.given.remove(&name) else { continue };
            if self.former.len() >= FORMER {
                self.former.pop_first();
            }
            self.former.insert(name, given);
        }
        let asks =
            |one: &Wanted| !one.addresses.is_empty() || one.node_ports.iter().any(|(_, port)| port.is_some());
        let mut order: Vec<&Wanted> = wanted.iter().collect();
        order.sort_by_key(|one| (!self.given.contains_key(&one.name), !asks(one)));
        let mut problems = BTreeMap::new();
        for one in order {
            let before = self.given.remove(&one.name);
            match self.give(ranges, one, before.as_ref(), others, rng) {
                Ok(given) => {
                    self.former.remove(&one.name);
                    self.given.insert(one.name.clone(), given);
                }
                Err(error) => {
                    // What it had it keeps, so that an edit that cannot be does not take anything away.
                    self.given.extend(before.map(|given| (one.name.clone(), given)));
                    problems.insert(one.name.clone(), error);
                }
            }
        }
        problems
    }

    fn give(
        &self,
        ranges: &Ranges,
        wanted: &Wanted,
        before: Option<&Given>,
        others: Others<'_>,
        rng: &mut impl Rng,
    ) -> Result<Given, AllocateError> {
        let former = before.or_else(|| self.former.get(&wanted.name));
        let mut given = Given::default();
        for &family in &wanted.families {
            let asked = wanted.addresses.iter().copied().find(|address| Family::of(*address) == family);
            let had =
                former.and_then(|had| had.addresses.iter().copied().find(|ip| Family::of(*ip) == family));
            given.addresses.push(self.address(ranges, family, asked, had, rng)?);
        }
        for (index, (key, asked)) in wanted.node_ports.iter().enumerate() {
            let field = format!("ports[{index}].nodePort");
            let had = former.and_then(|had| had.node_port(key));
            // A port with several protocols has one number for all of them.
            let sibling = given.node_ports.iter().find(|(other, _)| other.port == key.port && other != key);
            let sibling = sibling.map(|(_, number)| *number);
            let mine = |number: u16| before.is_some_and(|had| had.ports().any(|own| own == number));
            let number = match asked {
                Some(number) => {
                    let twice =
                        given.node_ports.iter().any(|(k, n)| n == number && k.protocol == key.protocol);
                    if twice {
                        let by = format!("by another port of {}", wanted.name);
                        return Err(AllocateError::PortTaken(field, *number, by));
                    }
                    self.static_port(ranges, &field, *number, mine(*number), others)?
                }
                None => match sibling {
                    Some(number) => number,
                    None => self.dynamic_port(ranges, (had, before.is_some()), &given, others, rng)?,
                },
            };
            given.node_ports.push((key.clone(), number));
        }
        if let Some(asked) = wanted.health {
            let had = former.and_then(|had| had.health);
            let mine = |number: u16| before.is_some_and(|had| had.health == Some(number));
            given.health = Some(match asked {
                Some(number) => {
                    self.static_port(ranges, "healthCheckNodePort", number, mine(number), others)?
                }
                None => self.dynamic_port(ranges, (had, before.is_some()), &given, others, rng)?,
            });
        }
        Ok(given)
    }

    fn holder_of(&self, port: u16) -> Option<&ObjectName> {
        self.given.iter().find(|(_, given)| given.ports().any(|own| own == port)).map(|(name, _)| name)
    }

    fn static_port(
        &self,
        ranges: &Ranges,
        field: &str,
        number: u16,
        mine: bool,
        others: Others<'_>,
    ) -> Result<u16, AllocateError> {
        if !ranges.ports.contains(number) {
            return Err(AllocateError::PortOutside(field.to_owned(), number, ranges.ports));
        }
        if let Some(by) = self.holder_of(number) {
            return Err(AllocateError::PortTaken(field.to_owned(), number, format!("by {by}")));
        }
        match others(number).filter(|_| !mine) {
            Some(by) => Err(AllocateError::PortTaken(field.to_owned(), number, by)),
            None => Ok(number),
        }
    }

    /// The one that it had, if it has it still or nobody else does; otherwise a random one.
    fn dynamic_port(
        &self,
        ranges: &Ranges,
        (had, has): (Option<u16>, bool),
        given: &Given,
        others: Others<'_>,
        rng: &mut impl Rng,
    ) -> Result<u16, AllocateError> {
        let range = ranges.ports;
        let free = |number: u16| {
            range.contains(number)
                && self.holder_of(number).is_none()
                && !given.ports().any(|own| own == number)
        };
        if let Some(number) = had.filter(|number| free(*number) && (has || others(*number).is_none())) {
            return Ok(number);
        }
        let band = static_band(range);
        for _ in 0..ATTEMPTS {
            let number = rng.random_range(range.first() + band..=range.last());
            if free(number) && others(number).is_none() {
                return Ok(number);
            }
        }
        (range.first() + band..=range.last())
            .chain(range.first()..range.first() + band)
            .find(|number| free(*number) && others(*number).is_none())
            .ok_or(AllocateError::PortsFull(range))
    }
}

/// How many ports at the begin of the range are given by random choice last: `min(max(16, size / 32), 128)`, none of a
/// range that is smaller than 16 (KEP-3668).
pub(crate) fn static_band(range: PortRange) -> u16 {
    let size = range.count();
    if size <= 16 { 0 } else { (size / 32).clamp(16, 128) }
}

/// Keys of JSON objects are texts: `NAMESPACE/NAME`.
mod by_text {
    use std::collections::BTreeMap;

    use portolan_model::ObjectName;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Given;

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<ObjectName, Given>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_map(map.iter().map(|(name, given)| (name.to_string(), given)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<ObjectName, Given>, D::Error> {
        let map = BTreeMap::<String, Given>::deserialize(from)?;
        Ok(map
            .into_iter()
            .filter_map(|(key, given)| {
                let (namespace, name) = key.split_once('/')?;
                Some((ObjectName::new(namespace, name), given))
            })
            .collect())
    }
}

#[cfg(test)]
mod tests;
