//! What came by each published port: read anew for each scrape.

use std::fmt::Write as _;

/// One published port of an instance, one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortTraffic {
    /// `namespace`: of the Pod; empty where there is no Kubernetes.
    pub namespace: String,
    /// `pod`: its name, or what else the instance is called.
    pub pod: String,
    /// `port`: the port's name.
    pub port: String,
    /// `host_port`: its number, or `FIRST-LAST`.
    pub host_port: String,
    /// `protocol`: tcp, udp or sctp.
    pub protocol: &'static str,
    /// `portolan_port_connections_total`; for UDP, clients that had been silent for a while.
    pub connections: u64,
    /// The metrics that are there only when traffic is counted.
    pub traffic: Option<Traffic>,
}

/// Packets and bytes, network headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// `portolan_port_received_packets_total`: to the instance.
    pub received_packets: u64,
    /// `portolan_port_received_bytes_total`.
    pub received_bytes: u64,
    /// `portolan_port_sent_packets_total`: from the instance.
    pub sent_packets: u64,
    /// `portolan_port_sent_bytes_total`.
    pub sent_bytes: u64,
}

type Value = fn(&PortTraffic) -> Option<u64>;

const METRICS: [(&str, &str, Value); 5] = [
    ("connections", "Connections that came by a published port", |port| Some(port.connections)),
    ("received_packets", "Packets to an instance by a published port", |port| {
        port.traffic.map(|traffic| traffic.received_packets)
    }),
    ("received_bytes", "Bytes to an instance by a published port", |port| {
        port.traffic.map(|traffic| traffic.received_bytes)
    }),
    ("sent_packets", "Packets from an instance by a published port", |port| {
        port.traffic.map(|traffic| traffic.sent_packets)
    }),
    ("sent_bytes", "Bytes from an instance by a published port", |port| {
        port.traffic.map(|traffic| traffic.sent_bytes)
    }),
];

/// Appends them as OpenMetrics text.
pub(super) fn write(ports: &[PortTraffic], text: &mut String) {
    for (name, help, value) in METRICS {
        let mut samples = ports.iter().filter_map(|port| Some((port, value(port)?))).peekable();
        if samples.peek().is_none() {
            continue;
        }
        let _ = writeln!(text, "# HELP portolan_port_{name} {help}.\n# TYPE portolan_port_{name} counter");
        for (port, value) in samples {
            let PortTraffic { namespace, pod, port, host_port, protocol, .. } = port;
            let _ = writeln!(
                text,
                "portolan_port_{name}_total{{namespace=\"{}\",pod=\"{}\",port=\"{}\",host_port=\"{host_port}\",\
                 protocol=\"{protocol}\"}} {value}",
                escaped(namespace),
                escaped(pod),
                escaped(port),
            );
        }
    }
}

/// As a label's value is written (OpenMetrics 1.0.0, "Escaping").
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use super::*;

    #[test]
    fn ports_stand_before_the_end_and_are_not_kept() {
        let metrics = Metrics::new("1");
        let port = PortTraffic {
            namespace: "games".to_owned(),
            pod: "one \"two\"".to_owned(),
            port: "media".to_owned(),
            host_port: "20000-20099".to_owned(),
            protocol: "udp",
            connections: 3,
            traffic: None,
        };
        let counted =
            PortTraffic { traffic: Some(Traffic { sent_bytes: 9, ..Traffic::default() }), ..port.clone() };
        let labels =
            r#"{namespace="games",pod="one \"two\"",port="media",host_port="20000-20099",protocol="udp"}"#;
        let text = metrics.encode_with(&[port]);
        assert!(text.contains(&format!("\nportolan_port_connections_total{labels} 3\n")), "{text}");
        assert!(!text.contains("portolan_port_sent"), "{text}");
        let text = metrics.encode_with(&[counted]);
        assert!(text.contains(&format!("\nportolan_port_sent_bytes_total{labels} 9\n")), "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
        assert_eq!(metrics.encode_with(&[]), metrics.encode());
    }
}
