//! `runtimeConfig.portMappings`: what the runtime wants mapped (CNI conventions, "port mappings").

use std::net::IpAddr;

use portolan_model::{Protocol, StaticPort};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{CniError, code, text::Text};

/// The entries as they come, not checked yet.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Mappings<'a>(#[serde(borrow, deserialize_with = "entries")] Vec<Entry<'a>>);

/// Whatever is wrong with them is told with the key.
fn entries<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Entry<'de>>, D::Error> {
    Vec::deserialize(from).map_err(|e| D::Error::custom(format_args!("runtimeConfig.portMappings: {e}")))
}

impl Mappings<'_> {
    /// What they ask for. A host port of 0, or none, asks for a random one.
    ///
    /// # Errors
    /// Code 7 when a number, protocol or address is none.
    pub(crate) fn check(self) -> Result<Vec<StaticPort>, CniError> {
        self.0.into_iter().map(Entry::check).collect()
    }
}

/// Go reads keys whatever their case, so nobody noticed that containerd's begin with a capital (`PortMapping` of
/// github.com/containerd/go-cni has no JSON names).
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    #[serde(rename = "hostPort", alias = "HostPort")]
    host_port: Option<i64>,
    #[serde(rename = "containerPort", alias = "ContainerPort")]
    container_port: Option<i64>,
    #[serde(alias = "Protocol", borrow)]
    protocol: Option<Text<'a>>,
    #[serde(rename = "hostIP", alias = "HostIP", borrow)]
    host_ip: Option<Text<'a>>,
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
        let protocol = match text(&self.protocol) {
            // What Kubernetes and Docker mean when they say nothing.
            "" => Protocol::Tcp,
            name => name.parse().map_err(|e| wrong(format!("{e}")))?,
        };
        let host_address = match text(&self.host_ip) {
            "" => None,
            text => {
                let address: IpAddr =
                    text.parse().map_err(|_| wrong(format!("hostIP {text:?} is no IP address")))?;
                // `::ffff:192.0.2.1` is the IPv4 address to Go, and to whoever wrote it.
                Some(address.to_canonical())
            }
        };
        Ok(StaticPort { host_port, container_port, protocol, host_address })
    }
}

fn text<'a>(text: &'a Option<Text<'_>>) -> &'a str {
    text.as_ref().map_or("", |Text(text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<StaticPort>, CniError> {
        serde_json::from_str::<Mappings<'_>>(json).unwrap().check()
    }

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
    }
}
