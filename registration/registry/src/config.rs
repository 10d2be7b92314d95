//! What can be set about a registry.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use portolan_telemetry::metrics::Metrics;

use crate::admit::Anonymous;

/// Settings of a registry. `RegistryConfig::default()` is what `portolan up` uses on one machine.
#[derive(Clone)]
pub struct RegistryConfig {
    /// The name of this machine: the node of instances that do not say one.
    pub node: String,
    /// The lease of registrations that do not ask for one: 30 s.
    pub ttl: Duration,
    /// How long an instance whose lease ran out stays in the catalog as `expired`: 5 min.
    pub remove_after: Duration,
    /// The most instances: 100,000. One more is refused, so that nobody fills the memory.
    pub capacity: usize,
    /// The length of the change log: 8,192. A watcher that is further behind starts over from a snapshot.
    pub history: usize,
    /// Health checks at the same time: 512. A quarter of them is for instances whose last look failed, so that
    /// hosts that do not answer never keep the others waiting.
    pub checks: usize,
    /// Bearer token that lets callers write from anywhere; `None` leaves writing to this machine alone.
    pub token: Option<String>,
    /// Who registers itself without it, on listeners where that counts; nobody.
    pub anonymous: Anonymous,
    /// Whether an address is one of this machine's, asked at each registration.
    pub is_local: Arc<dyn Fn(IpAddr) -> bool + Send + Sync>,
    /// Where to count.
    pub metrics: Arc<Metrics>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            node: "localhost".to_owned(),
            ttl: Duration::from_secs(30),
            remove_after: Duration::from_secs(5 * 60),
            capacity: 100_000,
            history: 8192,
            checks: 512,
            token: None,
            anonymous: Anonymous::default(),
            is_local: Arc::new(|_| false),
            metrics: Arc::default(),
        }
    }
}

impl fmt::Debug for RegistryConfig {
    /// Without the token: settings are logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryConfig")
            .field("node", &self.node)
            .field("ttl", &self.ttl)
            .field("remove_after", &self.remove_after)
            .field("capacity", &self.capacity)
            .field("history", &self.history)
            .field("checks", &self.checks)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("anonymous", &self.anonymous)
            .finish_non_exhaustive()
    }
}
