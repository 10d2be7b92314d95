//! What came by each published port, for `/metrics`.
//!
//! Nothing of it is kept: the kernel counts, and a scrape reads. So a Pod that is gone leaves no time series behind.

use std::{collections::HashMap, sync::Arc};

use portolan_apply::Counting;
use portolan_model::{MappingKey, Network};
use portolan_ports::Lease;
use portolan_telemetry::metrics::{PortTraffic, Traffic};

use super::Agent;
use portolan_attach::Attach;

/// All of them; empty when nothing is counted.
pub(crate) async fn counters(agent: &Arc<Agent>) -> Vec<PortTraffic> {
    let asked = agent.engine.call(|attach| {
        let counting = attach.stats().counting;
        (counting != Counting::Off).then(|| (counting, attach.counters(), ports(attach)))
    });
    let Ok(Some((counting, read, mut ports))) = asked.await else { return Vec::new() };
    let counts = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(counts)) => counts,
        Ok(Err(error)) => {
            tracing::warn!(%error, "what came by each port cannot be read");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let one = |(key, counts): (MappingKey, portolan_apply::Counts)| {
        // A mapping that belongs to no Pod, or came or went meanwhile.
        let mut port = ports.remove(&key)?;
        port.connections = counts.connections;
        port.traffic = (counting == Counting::Traffic).then_some(Traffic {
            received_packets: counts.received_packets,
            received_bytes: counts.received_bytes,
            sent_packets: counts.sent_packets,
            sent_bytes: counts.sent_bytes,
        });
        Some(port)
    };
    counts.into_iter().filter_map(one).collect()
}

/// Whose each mapping is.
fn ports(attach: &Attach) -> HashMap<MappingKey, PortTraffic> {
    attach.leases().filter(|lease| lease.request.network == Network::Own).flat_map(of_lease).collect()
}

fn of_lease(lease: &Lease) -> impl Iterator<Item = (MappingKey, PortTraffic)> {
    let instance = &lease.request.instance;
    let (namespace, pod) = match instance.pod() {
        Some(pod) => (pod.namespace, pod.name),
        None => ("", instance.as_str()),
    };
    lease.ports.iter().flat_map(move |port| {
        port.protocols.iter().map(move |protocol| {
            let key = MappingKey { protocol, address: port.address, host: port.host };
            let labels = PortTraffic {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                port: port.name.to_string(),
                host_port: port.host.to_string(),
                protocol: protocol.as_str(),
                ..PortTraffic::default()
            };
            (key, labels)
        })
    })
}
