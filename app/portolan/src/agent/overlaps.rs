//! Are the pools ours alone? Static host ports of Pods, Services' node ports and the kernel's own choices come from
//! other hands, and a number in two of them is a Pod that cannot start, or packets that go astray.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use portolan_kubernetes::StaticHostPort;
use portolan_model::PortRange;
use portolan_ports::{
    Lease,
    ephemeral::{self, ephemeral_range},
    overlap::{self, Other},
};

use super::{Agent, pools, reconcile::warn_node};

/// What has been said already: each thing once, until it has gone and come again.
#[derive(Debug, Default)]
pub(crate) struct Said(BTreeSet<String>);

/// Whether a packet can be for both: an address that is left out, or unspecified, is all of them.
fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let only = |address: Option<IpAddr>| address.filter(|address| !address.is_unspecified());
    match (only(one), only(other)) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// Looks, counts for the metrics, and says what is new.
pub(crate) async fn look(agent: &Arc<Agent>, statics: &[StaticHostPort], leases: &[Lease], said: &mut Said) {
    let mut others = vec![Other::NodePorts(agent.config.node_ports)];
    // Where it can be kept out of the pools, it does not matter that it goes through them.
    if !agent.config.reserves() {
        let range = tokio::task::spawn_blocking(|| ephemeral_range(ephemeral::PATH.as_ref())).await;
        others.extend(range.ok().and_then(Result::ok).map(Other::Ephemeral));
    }
    let pod = |port: &StaticHostPort| format!("{}/{}", port.pod.namespace, port.pod.name);
    others.extend(statics.iter().filter_map(|port| {
        let range = PortRange::single(port.port).ok()?;
        Some(Other::Static(range, format!("the Pod {}", pod(port))))
    }));
    let pools = pools::of_ports(&agent.pools());
    let mut found: BTreeSet<String> = match &pools {
        Ok(pools) => overlap::find(pools, &others).iter().map(ToString::to_string).collect(),
        Err(_) => BTreeSet::new(),
    };
    for port in statics {
        let theirs = |lease: &&Lease| {
            lease.request.instance.as_str() != pod(port)
                && lease.ports.iter().any(|given| {
                    given.host.contains(port.port)
                        && given.protocols.contains(port.protocol)
                        && meet(given.address, port.address)
                })
        };
        if let Some(lease) = leases.iter().find(theirs) {
            found.insert(format!(
                "the Pod {} wants the host port {}/{}, which {} has: it stays without until that ends",
                pod(port),
                port.port,
                port.protocol,
                lease.request.instance
            ));
        }
    }
    agent.metrics.pool_overlaps.set(i64::try_from(found.len()).unwrap_or(i64::MAX));
    for message in found.difference(&said.0) {
        warn_node(agent, "PoolOverlaps", message);
    }
    said.0 = found;
}
