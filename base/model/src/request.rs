//! What a workload asks for: one port, or a block of them. The grammar of `portolan run -p`.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Name, NameError, PortName, ProtocolError, Protocols};

/// One asked-for port or block, before numbers are chosen.
///
/// ```text
/// SPEC = NAME [ "/" PROTOCOL { "+" PROTOCOL } ] [ ":" COUNT ] [ "=" ( HOST | [ HOST ] ":" CONTAINER | ADDRESS ":" [ HOST ] ":" [ CONTAINER ] ) ] [ ",pool=" POOL ]
/// ```
/// | text | meaning |
/// | --- | --- |
/// | `http` | a random host port for TCP; the instance listens on the same number |
/// | `game/tcp+udp` | one random number, free for both protocols |
/// | `media/udp:100` | an aligned, contiguous block of 100 |
/// | `web=8443` | host port 8443, or fail; the instance listens on 8443 |
/// | `web=:8080` | a random host port; the instance listens on 8080 |
/// | `web=8443:8080` | host port 8443 to container port 8080 |
/// | `web=127.0.0.2:8443:8080`, `web=[fd00::5]::8080` | on one host address only |
/// | `sip/udp,pool=media` | from the pool `media` |
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRequest {
    /// The port's name, unique in the instance.
    pub name: PortName,
    /// The protocols that all get the same number.
    pub protocols: Protocols,
    /// How many contiguous ports: 1, or the size of the block.
    pub count: u16,
    /// The host port, or the first of the block, when it is static; `None` asks for a random one.
    pub host: Option<u16>,
    /// The port that the instance listens on; `None` is the same number as the host port.
    pub container: Option<u16>,
    /// The only host address that answers; `None` is every local address of both families.
    pub address: Option<IpAddr>,
    /// The pool to take from; `None` is the default pool.
    pub pool: Option<Name>,
}

/// Why a text is no [`PortRequest`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The part before `/`, `:` and `=`.
    #[error("in {spec:?}: {source}")]
    Name {
        /// The whole text.
        spec: String,
        /// What is wrong with the name.
        source: NameError,
    },
    /// The part after `/`.
    #[error("in {spec:?}: {source}")]
    Protocol {
        /// The whole text.
        spec: String,
        /// What is wrong with the protocol.
        source: ProtocolError,
    },
    /// A number that is no port or no count.
    #[error("in {spec:?}: {text:?} is no {what}: use a number from 1 to 65535")]
    Number {
        /// The whole text.
        spec: String,
        /// The part of it.
        text: String,
        /// What should be there: `host port`, `container port` or `count`.
        what: &'static str,
    },
    /// A host address that does not parse.
    #[error("in {spec:?}: {text:?} is no IP address: write 192.0.2.1 or [2001:db8::1]")]
    Address {
        /// The whole text.
        spec: String,
        /// The part of it.
        text: String,
    },
    /// An option after a comma other than `pool=NAME`.
    #[error("in {spec:?}: {text:?} is no option: the only one is pool=NAME")]
    Option {
        /// The whole text.
        spec: String,
        /// The part of it.
        text: String,
    },
    /// A block keeps its port numbers: one interval element forwards all of it, and it cannot shift.
    #[error(
        "in {spec:?}: a block of ports has the same numbers inside and outside; leave the container port out"
    )]
    ShiftedBlock {
        /// The whole text.
        spec: String,
    },
    /// A static block that would go past 65535.
    #[error("in {spec:?}: {count} ports from {first} on go past 65535")]
    BlockTooHigh {
        /// The whole text.
        spec: String,
        /// The first port.
        first: u16,
        /// How many.
        count: u16,
    },
}

impl PortRequest {
    /// A random TCP port of this name: what `-p NAME` asks for.
    pub fn named(name: PortName) -> Self {
        Self {
            name,
            protocols: Protocols::TCP,
            count: 1,
            host: None,
            container: None,
            address: None,
            pool: None,
        }
    }
}

impl FromStr for PortRequest {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let spec = || text.to_owned();
        let number = |digits: &str, what| match digits.parse::<u16>() {
            Ok(n) if n > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
            _ => Err(RequestError::Number { spec: spec(), text: digits.to_owned(), what }),
        };
        let (main, options) = text.split_once(',').map_or((text, None), |(m, o)| (m, Some(o)));
        let (left, target) = main.split_once('=').map_or((main, None), |(l, t)| (l, Some(t)));
        let (left, count) = left.split_once(':').map_or((left, None), |(l, c)| (l, Some(c)));
        let (name, protocols) = left.split_once('/').map_or((left, None), |(n, p)| (n, Some(p)));

        let mut request =
            Self::named(Name::new(name).map_err(|source| RequestError::Name { spec: spec(), source })?);
        if let Some(protocols) = protocols {
            request.protocols =
                protocols.parse().map_err(|source| RequestError::Protocol { spec: spec(), source })?;
        }
        if let Some(count) = count {
            request.count = number(count, "count")?;
        }
        for option in options.into_iter().flat_map(|o| o.split(',')) {
            match option.split_once('=') {
                Some(("pool", pool)) => {
                    request.pool =
                        Some(Name::new(pool).map_err(|source| RequestError::Name { spec: spec(), source })?);
                }
                _ => return Err(RequestError::Option { spec: spec(), text: option.to_owned() }),
            }
        }
        if let Some(target) = target {
            // From the right: CONTAINER, then HOST, then ADDRESS, which may itself hold colons in brackets.
            let (rest, last) = match target.rsplit_once(':') {
                Some((rest, last)) if !last.ends_with(']') => (Some(rest), last),
                Some(_) => {
                    return Err(RequestError::Number {
                        spec: spec(),
                        text: target.to_owned(),
                        what: "host port",
                    });
                }
                None => (None, target),
            };
            let mut host = last;
            if let Some(rest) = rest {
                let (address, port) = match rest.rsplit_once(':') {
                    Some((address, port)) if !port.ends_with(']') => (Some(address), port),
                    _ => (None, rest),
                };
                host = port;
                // `ADDRESS:HOST:` leaves the container port to be the same number; without an address that is just `HOST`.
                if !(last.is_empty() && address.is_some()) {
                    request.container = Some(number(last, "container port")?);
                }
                if let Some(address) = address {
                    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
                    let wrong = || RequestError::Address { spec: spec(), text: address.to_owned() };
                    let address: IpAddr = bare.parse().map_err(|_| wrong())?;
                    request.address = (!address.is_unspecified()).then_some(address);
                }
            }
            if !(host.is_empty() && rest.is_some()) {
                request.host = Some(number(host, "host port")?);
            }
        }
        if request.count > 1 && request.container.is_some() && request.container != request.host {
            return Err(RequestError::ShiftedBlock { spec: spec() });
        }
        if let Some(first) = request.host
            && first.checked_add(request.count - 1).is_none()
        {
            return Err(RequestError::BlockTooHigh { spec: spec(), first, count: request.count });
        }
        Ok(request)
    }
}

impl fmt::Display for PortRequest {
    /// The shortest text that reads back as the same request.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        if self.protocols != Protocols::TCP {
            write!(f, "/{}", self.protocols)?;
        }
        if self.count != 1 {
            write!(f, ":{}", self.count)?;
        }
        let host = self.host.map(|h| h.to_string()).unwrap_or_default();
        match (self.address, self.container) {
            (None, None) if self.host.is_some() => write!(f, "={host}")?,
            (None, None) => {}
            (None, Some(container)) => write!(f, "={host}:{container}")?,
            (Some(address), container) => {
                let container = container.map(|c| c.to_string()).unwrap_or_default();
                match address {
                    IpAddr::V4(a) => write!(f, "={a}:{host}:{container}")?,
                    IpAddr::V6(a) => write!(f, "=[{a}]:{host}:{container}")?,
                }
            }
        }
        if let Some(pool) = &self.pool {
            write!(f, ",pool={pool}")?;
        }
        Ok(())
    }
}

impl TryFrom<String> for PortRequest {
    type Error = RequestError;
    fn try_from(text: String) -> Result<Self, RequestError> {
        text.parse()
    }
}

impl From<PortRequest> for String {
    fn from(request: PortRequest) -> Self {
        request.to_string()
    }
}
