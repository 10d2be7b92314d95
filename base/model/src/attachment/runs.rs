//! Mappings on the wire: neighbours that count up together are one entry.
//!
//! A block of 1,000 ports is 60 KB of single ones, which costs plugin and agent a millisecond. Of a run the first host
//! port is called `first`: an agent that knows no runs misses `host_port` and says so, where an unknown `count` alone
//! would leave it with one port of a thousand.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::StaticPort;
use crate::Protocol;

/// Every port of every protocol, for one address and for all.
const MOST: usize = 6 << 16;

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u16>,
    container_port: u16,
    protocol: Protocol,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_address: Option<IpAddr>,
}

pub(super) fn serialize<S: Serializer>(ports: &[StaticPort], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ports.chunk_by(follows).map(|run| {
        let StaticPort { host_port, container_port, protocol, host_address } = run[0];
        let many = u16::try_from(run.len()).ok().filter(|count| *count > 1);
        Entry {
            host_port: many.is_none().then_some(host_port),
            first: many.map(|_| host_port),
            count: many,
            container_port,
            protocol,
            host_address,
        }
    }))
}

/// Whether the second is the next one of a run. Host port 0 is no number but asks for a random one.
fn follows(one: &StaticPort, next: &StaticPort) -> bool {
    one.host_port != 0
        && one.host_port.checked_add(1) == Some(next.host_port)
        && one.container_port.checked_add(1) == Some(next.container_port)
        && (one.protocol, one.host_address) == (next.protocol, next.host_address)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<StaticPort>, D::Error> {
    let mut ports = Vec::new();
    for entry in Vec::<Entry>::deserialize(from)? {
        let Entry { host_port, first, count, container_port, protocol, host_address } = entry;
        let count = if first.is_some() { count.unwrap_or(1) } else { 1 };
        if ports.len() + usize::from(count) > MOST {
            return Err(D::Error::custom(format!("more than {MOST} ports")));
        }
        let host = host_port.or(first).ok_or_else(|| D::Error::missing_field("host_port"))?;
        for more in 0..count {
            let numbers = host.checked_add(more).zip(container_port.checked_add(more));
            let (host_port, container_port) =
                numbers.ok_or_else(|| D::Error::custom("a run of ports goes beyond 65535"))?;
            ports.push(StaticPort { host_port, container_port, protocol, host_address });
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Ports(#[serde(with = "super")] Vec<StaticPort>);

    fn port(host_port: u16, container_port: u16) -> StaticPort {
        StaticPort { host_port, container_port, protocol: Protocol::Udp, host_address: None }
    }

    #[test]
    fn a_run_is_one_entry_and_a_single_port_is_as_before() {
        let mut ports: Vec<StaticPort> = (0..1_000).map(|more| port(30_000 + more, 100 + more)).collect();
        ports.push(port(80, 8080));
        let json = serde_json::to_string(&Ports(ports.clone())).unwrap();
        let run = r#"{"first":30000,"count":1000,"container_port":100,"protocol":"udp"}"#;
        let single = r#"{"host_port":80,"container_port":8080,"protocol":"udp"}"#;
        assert_eq!(json, format!("[{run},{single}]"));
        assert_eq!(serde_json::from_str::<Ports>(&json).unwrap(), Ports(ports));
    }

    #[test]
    fn an_agent_that_knows_no_runs_says_so() {
        let json = serde_json::to_string(&Ports(vec![port(1, 1), port(2, 2)])).unwrap();
        let error = serde_json::from_str::<Vec<StaticPort>>(&json).unwrap_err().to_string();
        assert!(error.contains("missing field `host_port`"), "{error}");
    }

    #[test]
    fn a_run_that_goes_too_far_and_one_without_a_number_are_refused() {
        let all = r#"{"first":1,"count":65535,"container_port":1,"protocol":"tcp"}"#;
        assert!(serde_json::from_str::<Ports>(&format!("[{all},{all}]")).is_ok());
        assert!(serde_json::from_str::<Ports>(&format!("[{}]", [all; 7].join(","))).is_err());
        for entry in [
            r#"{"first":65535,"count":2,"container_port":1,"protocol":"tcp"}"#,
            r#"{"first":1,"count":3,"container_port":65534,"protocol":"tcp"}"#,
            r#"{"count":2,"container_port":1,"protocol":"tcp"}"#,
        ] {
            assert!(serde_json::from_str::<Ports>(&format!("[{entry}]")).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_arrives(ports in prop::collection::vec((0..6u16, 1..6u16, any::<bool>(), any::<bool>()), 0..40)) {
            let ports = ports.into_iter().map(|(host, container, high, local)| StaticPort {
                host_port: if high { 65_530 + host } else { host },
                container_port: if high { 65_530 + container } else { container },
                host_address: local.then_some(IpAddr::from([127, 0, 0, 1])),
                ..port(0, 0)
            });
            let ports = Ports(ports.collect());
            let json = serde_json::to_string(&ports).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ports>(&json).unwrap(), ports);
        }
    }
}
