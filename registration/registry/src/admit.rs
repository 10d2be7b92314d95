//! Who asks, may they, and is what they say usable. The second stage of a registration.
//!
//! The rules, in short: this machine may write, everybody else needs the token; and nobody may make the registry
//! connect to, or send clients to, an address that is not theirs to give. A check of health is a request that the
//! registry makes on behalf of the caller, so an unlimited address would be a hole into the network (server-side
//! request forgery).
//!
//! Where servers cannot send a token, as those of the tutorial, `anonymous` lets some networks register themselves.

mod anonymous;
mod registration;
mod request;

use std::{fmt, net::IpAddr, sync::Arc};

pub use anonymous::Anonymous;
pub(crate) use anonymous::Claim;
use http::StatusCode;
pub(crate) use registration::{Accepted, checked_port};

use crate::RegistryConfig;
use portolan_model::Name;

/// On whose behalf something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// This process.
    Process,
    /// A client of the unix socket: the permissions of the socket's file have let it in.
    Unix,
    /// A client on this machine, by a loopback address.
    Loopback(IpAddr),
    /// A client with the token, from this address.
    Token(IpAddr),
    /// A client without a token, from an address that may register itself.
    Anonymous(IpAddr),
}

impl Caller {
    /// The address to register when the caller says none.
    pub(crate) const fn address(self) -> Option<IpAddr> {
        match self {
            Self::Process => None,
            Self::Unix => Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST)),
            Self::Loopback(address) | Self::Token(address) | Self::Anonymous(address) => Some(address),
        }
    }

    const fn is_on_this_machine(self) -> bool {
        match self {
            Self::Process | Self::Unix | Self::Loopback(_) => true,
            Self::Token(address) => address.is_loopback(),
            Self::Anonymous(_) => false,
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An IP address.
    Address(IpAddr),
    /// An IP address, by a listener on which [`Anonymous`] counts ([`crate::api::anonymous`]).
    Open(IpAddr),
    /// A unix socket.
    Unix,
}

impl From<std::net::SocketAddr> for Peer {
    /// An IPv4 client of a dual-stack socket is an IPv4 client.
    fn from(address: std::net::SocketAddr) -> Self {
        Self::Address(address.ip().to_canonical())
    }
}

impl From<tokio::net::unix::SocketAddr> for Peer {
    fn from(_: tokio::net::unix::SocketAddr) -> Self {
        Self::Unix
    }
}

/// Why a caller may not do what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither on this machine nor with a token.
    #[error(
        "{0} may not write here: send `Authorization: Bearer TOKEN`, or write from the registry's own machine"
    )]
    Stranger(IpAddr),
    /// A token that is not the registry's.
    #[error("the token is not the registry's")]
    WrongToken,
    /// A token where the registry has none.
    #[error("this registry takes no tokens: start it with one, or write from its own machine without one")]
    NoToken,
    /// A request that a proxy on this machine passes on for somebody else.
    #[error(
        "a request that a proxy passes on (header {0}) needs `Authorization: Bearer TOKEN`: its sender is not on this machine"
    )]
    Proxied(&'static str),
    /// A page of another site, in a browser on this machine.
    #[error("a page from {0:?} may not write here")]
    ForeignPage(String),
    /// An address that is never an instance's.
    #[error("addresses: {0} cannot be registered: {1}")]
    NoTarget(IpAddr, &'static str),
    /// An address that is not the caller's to give.
    #[error(
        "addresses: {0} is neither an address of this machine nor the one you register from; only callers with the token may register others"
    )]
    NotYours(IpAddr),
    /// An address that a caller without a token may not give.
    #[error(
        "addresses: {given} is not where you register from ({from}); only callers with the token may register others"
    )]
    NotFromThere {
        /// What was to be registered.
        given: IpAddr,
        /// Where the caller is.
        from: IpAddr,
    },
    /// An instance that somebody else registered.
    #[error("{0} is registered with an address that is not yours: only callers with the token may change it")]
    NotYourInstance(Name),
}

impl Refusal {
    /// The status that an HTTP reply carries for this.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Stranger(_) | Self::WrongToken => StatusCode::UNAUTHORIZED,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

/// The rules of one registry.
#[derive(Clone)]
pub(crate) struct Admission {
    token: Option<Arc<str>>,
    anonymous: Anonymous,
    is_local: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    node: Arc<str>,
    ttl: std::time::Duration,
}

impl Admission {
    pub(crate) fn new(config: &RegistryConfig) -> Self {
        Self {
            // An empty token would let everybody in who sends an empty one.
            token: config.token.as_deref().filter(|token| !token.is_empty()).map(Arc::from),
            anonymous: config.anonymous.clone(),
            is_local: Arc::clone(&config.is_local),
            node: Arc::from(config.node.as_str()),
            ttl: config.ttl,
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("token", &self.token.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
