//! What a lease on a node belongs to: one key for whatever asks for ports.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Name;

/// The longest: a namespace of 63, a Pod's name of 253 and an interface's of 15 with their separators fit.
const LONGEST: usize = 400;
/// The interface that needs no mention: every CNI runtime calls the first one so.
const FIRST_INTERFACE: &str = "eth0";

/// The key of a lease on a node: 1 to 400 visible ASCII characters.
///
/// | text | who |
/// | --- | --- |
/// | `web-0` | an instance of `portolan run`: a [`Name`] |
/// | `default/web-0` | a Pod: `NAMESPACE/POD` |
/// | `default/web-0@net1` | another interface of it than `eth0` |
/// | `0f3a…`, `0f3a…@net1` | a container of a runtime without Pods |
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId(String);

/// Why a text is no [`InstanceId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} cannot be the key of a lease: 1 to {LONGEST} visible ASCII characters without blanks")]
pub struct InstanceIdError(String);

/// A Pod's interface, as an [`InstanceId`] names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodInterface<'a> {
    /// The Pod's namespace.
    pub namespace: &'a str,
    /// The Pod's name.
    pub name: &'a str,
    /// The interface inside.
    pub interface: &'a str,
}

impl InstanceId {
    /// Checks `text` and keeps it.
    pub fn new(text: impl Into<String>) -> Result<Self, InstanceIdError> {
        let text = text.into();
        let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text)) } else { Err(InstanceIdError(text)) }
    }

    /// The key of a Pod's interface.
    pub fn of_pod(namespace: &str, name: &str, interface: &str) -> Result<Self, InstanceIdError> {
        Self::with_interface(format!("{namespace}/{name}"), interface)
    }

    /// The key of an interface of a container that belongs to no Pod.
    pub fn of_container(id: &str, interface: &str) -> Result<Self, InstanceIdError> {
        Self::with_interface(id.to_owned(), interface)
    }

    fn with_interface(mut text: String, interface: &str) -> Result<Self, InstanceIdError> {
        if interface != FIRST_INTERFACE {
            text.push('@');
            text.push_str(interface);
        }
        Self::new(text)
    }

    /// The same as a [`Name`], when it is one: an instance of `portolan run`.
    pub fn as_name(&self) -> Option<Name> {
        Name::new(self.0.as_str()).ok()
    }

    /// The Pod and its interface, when it is a Pod's.
    pub fn pod(&self) -> Option<PodInterface<'_>> {
        let (namespace, rest) = self.0.split_once('/')?;
        let (name, interface) = rest.split_once('@').unwrap_or((rest, FIRST_INTERFACE));
        let whole = !namespace.is_empty() && !name.is_empty() && !interface.is_empty();
        whole.then_some(PodInterface { namespace, name, interface })
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for InstanceId {
    type Err = InstanceIdError;
    fn from_str(text: &str) -> Result<Self, InstanceIdError> {
        Self::new(text)
    }
}

impl TryFrom<String> for InstanceId {
    type Error = InstanceIdError;
    fn try_from(text: String) -> Result<Self, InstanceIdError> {
        Self::new(text)
    }
}

impl From<InstanceId> for String {
    fn from(id: InstanceId) -> Self {
        id.0
    }
}

impl From<Name> for InstanceId {
    fn from(name: Name) -> Self {
        Self(name.into())
    }
}

impl From<&Name> for InstanceId {
    fn from(name: &Name) -> Self {
        Self(name.as_str().to_owned())
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for InstanceId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_from_a_name_and_from_a_container() {
        let pod = InstanceId::of_pod("default", "web-0", "eth0").unwrap();
        assert_eq!(pod.as_str(), "default/web-0");
        assert_eq!(pod.pod(), Some(PodInterface { namespace: "default", name: "web-0", interface: "eth0" }));
        assert_eq!(pod.as_name(), None);
        let second = InstanceId::of_pod("default", "web.0", "net1").unwrap();
        assert_eq!(second.as_str(), "default/web.0@net1");
        assert_eq!(second.pod().unwrap().interface, "net1");
        let container = InstanceId::of_container(&"0f".repeat(32), "eth0").unwrap();
        assert_eq!((container.pod(), container.as_name()), (None, None));
        let name: InstanceId = "web-0".parse().unwrap();
        assert_eq!(name.as_name().unwrap().as_str(), "web-0");
        assert_eq!(serde_json::to_string(&name).unwrap(), "\"web-0\"");
    }

    #[test]
    fn what_could_be_mistaken_in_a_log_or_a_path_is_refused() {
        for text in ["", "a b", "a\n", "ä", &"x".repeat(401)] {
            assert!(InstanceId::new(text).is_err(), "{text:?}");
        }
        let longest = format!("{}/{}@{}", "n".repeat(63), "p".repeat(253), "i".repeat(15));
        assert!(InstanceId::new(longest).is_ok());
    }
}
