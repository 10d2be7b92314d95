//! What a Pod asks for in its annotations, before its container ports and numbers are known.
//!
//! [`Ask::read`] takes the annotations; `resolve` puts the Pod's container ports in.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{ContainerPort, Name, PortName, PortRequest, Protocol, RequestError};

mod resolve;
#[cfg(test)]
mod tests;

pub use resolve::demand;

/// The annotation by which a Pod asks for ports.
pub const PORTS_ANNOTATION: &str = "portolan.dev/ports";
/// The annotation that keeps the ports out of the containers' environment, with the value `false`.
pub const ENVIRONMENT_ANNOTATION: &str = "portolan.dev/ports-env";
/// The annotation of Galaxy (github.com/tkestack/galaxy, `doc/portmapping.md`): present with any value, it asks for a
/// random host port for each container port; the ports are written into it.
pub const GALAXY_ANNOTATION: &str = "tkestack.io/portmapping";

/// What a Pod asks for.
///
/// ```text
/// ASK  = ITEM { "," ITEM }
/// ITEM = "*" [ ",pool=" POOL ] | a port as `PortRequest` has it
/// ```
/// Spaces around items are nothing. `pool=NAME` after a comma belongs to the item before it. The name of a port may be
/// that, or the number, of one of the Pod's container ports: then it is this port that is published, by the protocol of
/// the container port unless the item says another. Any other name is a port with the same number inside and outside.
/// `*` is every container port which no other item names and which has no `hostPort`.
///
/// | text | meaning |
/// | --- | --- |
/// | `http` | a random host port for the container port `http` |
/// | `8080` | a random host port for the container port 8080 |
/// | `http=8443` | host port 8443 for the container port `http` |
/// | `game/tcp+udp, media/udp:100` | one random number for both protocols, and a block of 100 |
/// | `*, sip/udp, pool=media` | a random host port for every container port, and one of the pool `media` for `sip` |
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// What [`PORTS_ANNOTATION`] says.
    pub items: Vec<Item>,
    /// Whether [`GALAXY_ANNOTATION`] is there.
    pub galaxy: bool,
    /// Whether the containers get the ports in their environment.
    pub environment: bool,
}

/// One item of an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// `*`
    All {
        /// The pool to take from; `None` is the default pool.
        pool: Option<Name>,
    },
    /// A port or a block.
    Port {
        /// As it is written; the name may be a container port's name or number.
        request: PortRequest,
        /// Whether it says a protocol. Otherwise that of the container port counts.
        protocol: bool,
    },
}

/// Why an [`Ask`] cannot be read or resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// An item that is no port.
    #[error("{0}")]
    Item(#[from] RequestError),
    /// Nothing between two commas.
    #[error("there is nothing between two commas: name a port, or take one comma away")]
    Empty,
    /// `pool=NAME` without a port before it.
    #[error("{0:?} has no port before it: write PORT,{0}")]
    NothingBefore(String),
    /// `*` and something else than a pool.
    #[error("{0:?} is no item: * stands alone, or as *,pool=NAME")]
    All(String),
    /// `*` more than once.
    #[error("* is asked for twice: once is enough")]
    AllTwice,
    /// Neither `true` nor `false`.
    #[error("{annotation}: {value:?} is neither \"true\" nor \"false\"")]
    Switch {
        /// The annotation.
        annotation: &'static str,
        /// Its value.
        value: String,
    },
    /// Two ports of one name.
    #[error("two ports are named {0}: give each a name of its own")]
    Twice(PortName),
    /// A name of only digits that is no port.
    #[error("{0} is no port: use a number from 1 to 65535, or a name with a letter in it")]
    Number(PortName),
    /// Several container ports have the name.
    #[error("the container ports {first} and {second} are both named {name}: ask for them by number")]
    Ambiguous {
        /// The name.
        name: PortName,
        /// One of them.
        first: u16,
        /// Another.
        second: u16,
    },
    /// The item says another container port than the Pod.
    #[error(
        "{name} is the container port {has}, and {item:?} says {says}: leave {says} out, or use another name"
    )]
    Contradiction {
        /// The name.
        name: PortName,
        /// The container port of that name.
        has: u16,
        /// What the item says.
        says: u16,
        /// The item.
        item: String,
    },
    /// A block whose ports would have other numbers inside than outside.
    #[error(
        "in {item:?}: a block of ports has the same numbers inside and outside, so it cannot be the container port \
         {container}: use a name that no container port has, or write {name}/{protocol}:{count}={container}"
    )]
    Block {
        /// The item.
        item: String,
        /// Its name.
        name: PortName,
        /// Its first protocol.
        protocol: Protocol,
        /// Its size.
        count: u16,
        /// The container port.
        container: u16,
    },
    /// Two items want the same host port.
    #[error("{first} and {second} both want the host port {port}: give one of them another")]
    SameHostPort {
        /// One of them.
        first: PortName,
        /// The other.
        second: PortName,
        /// The host port.
        port: u16,
    },
    /// `*` of a Pod without container ports.
    #[error(
        "* asks for every container port, and the Pod's containers have none to publish: list them under ports:"
    )]
    NoContainerPorts,
    /// `*` or a container port of a Pod on the node's network.
    #[error(
        "{item:?}: a Pod on the host network listens on the host's ports, and its container ports are host ports \
         already: ask for other names, and leave them out of the containers' ports:"
    )]
    HostNetwork {
        /// The item.
        item: String,
    },
    /// Another number inside than outside on the node's network.
    #[error(
        "in {item:?}: on the host network the port is the same inside and outside: leave {container} out"
    )]
    Shifted {
        /// The item.
        item: String,
        /// The container port.
        container: u16,
    },
}

impl Ask {
    /// What the annotations of a Pod ask for; `None` when they ask for nothing.
    pub fn read(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, AskError> {
        let galaxy = annotations.contains_key(GALAXY_ANNOTATION);
        let text = annotations.get(PORTS_ANNOTATION).map(|text| text.trim()).filter(|text| !text.is_empty());
        if text.is_none() && !galaxy {
            return Ok(None);
        }
        let environment = match annotations.get(ENVIRONMENT_ANNOTATION).map(String::as_str) {
            None | Some("true") => true,
            Some("false") => false,
            Some(value) => {
                return Err(AskError::Switch { annotation: ENVIRONMENT_ANNOTATION, value: value.to_owned() });
            }
        };
        let items = text.map_or(Ok(Vec::new()), |text| text.parse::<Self>().map(|ask| ask.items))?;
        Ok(Some(Self { items, galaxy, environment }))
    }
}

impl FromStr for Ask {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        // What follows a comma is an item of its own unless it is an option of the one before.
        let mut texts: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim) {
            if part.is_empty() {
                return Err(AskError::Empty);
            }
            if !part.starts_with("pool=") {
                texts.push(part.to_owned());
            } else if let Some(before) = texts.last_mut() {
                before.push(',');
                before.push_str(part);
            } else {
                return Err(AskError::NothingBefore(part.to_owned()));
            }
        }
        let items: Vec<Item> = texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        if items.iter().filter(|item| matches!(item, Item::All { .. })).count() > 1 {
            return Err(AskError::AllTwice);
        }
        Ok(Self { items, galaxy: false, environment: true })
    }
}

impl FromStr for Item {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        if let Some(rest) = text.strip_prefix('*') {
            let wrong = || AskError::All(text.to_owned());
            let pool = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(",pool=").ok_or_else(wrong)?.parse().map_err(|_| wrong())?),
            };
            return Ok(Self::All { pool });
        }
        let request: PortRequest = text.parse()?;
        let before = text.split([',', '=', ':']).next().unwrap_or_default();
        Ok(Self::Port { request, protocol: before.contains('/') })
    }
}

impl fmt::Display for Ask {
    /// The items as in [`PORTS_ANNOTATION`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.items.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{item}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All { pool: None } => f.write_str("*"),
            Self::All { pool: Some(pool) } => write!(f, "*,pool={pool}"),
            // The request prints TCP as nothing, which here means the protocol of the container port.
            Self::Port { request, protocol: true } if request.protocols == crate::Protocols::TCP => {
                let text = request.to_string();
                let (name, rest) = text.split_at(request.name.as_str().len());
                write!(f, "{name}/tcp{rest}")
            }
            Self::Port { request, .. } => write!(f, "{request}"),
        }
    }
}
