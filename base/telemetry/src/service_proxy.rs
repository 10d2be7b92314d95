//! The metrics of a service proxy: those of kube-proxy 1.36 by the same names (`pkg/proxy/metrics/metrics.go`), so that
//! dashboards and alerts go on, and those that it does not have.
//!
//! One transaction writes both families of addresses, so what kube-proxy has for each of its two proxiers is the same
//! number twice here.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// The families, as kube-proxy labels them.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// `ip_family`: IPv4 or IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct IpFamily {
    ip_family: &'static str,
}

/// `traffic_policy`: internal or external. `ip_family`: as above.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Policy {
    traffic_policy: &'static str,
    ip_family: &'static str,
}

/// `code`: the HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Code {
    code: u16,
}

type Seconds = Gauge<f64, std::sync::atomic::AtomicU64>;
type Histograms = Family<IpFamily, Histogram, fn() -> Histogram>;

/// All metrics of a service proxy.
#[derive(Debug)]
pub struct ServiceProxyMetrics {
    registry: Registry,
    sync: Histograms,
    full_sync: Histograms,
    partial_sync: Histograms,
    programming: Histograms,
    flush: Histograms,
    last_sync: Family<IpFamily, Seconds>,
    last_queued: Family<IpFamily, Seconds>,
    no_local: Family<Policy, Gauge>,
    sync_failures: Family<IpFamily, Counter>,
    cleanup_failures: Family<IpFamily, Counter>,
    flows_deleted: Family<IpFamily, Counter>,
    healthz: Family<Code, Counter>,
    livez: Family<Code, Counter>,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_pending`.
    pub endpoint_changes_pending: Gauge,
    /// `kubeproxy_sync_proxy_rules_endpoint_changes_total`.
    pub endpoint_changes: Counter,
    /// `kubeproxy_sync_proxy_rules_service_changes_pending`.
    pub service_changes_pending: Gauge,
    /// `kubeproxy_sync_proxy_rules_service_changes_total`.
    pub service_changes: Counter,
    /// `portolan_services`: Services that are known.
    pub services: Gauge,
    /// `portolan_services_transactions_total`: what the kernel was asked to change.
    pub transactions: Counter,
    /// `portolan_services_elements_total`: elements that came or went.
    pub elements: Counter,
    /// `portolan_services_longest_transaction_seconds`: so long nobody else could change a rule.
    pub longest_transaction: Seconds,
    /// `portolan_services_repairs_total`: times the table was brought back after others had changed it.
    pub repairs: Counter,
    /// `portolan_services_draining`: endpoints that are gone and have connections.
    pub draining: Gauge,
    /// `portolan_services_lists_total`: how often some kind was listed as a whole.
    pub lists: Counter,
}

impl ServiceProxyMetrics {
    /// Metrics at zero.
    pub fn new() -> Self {
        // 1 ms, doubled 14 times, as kube-proxy: what dashboards ask for.
        let latency: fn() -> Histogram =
            || Histogram::new((0..15).map(|power| 0.001 * f64::from(1_u32 << power)));
        let programming: fn() -> Histogram = || Histogram::new(programming_buckets());
        let mut metrics = Self {
            registry: Registry::default(),
            sync: Family::new_with_constructor(latency),
            full_sync: Family::new_with_constructor(latency),
            partial_sync: Family::new_with_constructor(latency),
            programming: Family::new_with_constructor(programming),
            flush: Family::new_with_constructor(latency),
            last_sync: Family::default(),
            last_queued: Family::default(),
            no_local: Family::default(),
            sync_failures: Family::default(),
            cleanup_failures: Family::default(),
            flows_deleted: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            endpoint_changes_pending: Gauge::default(),
            endpoint_changes: Counter::default(),
            service_changes_pending: Gauge::default(),
            service_changes: Counter::default(),
            services: Gauge::default(),
            transactions: Counter::default(),
            elements: Counter::default(),
            longest_transaction: Seconds::default(),
            repairs: Counter::default(),
            draining: Gauge::default(),
            lists: Counter::default(),
        };
        let mut registry = Registry::default();
        metrics.register_kube_proxys(registry.sub_registry_with_prefix("kubeproxy"));
        metrics.register_ours(registry.sub_registry_with_prefix("portolan"));
        metrics.registry = registry;
        // A rate of what has not happened yet is zero, not missing.
        for ip_family in FAMILIES {
            let family = IpFamily { ip_family };
            for counter in [&metrics.sync_failures, &metrics.cleanup_failures, &metrics.flows_deleted] {
                drop(counter.get_or_create(&family));
            }
        }
        metrics
    }

    fn register_kube_proxys(&self, r: &mut Registry) {
        r.register(
            "sync_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds",
            self.sync.clone(),
        );
        r.register(
            "sync_full_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for full resyncs",
            self.full_sync.clone(),
        );
        r.register(
            "sync_partial_proxy_rules_duration_seconds",
            "SyncProxyRules latency in seconds for partial resyncs",
            self.partial_sync.clone(),
        );
        r.register(
            "network_programming_duration_seconds",
            "In Cluster Network Programming Latency in seconds",
            self.programming.clone(),
        );
        r.register(
            "sync_proxy_rules_last_timestamp_seconds",
            "The last time proxy rules were successfully synced",
            self.last_sync.clone(),
        );
        r.register(
            "sync_proxy_rules_last_queued_timestamp_seconds",
            "The last time a sync of proxy rules was queued",
            self.last_queued.clone(),
        );
        r.register(
            "sync_proxy_rules_endpoint_changes_pending",
            "Pending proxy rules Endpoint changes",
            self.endpoint_changes_pending.clone(),
        );
        r.register(
            "sync_proxy_rules_endpoint_changes",
            "Cumulative proxy rules Endpoint changes",
            self.endpoint_changes.clone(),
        );
        r.register(
            "sync_proxy_rules_service_changes_pending",
            "Pending proxy rules Service changes",
            self.service_changes_pending.clone(),
        );
        r.register(
            "sync_proxy_rules_service_changes",
            "Cumulative proxy rules Service changes",
            self.service_changes.clone(),
        );
        r.register(
            "sync_proxy_rules_no_local_endpoints_total",
            "Number of services with a Local traffic policy and no endpoints",
            self.no_local.clone(),
        );
        r.register(
            "sync_proxy_rules_nftables_sync_failures",
            "Cumulative proxy nftables sync failures",
            self.sync_failures.clone(),
        );
        r.register(
            "sync_proxy_rules_nftables_cleanup_failures",
            "Cumulative proxy nftables cleanup failures",
            self.cleanup_failures.clone(),
        );
        r.register("proxy_healthz", "Cumulative proxy healthz HTTP status", self.healthz.clone());
        r.register("proxy_livez", "Cumulative proxy livez HTTP status", self.livez.clone());
        r.register(
            "conntrack_reconciler_sync_duration_seconds",
            "Latency of looking for stale connections in seconds",
            self.flush.clone(),
        );
        r.register(
            "conntrack_reconciler_deleted_entries",
            "Cumulative conntrack flows deleted by conntrack reconciler",
            self.flows_deleted.clone(),
        );
    }

    fn register_ours(&self, r: &mut Registry) {
        r.register("services", "Services that are known", self.services.clone());
        r.register("services_transactions", "Transactions that were written", self.transactions.clone());
        r.register("services_elements", "Elements of maps that came or went", self.elements.clone());
        r.register(
            "services_longest_transaction_seconds",
            "The longest time in which nobody else could change a rule",
            self.longest_transaction.clone(),
        );
        r.register(
            "services_repairs",
            "Times the table was brought back after others changed it",
            self.repairs.clone(),
        );
        r.register(
            "services_draining",
            "Endpoints that are gone and may have connections",
            self.draining.clone(),
        );
        r.register("services_lists", "Times some kind of object was listed as a whole", self.lists.clone());
    }

    /// A write of the rules has ended: at the start, after a repair, or of changes.
    pub fn synced(&self, took: Duration, full: bool, now: SystemTime) {
        for ip_family in FAMILIES {
            let family = IpFamily { ip_family };
            let of_kind = if full { &self.full_sync } else { &self.partial_sync };
            for histogram in [&self.sync, of_kind] {
                histogram.get_or_create(&family).observe(took.as_secs_f64());
            }
            self.last_sync.get_or_create(&family).set(unix(now));
        }
    }

    /// Changes were handed over to be written.
    pub fn queued(&self, now: SystemTime) {
        for ip_family in FAMILIES {
            self.last_queued.get_or_create(&IpFamily { ip_family }).set(unix(now));
        }
    }

    /// From the change of a Pod or Service to the kernel's word.
    pub fn programmed(&self, v4: bool, took: Duration) {
        let family = IpFamily { ip_family: FAMILIES[usize::from(!v4)] };
        self.programming.get_or_create(&family).observe(took.as_secs_f64());
    }

    /// A write of the rules has failed.
    pub fn sync_failed(&self) {
        for ip_family in FAMILIES {
            self.sync_failures.get_or_create(&IpFamily { ip_family }).inc();
        }
    }

    /// A look at the tracked connections has ended.
    pub fn flushed(&self, took: Duration) {
        for ip_family in FAMILIES {
            self.flush.get_or_create(&IpFamily { ip_family }).observe(took.as_secs_f64());
        }
    }

    /// So many tracked connections were deleted so far.
    pub fn set_flows_deleted(&self, total: u64) {
        for ip_family in FAMILIES {
            raise(&self.flows_deleted.get_or_create(&IpFamily { ip_family }), total);
        }
    }

    /// How many Services with this policy (`internal`, `external`) Local have no local endpoint.
    pub fn set_no_local(&self, traffic_policy: &'static str, v4: bool, count: usize) {
        let policy = Policy { traffic_policy, ip_family: FAMILIES[usize::from(!v4)] };
        self.no_local.get_or_create(&policy).set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An answer of `/healthz`.
    pub fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&Code { code }).inc();
    }

    /// An answer of `/livez`.
    pub fn livez(&self, code: u16) {
        self.livez.get_or_create(&Code { code }).inc();
    }

    /// All of them as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        if let Err(error) = text::encode(&mut out, &self.registry) {
            tracing::error!(%error, "cannot encode the metrics");
        }
        out
    }
}

impl Default for ServiceProxyMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Brings a counter to what somebody else has counted.
pub fn raise(counter: &Counter, total: u64) {
    counter.inc_by(total.saturating_sub(counter.get()));
}

/// 0.25, 0.5, every second to a minute, then wider, to five minutes.
fn programming_buckets() -> impl Iterator<Item = f64> {
    let seconds = (1..60).map(f64::from);
    let fives = (0..12).map(|step| 60.0 + 5.0 * f64::from(step));
    let halves = (0..7).map(|step| 120.0 + 30.0 * f64::from(step));
    [0.25, 0.5].into_iter().chain(seconds).chain(fives).chain(halves)
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// Lines of one metric whose labels are names, for a page of their own: there are as many as Services, and a collector
/// asks for them only if somebody wants that.
#[derive(Debug, Default)]
pub struct NamedMetrics(BTreeMap<&'static str, (&'static str, &'static str, String)>);

impl NamedMetrics {
    /// Adds a line. `name` is whole (`…_total` for a counter), `kind` is `gauge` or `counter`.
    pub fn add(
        &mut self,
        (name, kind, help): (&'static str, &'static str, &'static str),
        labels: &[(&str, &str)],
        value: i128,
    ) {
        let lines = &mut self.0.entry(name).or_insert_with(|| (kind, help, String::new())).2;
        let labels = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
        let labels = labels.collect::<Vec<_>>().join(",");
        let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
        // Writing to a String does not fail.
        let _ = writeln!(lines, "{name}{labels} {value}");
    }

    /// All of them as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        for (name, (kind, help, lines)) in &self.0 {
            let family = name.trim_end_matches("_total");
            let _ = write!(out, "# HELP {family} {help}.\n# TYPE {family} {kind}\n{lines}");
        }
        out.push_str("# EOF\n");
        out
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F40 of kube-proxy, word for word: alerts are written with them.
    #[test]
    fn the_metrics_of_kube_proxy_have_its_names() {
        let metrics = ServiceProxyMetrics::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        metrics.synced(Duration::from_millis(3), true, now);
        metrics.synced(Duration::from_millis(3), false, now);
        metrics.queued(now);
        metrics.programmed(true, Duration::from_millis(700));
        metrics.flushed(Duration::from_millis(2));
        metrics.set_flows_deleted(7);
        metrics.set_no_local("external", true, 2);
        metrics.healthz(200);
        metrics.livez(503);
        metrics.endpoint_changes.inc();
        let text = metrics.encode();
        for line in [
            "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"0.004\",ip_family=\"IPv4\"} 2",
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"} 1",
            "kubeproxy_sync_partial_proxy_rules_duration_seconds_bucket{le=\"16.384\",ip_family=\"IPv4\"} 1",
            "kubeproxy_network_programming_duration_seconds_bucket{le=\"1.0\",ip_family=\"IPv4\"} 1",
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"} 100.0",
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family=\"IPv6\"} 100.0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_pending 0",
            "kubeproxy_sync_proxy_rules_endpoint_changes_total 1",
            "kubeproxy_sync_proxy_rules_service_changes_pending 0",
            "kubeproxy_sync_proxy_rules_service_changes_total 0",
            "kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy=\"external\",ip_family=\"IPv4\"} 2",
            "kubeproxy_proxy_healthz_total{code=\"200\"} 1",
            "kubeproxy_proxy_livez_total{code=\"503\"} 1",
            "kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family=\"IPv4\"} 1",
            "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} 7",
            "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv4\"} 0",
            "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total{ip_family=\"IPv6\"} 0",
            "portolan_services 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in:\n{text}");
        }
    }

    #[test]
    fn names_are_escaped_and_families_come_once() {
        let mut named = NamedMetrics::default();
        let family = ("x_total", "counter", "What");
        named.add(family, &[("a", "b\"c")], 1);
        named.add(family, &[("a", "d")], 2);
        assert_eq!(
            named.encode(),
            "# HELP x What.\n# TYPE x counter\nx_total{a=\"b\\\"c\"} 1\nx_total{a=\"d\"} 2\n# EOF\n"
        );
    }
}
