//! What goes over the wire between those who register and the registry: the registration, the reply, the filter.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{CheckSpec, Incarnation, Instance, InstancePort, Name, NameError, PortName, State, check};

/// What an instance says of itself: the body of `PUT /v1/instances/{name}`.
///
/// Everything but the name may be left out; the registry fills it in and the reply says with what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    /// The instance's name, unique in the catalog. In the API's body it may be left out: the path says it.
    pub name: Name,
    /// Which life of it. Left out, the registration speaks for the life that the registry knows, or begins one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Incarnation>,
    /// The service it is a copy of; left out, its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<Name>,
    /// The machine it runs on; left out, the registry's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where clients reach it; left out, the address from which it registers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// Its ports. An instance without ports can be found by name only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<InstancePort>,
    /// Free text pairs to filter by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Tags of the tutorial's API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// How its health is checked; left out, its lease alone speaks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    /// How long it counts as alive without renewing; left out, the registry's choice (30 s). In JSON `"30s"`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "check::humantime_option")]
    pub ttl: Option<Duration>,
}

impl Registration {
    /// A registration of this name and nothing else.
    pub const fn new(name: Name) -> Self {
        Self {
            name,
            incarnation: None,
            service: None,
            node: None,
            addresses: Vec::new(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            tags: Vec::new(),
            check: None,
            ttl: None,
        }
    }
}

/// The registry's reply to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The catalog's index with this registration in it: a watch from here on misses nothing.
    pub index: u64,
    /// The life that was registered: what to renew and leave with.
    pub incarnation: Incarnation,
    /// Renew before this has passed; a third of it is a good rhythm. In JSON `"30s"`.
    #[serde(with = "check::humantime_text")]
    pub ttl: Duration,
    /// The state it has now: `unknown` until its check has passed.
    pub state: State,
    /// Whether this incarnation was not in the catalog before (HTTP 201, else 200).
    #[serde(skip)]
    pub created: bool,
}

/// The body of `GET /v1/instances`, and of the first event of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The catalog's index at which this was true. Never 0.
    pub index: u64,
    /// The instances that match, by name.
    pub instances: Vec<Instance>,
}

/// A port as a filter names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PortFilter {
    /// By its name.
    Name(PortName),
    /// By a number that clients use; in a block, any of its numbers.
    Number(u16),
}

impl FromStr for PortFilter {
    type Err = NameError;
    /// A text of digits up to 65535 is a number, everything else a name.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse() {
            Ok(number) if text.bytes().all(|b| b.is_ascii_digit()) => Ok(Self::Number(number)),
            _ => text.parse().map(Self::Name),
        }
    }
}

impl fmt::Display for PortFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.pad(name.as_str()),
            Self::Number(number) => f.pad(&number.to_string()),
        }
    }
}

/// Which instances to list or watch. The default matches all; every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// This instance only.
    pub name: Option<Name>,
    /// Copies of this service only.
    pub service: Option<Name>,
    /// Labels that must be there with these values.
    pub labels: BTreeMap<String, String>,
    /// A port that it must have.
    pub port: Option<PortFilter>,
    /// States, any of which it must be in; empty is any state.
    pub states: Vec<State>,
}

impl Filter {
    /// Whether `instance` is one of those asked for.
    pub fn matches(&self, instance: &Instance) -> bool {
        self.name.as_ref().is_none_or(|name| *name == instance.key.name)
            && self.service.as_ref().is_none_or(|service| *service == instance.service)
            && self.labels.iter().all(|(key, value)| instance.labels.get(key) == Some(value))
            && self.port.as_ref().is_none_or(|port| match port {
                PortFilter::Name(name) => instance.port(name.as_str()).is_some(),
                PortFilter::Number(number) => instance.ports.iter().any(|p| p.port.contains(*number)),
            })
            && (self.states.is_empty() || self.states.contains(&instance.state))
    }

    /// The pairs of the API's query that ask for the same, not yet percent-encoded.
    pub fn to_pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        pairs.extend(self.name.iter().map(|name| ("name", name.to_string())));
        pairs.extend(self.service.iter().map(|service| ("service", service.to_string())));
        // The API takes several labels in one pair, between commas: one that belongs to a value has a backslash.
        let escaped = |text: String| text.replace('\\', "\\\\").replace(',', "\\,");
        pairs.extend(self.labels.iter().map(|(key, value)| ("label", escaped(format!("{key}={value}")))));
        pairs.extend(self.port.iter().map(|port| ("port", port.to_string())));
        pairs.extend(self.states.iter().map(|state| ("state", state.to_string())));
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        serde_json::from_value(serde_json::json!({
            "name": "web-1", "incarnation": "a", "service": "web", "node": "n", "addresses": ["192.0.2.1"],
            "ports": [{"name": "http", "port": 20417}, {"name": "media", "port": "21000-21099", "protocols": ["udp"]}],
            "labels": {"tier": "front"}, "state": "passing",
            "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z"
        }))
        .expect("an instance")
    }

    #[test]
    fn every_part_of_a_filter_must_match() {
        let instance = instance();
        assert!(Filter::default().matches(&instance));
        let port = |text: &str| Filter { port: Some(text.parse().expect("a port")), ..Filter::default() };
        for (text, expected) in
            [("http", true), ("20417", true), ("21050", true), ("21100", false), ("x", false)]
        {
            assert_eq!(port(text).matches(&instance), expected, "{text}");
        }
        let mut filter = port("http");
        filter.labels.insert("tier".into(), "front".into());
        filter.states = vec![State::Warning, State::Passing];
        assert!(filter.matches(&instance));
        filter.service = Some("other".parse().expect("a name"));
        assert!(!filter.matches(&instance));
    }

    #[test]
    fn a_registration_needs_a_name_only_and_refuses_what_it_does_not_know() {
        let bare: Registration = serde_json::from_str(r#"{"name":"web-1"}"#).expect("a registration");
        assert_eq!(bare, Registration::new("web-1".parse().expect("a name")));
        assert_eq!(serde_json::to_string(&bare).expect("JSON"), r#"{"name":"web-1"}"#);
        let timed: Registration = serde_json::from_str(r#"{"name":"a","ttl":"1m"}"#).expect("a registration");
        assert_eq!(timed.ttl, Some(Duration::from_secs(60)));
        let error =
            serde_json::from_str::<Registration>(r#"{"name":"a","adresses":[]}"#).expect_err("a typo");
        assert!(error.to_string().contains("unknown field `adresses`"), "{error}");
    }
}
