//! The health-check node ports of Services of `up`: as those of `portolan proxy`, answered by the same code.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use portolan_apply::ServicePlane;
use portolan_model::{ObjectName, Service, TrafficPolicy};
use portolan_services::NodePortAddresses;
use tokio::runtime::Handle;

use super::desired::Desired;
use crate::proxy::checks::{Check, Checks};

/// See the module.
pub(crate) struct Checked {
    checks: Checks,
    /// Whether what should be in the kernel is there.
    healthy: Arc<AtomicBool>,
    asked: BTreeMap<ObjectName, Check>,
    runtime: Handle,
}

impl Checked {
    pub(crate) fn new(runtime: Handle) -> Self {
        let healthy = Arc::new(AtomicBool::new(false));
        let known = Arc::clone(&healthy);
        let told = |name: &ObjectName, check: &Check, error: &std::io::Error| {
            let port = check.port;
            tracing::error!(service = %name, port, %error, "cannot open the health-check node port; trying again");
        };
        let checks = Checks::with(move || known.load(Ordering::Relaxed), told);
        Self { checks, healthy, asked: BTreeMap::new(), runtime }
    }

    /// Opens those that are asked for, closes all others, and tells what load balancers are to know.
    pub(crate) fn follow(&mut self, now: &Desired, plane: Option<&ServicePlane>, node: &str) {
        let asked = now.services.values().filter_map(|service| {
            let port = service.health_check_node_port?;
            let check = Check { port, uid: String::new(), local: local(now, service, node) };
            (service.external_policy == TrafficPolicy::Local).then(|| (service.name.clone(), check))
        });
        let asked: BTreeMap<ObjectName, Check> = asked.collect();
        if asked.is_empty() && self.asked.is_empty() {
            return;
        }
        let stats = plane.map(ServicePlane::stats);
        let healthy = stats.is_some_and(|stats| stats.pending == 0 && stats.last_error.is_none());
        self.healthy.store(healthy, Ordering::Relaxed);
        self.runtime.block_on(self.checks.set(&asked, &NodePortAddresses::All));
        self.asked = asked;
    }

    /// Closes all of them.
    pub(crate) fn close(mut self) {
        self.runtime.block_on(self.checks.set(&BTreeMap::new(), &NodePortAddresses::All));
    }
}

/// How many instances of this machine are ready: of the family of which there are more, as each has addresses of both.
fn local(now: &Desired, service: &Service, node: &str) -> usize {
    let of_family = |v6: bool| {
        let slices = now.slices.values().filter(|slice| slice.service == service.name);
        let endpoints = slices.flat_map(|slice| &slice.endpoints);
        let ready = endpoints.filter(|one| one.ready && one.node.as_deref() == Some(node));
        let addresses = ready.map(|one| one.address).filter(|address| address.is_ipv6() == v6);
        addresses.collect::<BTreeSet<_>>().len()
    };
    let families = service.cluster_addresses.iter().map(|address| address.is_ipv6());
    families.map(of_family).max().unwrap_or(0)
}
