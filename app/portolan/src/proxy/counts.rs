//! What is known of each Service by itself: which generation is live, since when, and what came by.

use portolan_apply::{ApplyError, ServicePlane};
use portolan_telemetry::service_proxy::NamedMetrics;

/// Which generation of each Service is in the kernel.
pub(crate) fn live(plane: &ServicePlane, named: &mut NamedMetrics) {
    let generation =
        ("portolan_service_live_generation", "gauge", "The generation of the Service that is in the kernel");
    let since = (
        "portolan_service_live_since_seconds",
        "gauge",
        "When the last change of the Service or its endpoints was in the kernel",
    );
    for (name, live) in plane.all_live() {
        let labels = [("namespace", name.namespace.as_str()), ("service", name.name.as_str())];
        named.add(generation, &labels, live.generation.into());
        let seconds = live.since.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        named.add(since, &labels, seconds.as_secs().into());
    }
}

/// What came by each frontend and endpoint, with `--counting connections` or `traffic`.
pub(crate) fn counted(plane: &ServicePlane, named: &mut NamedMetrics) -> Result<(), ApplyError> {
    let counts = plane.counters()?;
    for one in counts.frontends {
        let front = one.front.to_string();
        let labels = [
            ("namespace", one.service.namespace.as_str()),
            ("service", &one.service.name),
            ("frontend", &front),
        ];
        let counted = [
            ("portolan_service_connections_total", "New connections to a frontend", one.counts.connections),
            ("portolan_service_received_packets_total", "Packets to a frontend", one.counts.received_packets),
            ("portolan_service_received_bytes_total", "Bytes to a frontend", one.counts.received_bytes),
            ("portolan_service_sent_packets_total", "Packets from a frontend", one.counts.sent_packets),
            ("portolan_service_sent_bytes_total", "Bytes from a frontend", one.counts.sent_bytes),
        ];
        for (name, help, value) in counted {
            named.add((name, "counter", help), &labels, value.into());
        }
    }
    for one in counts.backends {
        let port = one.port.map(|(protocol, port)| format!("{port}/{protocol}")).unwrap_or_default();
        let endpoint = one.target.to_string();
        let labels = [
            ("namespace", one.service.namespace.as_str()),
            ("service", &one.service.name),
            ("port", &port),
            ("endpoint", &endpoint),
        ];
        let family =
            ("portolan_service_endpoint_connections_total", "counter", "New connections to an endpoint");
        named.add(family, &labels, one.connections.into());
    }
    for (target, protocol, counts) in counts.traffic {
        let endpoint = format!("{target}/{protocol}");
        let counted = [
            ("portolan_endpoint_received_packets_total", "Packets to an endpoint", counts.received_packets),
            ("portolan_endpoint_received_bytes_total", "Bytes to an endpoint", counts.received_bytes),
            ("portolan_endpoint_sent_packets_total", "Packets from an endpoint", counts.sent_packets),
            ("portolan_endpoint_sent_bytes_total", "Bytes from an endpoint", counts.sent_bytes),
        ];
        for (name, help, value) in counted {
            named.add((name, "counter", help), &[("endpoint", &endpoint)], value.into());
        }
    }
    Ok(())
}
