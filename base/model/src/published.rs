//! What a workload got: host ports, and how it learns them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{PortName, PortRange, Protocols};

/// A port of an instance that can be reached from outside: the answer to a [`crate::PortRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port's name.
    pub name: PortName,
    /// The protocols that share the number.
    pub protocols: Protocols,
    /// The host port, or the block of them.
    pub host: PortRange,
    /// The first port that the instance listens on. For a block it is `host.first()`.
    pub container: u16,
    /// The only host address that answers; an unspecified one is every local one of its family, `None` of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// The environment by which a process learns its ports before it starts.
///
/// * `PORTOLAN_PORT_<NAME>`: the number, or `FIRST-LAST` for a block, that the world uses;
/// * `PORTOLAN_ADDR_<NAME>`: `ADDRESS:PORT` (or `[ADDRESS]:PORT`, or `ADDRESS:FIRST-LAST`) to advertise;
/// * `PORTOLAN_PORTS`: all of it as one JSON array of [`PublishedPort`];
/// * `PORT`: what to listen on for the first port, the convention of many servers.
///
/// `advertised` is the address that clients reach the node by; a port bound to one address advertises that one.
pub fn environment(ports: &[PublishedPort], advertised: IpAddr) -> Vec<(String, String)> {
    let mut variables = Vec::with_capacity(2 * ports.len() + 2);
    for port in ports {
        let name = port.name.as_variable();
        let address = match port.address.filter(|address| !address.is_unspecified()).unwrap_or(advertised) {
            IpAddr::V4(a) => a.to_string(),
            IpAddr::V6(a) => format!("[{a}]"),
        };
        variables.push((format!("PORTOLAN_PORT_{name}"), port.host.to_string()));
        variables.push((format!("PORTOLAN_ADDR_{name}"), format!("{address}:{}", port.host)));
    }
    if let Some(first) = ports.first() {
        variables.push(("PORT".to_owned(), first.container.to_string()));
    }
    // Plain structs of strings and numbers: serialization has nothing that can fail.
    variables.push(("PORTOLAN_PORTS".to_owned(), serde_json::to_string(ports).unwrap_or_default()));
    variables
}
