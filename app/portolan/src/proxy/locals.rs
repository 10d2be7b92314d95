//! Services with a policy of Local: how many of them have no endpoint here is a metric of kube-proxy's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use portolan_apply::ServicePlane;
use portolan_model::{ObjectName, Service, TrafficPolicy};
use portolan_telemetry::service_proxy::ServiceProxyMetrics;

/// Those that are known, by name.
#[derive(Debug, Default)]
pub(crate) struct Locals(Mutex<BTreeMap<ObjectName, Policies>>);

#[derive(Clone, Copy, Debug)]
struct Policies {
    internal: bool,
    external: bool,
    v4: bool,
    v6: bool,
}

impl Locals {
    pub(crate) fn note(&self, service: &Service) {
        let policies = Policies {
            internal: service.internal_policy == TrafficPolicy::Local,
            external: service.is_externally_local(),
            v4: service.cluster_addresses.iter().any(|address| address.is_ipv4()),
            v6: service.cluster_addresses.iter().any(|address| address.is_ipv6()),
        };
        if policies.internal || policies.external {
            self.lock().insert(service.name.clone(), policies);
        } else {
            self.lock().remove(&service.name);
        }
    }

    pub(crate) fn forget(&self, name: &ObjectName) {
        self.lock().remove(name);
    }

    /// Counts. Asks the owner of the rules, so it blocks for a moment.
    pub(crate) fn count(&self, plane: &ServicePlane, metrics: &ServiceProxyMetrics) {
        let known: Vec<_> = self.lock().iter().map(|(name, policies)| (name.clone(), *policies)).collect();
        let without = plane.inspect(move |services| {
            let without = known.into_iter().filter(|(name, _)| services.local_ready(name) == 0);
            without.map(|(_, policies)| policies).collect::<Vec<_>>()
        });
        let Ok(without) = without else { return };
        let count = |holds: fn(&Policies) -> bool| without.iter().filter(|one| holds(one)).count();
        metrics.set_no_local("internal", true, count(|one| one.internal && one.v4));
        metrics.set_no_local("internal", false, count(|one| one.internal && one.v6));
        metrics.set_no_local("external", true, count(|one| one.external && one.v4));
        metrics.set_no_local("external", false, count(|one| one.external && one.v6));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Policies>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
