//! The ports of a Pod as Galaxy writes them into its annotation.
//!
//! Galaxy (github.com/tkestack/galaxy, `doc/portmapping.md` and `pkg/api/k8s/k8s.go` at 1b172687) keeps a JSON array
//! with one object for each container port and protocol. `hostIP` is left out when it is empty, the other fields never;
//! `protocol` is in capitals as in the Pod, `podName` the Pod's name without its namespace and `podIP` its IPv4 address,
//! as Galaxy knows no other.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{Protocol, PublishedPort};

/// One object of the array.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GalaxyPort {
    /// The host port.
    pub host_port: u16,
    /// The container port.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`; Galaxy itself has only the first two.
    pub protocol: String,
    /// The only host address that answers; every one when it is left out.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    /// The Pod.
    pub pod_name: String,
    /// The Pod's address: IPv4 if it has one. Empty when it is not known, as in Galaxy.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
}

impl GalaxyPort {
    /// The array of a Pod: one object for each number and protocol, also of a block.
    pub fn all(ports: &[PublishedPort], pod: &str, addresses: &[IpAddr]) -> Vec<Self> {
        let address = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        let pod_ip = address.map(ToString::to_string).unwrap_or_default();
        let one = |port: &PublishedPort, offset: u16, protocol: Protocol| Self {
            host_port: port.host.first() + offset,
            // A block that is the last ports there are ends with them on both sides.
            container_port: port.container.saturating_add(offset),
            protocol: protocol.as_str().to_ascii_uppercase(),
            host_ip: port.address,
            pod_name: pod.to_owned(),
            pod_ip: pod_ip.clone(),
        };
        let each = ports.iter().flat_map(|port| {
            (0..port.host.count())
                .flat_map(move |offset| port.protocols.iter().map(move |p| (port, offset, p)))
        });
        each.map(|(port, offset, protocol)| one(port, offset, protocol)).collect()
    }

    /// The annotation's value.
    pub fn to_json(ports: &[Self]) -> String {
        // Plain structs of strings and numbers: serialization has nothing that can fail.
        serde_json::to_string(ports).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_what_galaxy_writes() {
        let ports = [PublishedPort {
            name: "http".parse().unwrap(),
            protocols: Protocol::Tcp.into(),
            host: "34567".parse().unwrap(),
            container: 9040,
            address: None,
        }];
        let addresses = ["2001:db8::5".parse().unwrap(), "172.16.0.5".parse().unwrap()];
        let text = GalaxyPort::to_json(&GalaxyPort::all(&ports, "hello-1", &addresses));
        assert_eq!(
            text,
            concat!(
                r#"[{"hostPort":34567,"containerPort":9040,"protocol":"TCP","#,
                r#""podName":"hello-1","podIP":"172.16.0.5"}]"#
            )
        );
    }

    #[test]
    fn two_protocols_and_blocks_are_an_object_for_each_number() {
        let ports = [PublishedPort {
            name: "media".parse().unwrap(),
            protocols: "tcp+udp".parse().unwrap(),
            host: "65534-65535".parse().unwrap(),
            container: 65534,
            address: Some("192.0.2.1".parse().unwrap()),
        }];
        let all = GalaxyPort::all(&ports, "relay", &[]);
        let short: Vec<_> =
            all.iter().map(|p| (p.host_port, p.container_port, p.protocol.as_str())).collect();
        let expected =
            [(65534, 65534, "TCP"), (65534, 65534, "UDP"), (65535, 65535, "TCP"), (65535, 65535, "UDP")];
        assert_eq!(short, expected);
        assert_eq!(all[0].host_ip, ports[0].address);
        assert_eq!(all[0].pod_ip, "");
    }
}
