//! The metrics of `portolan relay`: what each frontend has done. Labels are Services and the addresses that are listened
//! on, never clients.

use crate::service_proxy::NamedMetrics;

/// One frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayFrontend {
    /// `NAMESPACE/NAME:PORT` of its Service.
    pub service: String,
    /// Where it listens.
    pub listen: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `portolan_relay_open`: connections or UDP clients that are there.
    pub open: u64,
    /// `portolan_relay_opened_total`: that were let in.
    pub opened: u64,
    /// `portolan_relay_refused_total`: that were sent away.
    pub refused: u64,
    /// `portolan_relay_failed_total`: whom no backend answered, or who were cut off.
    pub failed: u64,
    /// `portolan_relay_received_bytes_total`: from clients to backends.
    pub received: u64,
    /// `portolan_relay_sent_bytes_total`: from backends to clients.
    pub sent: u64,
}

type Read = fn(&RelayFrontend) -> u64;

/// Name, type, meaning, value.
const METRICS: [(&str, &str, &str, Read); 6] = [
    ("portolan_relay_open", "gauge", "Connections or UDP clients that are there", |one| one.open),
    ("portolan_relay_opened_total", "counter", "Connections or UDP clients that were let in", |one| {
        one.opened
    }),
    ("portolan_relay_refused_total", "counter", "Clients that were sent away", |one| one.refused),
    (
        "portolan_relay_failed_total",
        "counter",
        "Clients whom no backend answered, or who were cut off",
        |one| one.failed,
    ),
    ("portolan_relay_received_bytes_total", "counter", "Bytes from clients to backends", |one| one.received),
    ("portolan_relay_sent_bytes_total", "counter", "Bytes from backends to clients", |one| one.sent),
];

/// All of them as OpenMetrics text. `services`: how many the relay knows; `synced`: whether it knows all that there are.
pub fn encode(frontends: &[RelayFrontend], services: usize, synced: bool) -> String {
    let mut named = NamedMetrics::default();
    let count = i128::try_from(services).unwrap_or(i128::MAX);
    named.add(("portolan_relay_services", "gauge", "Services that are known"), &[], count);
    let known = "Whether all Services and endpoints were read once";
    named.add(("portolan_relay_synced", "gauge", known), &[], i128::from(synced));
    for one in frontends {
        let labels = [
            ("service", one.service.as_str()),
            ("listen", one.listen.as_str()),
            ("protocol", one.protocol.as_str()),
        ];
        for (name, kind, help, read) in METRICS {
            named.add((name, kind, help), &labels, i128::from(read(one)));
        }
    }
    named.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_frontend_has_its_lines_and_each_family_one_head() {
        let one = RelayFrontend {
            service: "default/web:http".to_owned(),
            listen: "0.0.0.0:30080".to_owned(),
            protocol: "tcp".to_owned(),
            open: 1,
            opened: 4,
            refused: 0,
            failed: 2,
            received: 10,
            sent: 20,
        };
        let text = encode(&[one.clone(), RelayFrontend { listen: "[::]:30080".to_owned(), ..one }], 3, true);
        for line in [
            "portolan_relay_services 3",
            "portolan_relay_synced 1",
            "portolan_relay_open{service=\"default/web:http\",listen=\"[::]:30080\",protocol=\"tcp\"} 1",
            "portolan_relay_failed_total{service=\"default/web:http\",listen=\"0.0.0.0:30080\",protocol=\"tcp\"} 2",
            "# TYPE portolan_relay_received_bytes counter",
            "# EOF",
        ] {
            assert_eq!(text.lines().filter(|known| *known == line).count(), 1, "{line}:\n{text}");
        }
    }
}
