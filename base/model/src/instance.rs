//! An instance: one running copy of a workload that can be reached, as the catalog knows it.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{CheckSpec, Name, PortName, PortRange, Protocols};

/// Tells two lives of one name apart: a restarted copy is a new incarnation of the same instance.
///
/// Chosen by whoever registers (random for `run` and `serve`). 1 to 64 printable ASCII characters without spaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Incarnation(String);

impl Incarnation {
    /// Keeps `text` when it is 1 to 64 printable ASCII characters without spaces.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then_some(Self(text))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Incarnation {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::new(text).ok_or_else(|| {
            format!("{text:?} is no incarnation: 1 to 64 printable ASCII characters without spaces")
        })
    }
}

impl TryFrom<String> for Incarnation {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.0
    }
}

/// Name and incarnation: what renews, leaves and changes refer to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceKey {
    /// The instance's name, unique in the catalog at any time.
    pub name: Name,
    /// Which life of it.
    pub incarnation: Incarnation,
}

/// Whether an instance is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Registered, not looked at yet. Not served by DNS, unless nothing checks it.
    Unknown,
    /// Served.
    Passing,
    /// Served; its check says it is near its limit (HTTP 429).
    Warning,
    /// Its check fails. Not served.
    Critical,
    /// Its lease ran out: it did not renew. Not served, removed after a while.
    Expired,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Unknown, Self::Passing, Self::Warning, Self::Critical, Self::Expired];

    /// Whether DNS and clients should be sent there.
    pub const fn is_served(self) -> bool {
        matches!(self, Self::Passing | Self::Warning)
    }

    /// Lower-case, as in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| {
            format!("{text:?} is no state: use unknown, passing, warning, critical or expired")
        })
    }
}

/// A port by which clients reach an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct InstancePort {
    /// The port's name, unique in the instance.
    pub name: PortName,
    /// The protocols that share the number. In JSON `["tcp","udp"]`; TCP when left out.
    #[serde(default = "default_protocols")]
    pub protocols: Protocols,
    /// The number, or the block, that clients use. In JSON `"20417"` or `"21000-21099"`.
    pub port: PortRange,
    /// The number behind it, when it is known and another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<u16>,
}

const fn default_protocols() -> Protocols {
    Protocols::TCP
}

/// A record of the catalog, as the API shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Name and incarnation.
    #[serde(flatten)]
    pub key: InstanceKey,
    /// The service it is a copy of: the name under which DNS answers with all copies.
    pub service: Name,
    /// The machine it runs on.
    pub node: String,
    /// Where clients reach it: at most one address of each family is usual, any number is allowed.
    pub addresses: Vec<IpAddr>,
    /// Its ports, in the order in which they were asked for.
    pub ports: Vec<InstancePort>,
    /// Free text pairs to filter by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Tags of the tutorial's API.
    #[serde(default)]
    pub tags: Vec<String>,
    /// How its health is checked; `None` means that its lease alone speaks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckSpec>,
    /// Whether it is served, and why not.
    pub state: State,
    /// Since when it has been in this state.
    #[serde(with = "rfc3339")]
    pub since: SystemTime,
    /// When this incarnation registered first.
    #[serde(with = "rfc3339")]
    pub registered: SystemTime,
    /// What the last check said: 4 KiB at most.
    #[serde(default)]
    pub output: String,
}

impl Instance {
    /// Its port of that name.
    pub fn port(&self, name: &str) -> Option<&InstancePort> {
        self.ports.iter().find(|port| port.name.as_str() == name)
    }
}

/// A change of the catalog, as watchers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type", content = "instance")]
pub enum Transition {
    /// Registered, or replaced by a new incarnation.
    Added(Instance),
    /// Anything of it changed: state, ports, labels.
    Changed(Instance),
    /// Deregistered or evicted: its last record.
    Removed(Instance),
}

impl Transition {
    /// The instance that changed.
    pub const fn instance(&self) -> &Instance {
        match self {
            Self::Added(instance) | Self::Changed(instance) | Self::Removed(instance) => instance,
        }
    }
}

/// Wall-clock times as RFC 3339 in UTC.
mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(time: &SystemTime, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_rfc3339_millis(*time))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text)
            .map_err(|e| D::Error::custom(format!("{text:?} is no RFC 3339 time: {e}")))
    }
}
