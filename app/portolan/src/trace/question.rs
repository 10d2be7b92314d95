//! Which packet is meant: from the words of the command line.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use portolan_model::{Protocol, Service};

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) protocol: Protocol,
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
}

/// A port of no meaning, of those that the kernel gives to clients.
const CLIENT_PORT: u16 = 40_000;

/// `own`: the machine's addresses, the first of a family is meant by `node` and by a node port.
pub(super) fn read(
    source: &str,
    destination: &str,
    protocol: Option<Protocol>,
    services: &[&Service],
    own: &[IpAddr],
) -> anyhow::Result<Question> {
    let like = source.parse::<IpAddr>().ok().or_else(|| Some(source.parse::<SocketAddr>().ok()?.ip()));
    let first_own = |ipv4: bool| {
        let found = own.iter().copied().find(|address| address.is_ipv4() == ipv4);
        found.with_context(|| format!("this machine has no {} address", if ipv4 { "IPv4" } else { "IPv6" }))
    };
    let (destination, protocol) = match destination.strip_prefix(':') {
        Some(port) => {
            let port = port.parse().with_context(|| format!("{port} is no port"))?;
            let address = first_own(like.is_none_or(|like| like.is_ipv4()))?;
            (SocketAddr::new(address, port), protocol.unwrap_or(Protocol::Tcp))
        }
        None if destination.contains('/') => of_service(destination, protocol, services, like)?,
        None => (address_and_port(destination)?, protocol.unwrap_or(Protocol::Tcp)),
    };
    let source = match source {
        "node" => SocketAddr::new(first_own(destination.is_ipv4())?, CLIENT_PORT),
        text => match text.parse::<IpAddr>() {
            Ok(address) => SocketAddr::new(address, CLIENT_PORT),
            Err(_) => text.parse().with_context(|| {
                format!("{text} is no source: write an address, ADDRESS:PORT, [ADDRESS]:PORT or node")
            })?,
        },
    };
    if source.is_ipv4() != destination.is_ipv4() {
        bail!("{} and {} are of different versions of IP", source.ip(), destination.ip());
    }
    Ok(Question { protocol, source, destination })
}

fn address_and_port(text: &str) -> anyhow::Result<SocketAddr> {
    if text.parse::<IpAddr>().is_ok() {
        bail!(
            "{text} has no port: write {}",
            match text.contains(':') {
                true => format!("[{text}]:80"),
                false => format!("{text}:80"),
            }
        );
    }
    text.parse().with_context(|| {
        format!(
            "{text} is no destination: write ADDRESS:PORT, [ADDRESS]:PORT, NAMESPACE/NAME[:PORT] or :NODEPORT"
        )
    })
}

/// `NAMESPACE/NAME[:PORT]`: its cluster address, of the family of the source if it has one.
fn of_service(
    text: &str,
    protocol: Option<Protocol>,
    services: &[&Service],
    like: Option<IpAddr>,
) -> anyhow::Result<(SocketAddr, Protocol)> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let service = services.iter().find(|service| service.name.to_string() == name);
    let service = service.with_context(|| {
        format!("there is no Service {name} with a cluster address: `kubectl get services -A` shows all")
    })?;
    let fits = |one: &&portolan_model::ServicePort| {
        protocol.is_none_or(|protocol| one.protocol == protocol)
            && port.is_none_or(|port| one.name == port || one.port.to_string() == port)
    };
    let found: Vec<_> = service.ports.iter().filter(fits).collect();
    let all = || {
        let each = service.ports.iter().map(|one| format!("{}/{} {}", one.port, one.protocol, one.name));
        each.map(|text| text.trim_end().to_owned()).collect::<Vec<_>>().join(", ")
    };
    let one = match found.as_slice() {
        [] => bail!("the Service {name} has no such port; it has {}", all()),
        [one] => one,
        several if several.iter().any(|one| one.protocol != several[0].protocol) && port.is_some() => {
            bail!("the Service {name} has that port for several protocols: say which with --protocol")
        }
        _ => bail!("the Service {name} has several ports: write {name}:PORT; it has {}", all()),
    };
    let of_family = |address: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == address.is_ipv4());
    let addresses = &service.cluster_addresses;
    let address = addresses.iter().find(of_family).with_context(|| {
        format!("the Service {name} has no cluster address of the version of IP that the source has")
    })?;
    Ok((SocketAddr::new(*address, one.port), one.protocol))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read_in_all_their_forms() {
        let own = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let read = |source: &str, destination: &str| {
            let question = read(source, destination, None, &[], &own).unwrap();
            format!("{} {}", question.source, question.destination)
        };
        assert_eq!(read("10.0.0.1", "10.96.0.1:53"), "10.0.0.1:40000 10.96.0.1:53");
        assert_eq!(read("[fd00::1]:7", "[fd01::1]:53"), "[fd00::1]:7 [fd01::1]:53");
        assert_eq!(read("10.0.0.1", ":30001"), "10.0.0.1:40000 192.0.2.1:30001");
        assert_eq!(read("fd00::1", ":30001"), "[fd00::1]:40000 [2001:db8::1]:30001");
        assert_eq!(read("node", "[fd01::1]:53"), "[2001:db8::1]:40000 [fd01::1]:53");
    }

    #[test]
    fn a_destination_without_a_port_is_told_how_to_write_it() {
        let error = read("10.0.0.1", "fd00::1", None, &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), "fd00::1 has no port: write [fd00::1]:80");
        let error = read("10.0.0.1", "default/web", None, &[], &[]).unwrap_err();
        assert!(error.to_string().starts_with("there is no Service default/web"), "{error}");
    }
}
