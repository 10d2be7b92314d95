//! Transport protocols that have ports.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

/// Why a text names no set of protocols.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Not one of ours.
    #[error("{0:?} is no protocol: use tcp, udp or sctp")]
    Unknown(String),
    /// The same one twice.
    #[error("{0} is named twice")]
    Twice(Protocol),
}

impl Protocol {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The number in the IP header (IANA protocol numbers): 6, 17, 132.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The lower-case name, as in `/etc/protocols` and in DNS SRV names.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Protocol {
    type Err = ProtocolError;
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str().eq_ignore_ascii_case(text))
            .ok_or_else(|| ProtocolError::Unknown(text.to_owned()))
    }
}

/// A set of protocols that share one port number. Empty only as [`Protocols::NONE`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Protocol>", into = "Vec<Protocol>")]
pub struct Protocols(u8);

impl Protocols {
    /// No protocol.
    pub const NONE: Self = Self(0);
    /// TCP alone: what a port is when nobody says otherwise.
    pub const TCP: Self = Self(1);
    /// UDP alone.
    pub const UDP: Self = Self(2);

    /// Whether `protocol` is in the set.
    pub const fn contains(self, protocol: Protocol) -> bool {
        self.0 & (1 << protocol as u8) != 0
    }

    /// The set with `protocol` in it.
    #[must_use]
    pub const fn with(self, protocol: Protocol) -> Self {
        Self(self.0 | 1 << protocol as u8)
    }

    /// The members in the order tcp, udp, sctp.
    pub fn iter(self) -> impl Iterator<Item = Protocol> {
        Protocol::ALL.into_iter().filter(move |&p| self.contains(p))
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether some protocol is in both.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl fmt::Display for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(Protocol::as_str).collect();
        f.pad(&names.join("+"))
    }
}

impl fmt::Debug for Protocols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Protocols {
    type Err = ProtocolError;
    /// Reads `tcp`, `tcp+udp` and so on.
    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        text.split('+').try_fold(Self::NONE, |set, word| {
            let protocol: Protocol = word.parse()?;
            if set.contains(protocol) { Err(ProtocolError::Twice(protocol)) } else { Ok(set.with(protocol)) }
        })
    }
}

impl From<Protocol> for Protocols {
    fn from(protocol: Protocol) -> Self {
        Self::NONE.with(protocol)
    }
}

impl FromIterator<Protocol> for Protocols {
    fn from_iter<I: IntoIterator<Item = Protocol>>(protocols: I) -> Self {
        protocols.into_iter().fold(Self::NONE, Self::with)
    }
}

impl From<Vec<Protocol>> for Protocols {
    fn from(protocols: Vec<Protocol>) -> Self {
        protocols.into_iter().collect()
    }
}

impl From<Protocols> for Vec<Protocol> {
    fn from(protocols: Protocols) -> Self {
        protocols.iter().collect()
    }
}
