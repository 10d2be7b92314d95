//! Names of instances, services, pools and ports: DNS labels, so that each can be a label of a DNS name as it is.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A DNS label (RFC 1123 section 2.1): 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
///
/// Upper case is refused, not folded: two spellings of one name would be two instances in some tools and one in others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// The name of a port of an instance, such as `http` or `media`. The same rules as [`Name`];
/// Kubernetes limits it to 15 characters (RFC 6335 service names), Portolan accepts 63.
pub type PortName = Name;

/// Why a text is no [`Name`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing between the separators.
    #[error("a name is empty: give 1 to 63 of a-z, 0-9 and '-'")]
    Empty,
    /// Longer than a DNS label can be.
    #[error("the name {0:?} has {1} characters: a DNS label has 63 at most")]
    TooLong(String, usize),
    /// A character that no DNS label has, or a dash at an end.
    #[error("the name {0:?} is no DNS label: use a-z, 0-9 and '-', and begin and end with a letter or digit")]
    NotALabel(String),
}

impl Name {
    /// Checks `text` and keeps it.
    pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        match text.as_bytes() {
            [] => Err(NameError::Empty),
            bytes if bytes.len() > 63 => Err(NameError::TooLong(text.clone(), bytes.len())),
            bytes
                if bytes.iter().all(|&b| ok(b) || b == b'-')
                    && ok(bytes[0])
                    && ok(bytes[bytes.len() - 1]) =>
            {
                Ok(Self(text))
            }
            _ => Err(NameError::NotALabel(text)),
        }
    }

    /// The nearest legal name to any text, for names that come from programs and files (`My_Server.bin` gives
    /// `my-server-bin`). `None` when nothing legal is left.
    pub fn sanitized(text: &str) -> Option<Self> {
        let mut label: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
            .take(63)
            .collect();
        label = label.trim_matches('-').to_owned();
        Self::new(label).ok()
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as part of an environment variable: upper case, `-` as `_`.
    pub fn as_variable(&self) -> String {
        self.0.to_ascii_uppercase().replace('-', "_")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}
