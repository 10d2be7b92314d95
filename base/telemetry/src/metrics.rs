//! Every metric: its name, its unit, its labels and what values they take.
//!
//! Labels are bounded: a state, a route, a code, a pool of the configuration. A name of an instance or an address
//! is never a label of a metric that is kept, because a time series for each would outlive it. What is read anew for
//! each scrape ([`PortTraffic`]) may have them: it ends with the instance.

mod ports;

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

pub use self::ports::{PortTraffic, Traffic};

/// The content type of [`Metrics::encode`] (OpenMetrics 1.0.0, "Overall Structure").
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `state`: unknown, passing, warning, critical, expired.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

/// `result`: a word of the code that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// `path`: the route as the program names it, never the path of a request. `code`: the HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reply {
    path: String,
    code: u16,
}

/// `pool`: a pool of the configuration. `state`: free, used or quarantined.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolState {
    pool: String,
    state: &'static str,
}

/// `pool`: a pool of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PoolName {
    pool: String,
}

/// `verb`: add, del, check, gc, status or ports. `result`: done, or a word for why not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    verb: &'static str,
    result: &'static str,
}

/// `verb`: as in [`Asked`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verb {
    verb: &'static str,
}

/// `rcode`: the mnemonic of an answer's code, such as NOERROR (RFC 6895 section 2.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseCode {
    rcode: &'static str,
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    instances: Family<State, Gauge>,
    registrations: Family<Outcome, Counter>,
    health_checks: Family<Outcome, Counter>,
    api_requests: Family<Reply, Counter>,
    dns_queries: Family<ResponseCode, Counter>,
    ports: Family<PoolState, Gauge>,
    largest_block: Family<PoolName, Gauge>,
    cni_requests: Family<Asked, Counter>,
    cni_duration: Family<Verb, Histogram, fn() -> Histogram>,
    /// `portolan_evictions_total`: instances whose lease ran out.
    pub evictions: Counter,
    /// `portolan_watchers`: watches and long polls that are waiting.
    pub watchers: Gauge,
    /// `portolan_port_leases`: leases of host ports.
    pub port_leases: Gauge,
    /// `portolan_mappings`: mappings in the data plane.
    pub mappings: Gauge,
    /// `portolan_ports_unheld`: leases with a port that another process has, so that it is not held.
    pub unheld: Gauge,
    /// `portolan_pool_overlaps`: ports of pools that somebody else uses too.
    pub pool_overlaps: Gauge,
    /// `portolan_dataplane_repairs_total`: times the kernel's table was not what it should be.
    pub dataplane_repairs: Counter,
    /// `portolan_dataplane_commit_seconds`: from a change of the mappings to the kernel's word that it is done.
    pub dataplane_commit: Histogram,
}

impl Metrics {
    /// Metrics at zero. `version` is that of the program, for `portolan_build_info`.
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("portolan");
        let metrics = Self {
            instances: Family::default(),
            registrations: Family::default(),
            health_checks: Family::default(),
            api_requests: Family::default(),
            dns_queries: Family::default(),
            ports: Family::default(),
            largest_block: Family::default(),
            cni_requests: Family::default(),
            // From a change of some elements to a wait for the API server.
            cni_duration: Family::new_with_constructor(|| {
                Histogram::new([5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 1e-1, 5e-1, 1.0, 5.0])
            }),
            unheld: Gauge::default(),
            pool_overlaps: Gauge::default(),
            evictions: Counter::default(),
            watchers: Gauge::default(),
            port_leases: Gauge::default(),
            mappings: Gauge::default(),
            dataplane_repairs: Counter::default(),
            // A commit takes from 4 µs (one element) to a second (everything): half a decade a bucket.
            dataplane_commit: Histogram::new([
                5e-6, 1e-5, 5e-5, 1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, 5e-1, 1.0, 5.0,
            ]),
            registry: Registry::default(),
        };
        let r = &mut registry;
        r.register("build", "The program", Info::new(vec![("version", version.to_owned())]));
        r.register("instances", "Instances in the catalog", metrics.instances.clone());
        r.register("registrations", "Registrations by what became of them", metrics.registrations.clone());
        r.register("health_checks", "Looks at instances by what they saw", metrics.health_checks.clone());
        r.register("evictions", "Instances whose lease ran out", metrics.evictions.clone());
        r.register("watchers", "Watches and long polls that are waiting", metrics.watchers.clone());
        r.register("api_requests", "Requests to the HTTP listeners", metrics.api_requests.clone());
        r.register("dns_queries", "DNS queries by the code of the answer", metrics.dns_queries.clone());
        r.register("ports", "Host ports of a pool", metrics.ports.clone());
        r.register(
            "pool_largest_block",
            "The longest run of free ports of a pool",
            metrics.largest_block.clone(),
        );
        r.register(
            "cni_requests",
            "What the CNI plugin asked by what became of it",
            metrics.cni_requests.clone(),
        );
        r.register_with_unit(
            "cni_duration",
            "From a question of the CNI plugin to its answer",
            Unit::Seconds,
            metrics.cni_duration.clone(),
        );
        r.register(
            "ports_unheld",
            "Leases with a port that another process has, so that it is not held",
            metrics.unheld.clone(),
        );
        r.register(
            "pool_overlaps",
            "Ports of pools that somebody else uses too",
            metrics.pool_overlaps.clone(),
        );
        r.register("port_leases", "Leases of host ports", metrics.port_leases.clone());
        r.register("mappings", "Mappings in the data plane", metrics.mappings.clone());
        r.register(
            "dataplane_repairs",
            "Times the kernel's table was not what it should be",
            metrics.dataplane_repairs.clone(),
        );
        r.register_with_unit(
            "dataplane_commit",
            "From a change of the mappings to the kernel's word that it is done",
            Unit::Seconds,
            metrics.dataplane_commit.clone(),
        );
        Self { registry, ..metrics }
    }

    /// Sets `portolan_instances`.
    pub fn set_instances(&self, state: &'static str, count: usize) {
        self.instances.get_or_create(&State { state }).set(gauge(count));
    }

    /// Counts a registration: `result` is added, replaced, updated, unchanged or why it was refused.
    pub fn registration(&self, result: &'static str) {
        self.registrations.get_or_create(&Outcome { result }).inc();
    }

    /// Counts a look at an instance: `result` is pass, warn, fail or timeout.
    pub fn health_check(&self, result: &'static str) {
        self.health_checks.get_or_create(&Outcome { result }).inc();
    }

    /// Counts a request. `path` is the route (`/v1/instances/{name}`), not what the client asked for.
    pub fn api_request(&self, path: &str, code: u16) {
        self.api_requests.get_or_create(&Reply { path: path.to_owned(), code }).inc();
    }

    /// Counts a DNS query. `rcode` is the mnemonic of the answer's code.
    pub fn dns_query(&self, rcode: &'static str) {
        self.dns_queries.get_or_create(&ResponseCode { rcode }).inc();
    }

    /// Sets `portolan_ports` of a pool.
    pub fn set_ports(&self, pool: &str, free: usize, used: usize, quarantined: usize) {
        for (state, count) in [("free", free), ("used", used), ("quarantined", quarantined)] {
            self.ports.get_or_create(&PoolState { pool: pool.to_owned(), state }).set(gauge(count));
        }
    }

    /// Sets `portolan_pool_largest_block`.
    pub fn set_largest_block(&self, pool: &str, count: usize) {
        self.largest_block.get_or_create(&PoolName { pool: pool.to_owned() }).set(gauge(count));
    }

    /// Counts a question of the CNI plugin. `result` is done, or a word of the code for why not.
    pub fn cni(&self, verb: &'static str, result: &'static str, took: Duration) {
        self.cni_requests.get_or_create(&Asked { verb, result }).inc();
        self.cni_duration.get_or_create(&Verb { verb }).observe(took.as_secs_f64());
    }

    /// All of them as OpenMetrics text, of type [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            // Writing to a String fails only if a metric's own encoding does: a scrape without an end marker is
            // an error to the collector, and the log says why.
            tracing::error!(%error, "cannot encode the metrics");
        }
        out
    }
}

impl Metrics {
    /// The same, and what came by these ports.
    pub fn encode_with(&self, ports: &[PortTraffic]) -> String {
        let mut text = self.encode();
        // The end marker comes last (OpenMetrics 1.0.0, "Overall Structure").
        let end = "# EOF\n";
        if text.ends_with(end) {
            text.truncate(text.len() - end.len());
            ports::write(ports, &mut text);
            text.push_str(end);
        }
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(env!("CARGO_PKG_VERSION"))
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_the_name_that_the_documents_promise() {
        let metrics = Metrics::new("1.2.3");
        metrics.set_instances("passing", 2);
        metrics.registration("added");
        metrics.health_check("pass");
        metrics.api_request("/v1/instances", 200);
        metrics.dns_query("NOERROR");
        metrics.set_ports("default", 9_999, 1, 0);
        metrics.set_largest_block("default", 9_000);
        metrics.cni("add", "done", Duration::from_millis(2));
        metrics.evictions.inc();
        metrics.dataplane_repairs.inc();
        metrics.dataplane_commit.observe(0.000_02);
        let text = metrics.encode();
        for line in [
            "portolan_build_info{version=\"1.2.3\"} 1",
            "portolan_instances{state=\"passing\"} 2",
            "portolan_registrations_total{result=\"added\"} 1",
            "portolan_health_checks_total{result=\"pass\"} 1",
            "portolan_api_requests_total{path=\"/v1/instances\",code=\"200\"} 1",
            "portolan_evictions_total 1",
            "portolan_ports{pool=\"default\",state=\"free\"} 9999",
            "portolan_pool_largest_block{pool=\"default\"} 9000",
            "portolan_cni_requests_total{verb=\"add\",result=\"done\"} 1",
            "portolan_cni_duration_seconds_bucket{le=\"0.0025\",verb=\"add\"} 1",
            "portolan_ports_unheld 0",
            "portolan_pool_overlaps 0",
            "portolan_port_leases 0",
            "portolan_mappings 0",
            "portolan_watchers 0",
            "portolan_dataplane_repairs_total 1",
            "portolan_dataplane_commit_seconds_bucket{le=\"0.00005\"} 1",
            "portolan_dns_queries_total{rcode=\"NOERROR\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in:\n{text}");
        }
    }
}
