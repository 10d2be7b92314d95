//! `runtimeConfig.portMappings`: what the runtime wants mapped (CNI conventions, "port mappings").

use std::{borrow::Cow, net::IpAddr};

use portolan_model::{Protocol, StaticPort};
use serde::Deserialize;

use crate::{CniError, code};

/// An entry as it comes. Go reads keys whatever their case, so nobody noticed that containerd's begin with a capital
/// (`PortMapping` of github.com/containerd/go-cni has no JSON names).
#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(rename = "hostPort", alias = "HostPort")]
    host_port: Option<i64>,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    container_port: Option<i64>,
    #[serde(alias = "Protocol", borrow)]
    protocol: Option<Cow<'a, str>>,
    #[serde(rename = "hostIP", alias = "HostIP", borrow)]
    host_ip: Option<Cow<'a, str>>,
}

/// Reads the entries. A host port of 0, or none, asks for a random one.
///
/// # Errors
/// Code 6 when they have another shape, 7 when a number, protocol or address is none.
pub(crate) fn read(json: &str) -> Result<Vec<StaticPort>, CniError> {
    let entries: Option<Vec<Entry<'_>>> = serde_json::from_str(json).map_err(|error| {
        CniError::new(code::DECODE, "cannot read runtimeConfig.portMappings").with_details(error.to_string())
    })?;
    entries.unwrap_or_default().into_iter().map(Entry::check).collect()
}

impl Entry<'_> {
    fn check(self) -> Result<StaticPort, CniError> {
        let wrong =
            |what: String| CniError::new(code::CONFIG, format!("in runtimeConfig.portMappings: {what}"));
        let number = |number: Option<i64>, key| {
            let number = number.unwrap_or(0);
            u16::try_from(number).map_err(|_| wrong(format!("{key} {number} is no port: use 0 to 65535")))
        };
        let host_port = number(self.host_port, "hostPort")?;
        let container_port = number(self.container_port, "containerPort")?;
        if container_port == 0 {
            return Err(wrong("containerPort is missing or 0: use 1 to 65535".to_owned()));
        }
        let protocol = match self.protocol.as_deref() {
            // What Kubernetes and Docker mean when they say nothing.
            None | Some("") => Protocol::Tcp,
            Some(name) => name.parse().map_err(|e| wrong(format!("{e}")))?,
        };
        let host_address = match self.host_ip.as_deref() {
            None | Some("") => None,
            Some(text) => {
                let address: IpAddr =
                    text.parse().map_err(|_| wrong(format!("hostIP {text:?} is no IP address")))?;
                // `::ffff:192.0.2.1` is the IPv4 address to Go, and to whoever wrote it.
                Some(address.to_canonical())
            }
        };
        Ok(StaticPort { host_port, container_port, protocol, host_address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_port: u16, container_port: u16, protocol: Protocol, host: Option<&str>) -> StaticPort {
        let host_address = host.map(|address| address.parse().unwrap());
        StaticPort { host_port, container_port, protocol, host_address }
    }

    #[test]
    fn entries_read_as_the_convention_says() {
        let json = r#"[
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
            {"hostPort": 8081, "containerPort": 81, "protocol": "UDP", "hostIP": ""},
            {"hostPort": 8082, "containerPort": 82, "protocol": "Sctp", "hostIP": "192.168.0.2"},
            {"hostPort": 8083, "containerPort": 83, "hostIP": "::", "name": "unknown keys are no failure"},
            {"hostPort": 8084, "containerPort": 84, "hostIP": "::ffff:192.0.2.1"},
            {"HostPort": 8085, "ContainerPort": 85, "Protocol": "udp", "HostIP": "127.0.0.1"}
        ]"#;
        let expected = [
            port(8080, 80, Protocol::Tcp, None),
            port(8081, 81, Protocol::Udp, None),
            port(8082, 82, Protocol::Sctp, Some("192.168.0.2")),
            port(8083, 83, Protocol::Tcp, Some("::")),
            port(8084, 84, Protocol::Tcp, Some("192.0.2.1")),
            port(8085, 85, Protocol::Udp, Some("127.0.0.1")),
        ];
        assert_eq!(read(json).unwrap(), expected);
        assert_eq!(read("null").unwrap(), []);
    }

    #[test]
    fn no_host_port_asks_for_a_random_one() {
        let expected = [port(0, 80, Protocol::Tcp, None)];
        assert_eq!(read(r#"[{"hostPort": 0, "containerPort": 80}]"#).unwrap(), expected);
        assert_eq!(read(r#"[{"containerPort": 80}]"#).unwrap(), expected);
    }

    #[test]
    fn what_is_no_port_is_refused_with_the_key_and_the_value() {
        for (json, said) in [
            (r#"[{"hostPort": 65536, "containerPort": 80}]"#, "hostPort 65536 is no port"),
            (r#"[{"hostPort": -1, "containerPort": 80}]"#, "hostPort -1 is no port"),
            (r#"[{"hostPort": 80}]"#, "containerPort is missing"),
            (r#"[{"hostPort": 80, "containerPort": 70000}]"#, "containerPort 70000 is no port"),
            (r#"[{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]"#, r#""icmp" is no protocol"#),
            (r#"[{"hostPort": 80, "containerPort": 80, "hostIP": "host"}]"#, r#"hostIP "host" is no IP"#),
        ] {
            let error = read(json).unwrap_err();
            assert_eq!(error.code, code::CONFIG);
            assert!(error.message.contains(said), "{json}: {error}");
        }
        assert_eq!(read("{}").unwrap_err().code, code::DECODE);
    }
}
