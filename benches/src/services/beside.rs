//! Whole proxies that watch a real API server, one after the other on the same objects.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use portolan_cluster::Cluster;

use super::{
    Only, Step, affinity,
    alone::{megabytes, or_dash},
    change,
    cost::{self, Cost},
    etcd::Etcd,
    objects::{Size, slices, stored_address, stored_service, stored_slice},
    packets,
    place::Place,
    proxy::{NODE, PATIENCE, Running, Which, join, start},
    steps,
};
use crate::{
    Options,
    stats::show,
    table::{Table, thousands},
};

/// The cluster's name; nobody else has one of it.
const NAME: &str = "bench-services";

/// The API server may take so long to tell what was written.
const TOLD: Duration = Duration::from_secs(240);

/// A cluster that is taken down with the value.
struct Api(Cluster);

impl Drop for Api {
    fn drop(&mut self) {
        if let Err(error) = portolan_cluster::down(NAME, &|_| {}) {
            eprintln!("[{NAME} is not down: {error:#}]");
        }
    }
}

/// What is printed.
struct Tables {
    ready: Table,
    packets: Table,
    affinity: Table,
    changes: Table,
}

impl Tables {
    fn new() -> Self {
        Self {
            ready: Table::new(&[
                "Services × endpoints",
                "",
                "ready after",
                "of it the first write",
                "processor",
                "peak memory",
                "others waited, p99",
                "at most",
            ]),
            packets: Table::new(&[
                "Services × endpoints",
                "",
                "TCP connect",
                "p90",
                "p99",
                "connections per second",
            ]),
            affinity: Table::new(&[
                "endpoints",
                "",
                "a new client connects",
                "p99",
                "the same client again",
                "p99",
            ]),
            changes: Table::new(&[
                "Services × endpoints",
                "",
                "a new Service is served",
                "p99",
                "samples",
                "processor at 50 changes/s",
                "memory",
                "a change behind them",
            ]),
        }
    }

    fn text(&self) -> String {
        format!(
            "Whole proxies beside each other, each on a node of its own, started when the objects are in the API server:\n\
             ready when connections to ten Services, the last one among them, are made. The first write is what the\n\
             proxy says of it: from the end of the lists. Processor time and memory are those of the process and of what\n\
             it starts. Others wait: somebody on the same node begins a transaction of nftables every 2 ms. What takes\n\
             longer than {} is not waited for, and not tried with more Services.\n\n{}\n\
             First packets: a client beside the node connects to Services at random, each time from a fresh port; the\n\
             contenders take turns.\n\n{}\n\
             With affinity: each of {} clients, which have an address each, connects once, and then all of them once\n\
             more.\n\n{}\n\
             One change: from the moment in which etcd has a new Service and its slice until a client's first connection\n\
             is made, who tries every half millisecond; the API server is in this time. Then {} changes of endpoints per\n\
             second for {} s, and how long after the last one a new Service is served.\n\n{}",
            show(PATIENCE),
            self.ready.markdown(),
            self.packets.markdown(),
            thousands(affinity::CLIENTS.into()),
            self.affinity.markdown(),
            change::CHURN,
            change::CHURN_FOR.as_secs(),
            self.changes.markdown()
        )
    }
}

/// The tables.
pub(crate) fn measure(options: Options) -> Result<String> {
    let wanted = portolan_cluster::Options { nodes: 0, proxy: None, ..Default::default() };
    let api = Api(Cluster::up(NAME, wanted, &|line| eprintln!("[{line}]"))?);
    let cluster = &api.0;
    add_node(cluster)?;
    let etcd = Etcd::of(NAME);
    let mut tables = Tables::new();
    let mut slow: Vec<Which> = Vec::new();
    let mut there = Size { services: 0, endpoints: 2 };
    let only = Only::read();
    for step in steps(options) {
        let size = step.size;
        eprintln!("[services: {} × {} beside kube-proxy]", size.services, size.endpoints);
        write(cluster, &etcd, there, size)?;
        there = size;
        let mut ready = Vec::new();
        for which in Which::ALL.into_iter().filter(|which| !only.ours || *which == Which::Portolan) {
            let begun = Instant::now();
            if slow.contains(&which) && size.services > 100 {
                tables.ready.row(too_slow(size, which, None));
                continue;
            }
            match one(&step, which, cluster, &etcd, &mut tables) {
                Ok(Some(place)) => ready.push((which.heading(), place)),
                Ok(None) => slow.push(which),
                // What was seen of the others is worth to be told.
                Err(error) => {
                    eprintln!("[{} × {}: {}: {error:#}]", size.services, size.endpoints, which.heading())
                }
            }
            eprintln!("[{}: {:.0} s]", which.heading(), begun.elapsed().as_secs_f64());
        }
        if step.packets {
            packets::measure(&ready, size, &mut tables.packets);
        }
    }
    Ok(tables.text())
}

/// One contender on what is there: its place with the rules that it made, its process killed; `None` when it is not ready
/// in time.
fn one(
    step: &Step,
    which: Which,
    cluster: &Cluster,
    etcd: &Etcd,
    tables: &mut Tables,
) -> Result<Option<Place>> {
    let (size, heading) = (step.size, which.heading());
    let place = Place::new();
    join(&place, cluster);
    let begun = Instant::now();
    let mut running = start(which, &place, cluster)?;
    let watch = cost::Watch::start(running.process.pid(), &place.node)?;
    let took = wait(&place, size, begun, &mut running);
    let cost = watch.stop();
    let Some(took) = took? else {
        tables.ready.row(too_slow(size, which, Some(cost)));
        return Ok(None);
    };
    tables.ready.row([
        name(size),
        heading.clone(),
        show(took),
        or_dash(first_write(&place)),
        show(cost.processor),
        megabytes(cost.memory),
        show(cost.lock.p99),
        show(cost.lock.longest),
    ]);
    if step.affinity {
        affinity::measure(etcd, &place, &heading, &mut tables.affinity)?;
    }
    if step.changes {
        change::measure(etcd, &place, size, &running)?.row(&name(size), &heading, &mut tables.changes);
    }
    Ok(Some(place))
}

/// `5,000 × 2`.
pub(crate) fn name(size: Size) -> String {
    format!("{} × {}", thousands(size.services.into()), thousands(size.endpoints.into()))
}

fn too_slow(size: Size, which: Which, cost: Option<Cost>) -> [String; 8] {
    let dash = || "—".to_owned();
    [
        name(size),
        which.heading(),
        format!("> {}", show(PATIENCE)),
        dash(),
        cost.map_or_else(dash, |cost| show(cost.processor)),
        cost.map_or_else(dash, |cost| megabytes(cost.memory)),
        cost.map_or_else(dash, |cost| show(cost.lock.p99)),
        cost.map_or_else(dash, |cost| show(cost.lock.longest)),
    ]
}

fn add_node(cluster: &Cluster) -> Result<()> {
    let node = serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE },
    });
    cluster.apply(&node.to_string())?;
    let addresses = serde_json::json!({
        "status": { "addresses": [{ "type": "InternalIP", "address": "10.240.0.200" }, { "type": "Hostname", "address": NODE }] },
    });
    cluster.run_kubectl(&[
        "patch",
        "node",
        NODE,
        "--subresource=status",
        "--type=merge",
        "-p",
        &addresses.to_string(),
    ])?;
    Ok(())
}

/// How long the first write of everything took, as the proxy's metric says a moment after it serves.
fn first_write(place: &Place) -> Option<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        if let Some(took) = told_first_write(place) {
            return Some(took);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    None
}

fn told_first_write(place: &Place) -> Option<Duration> {
    let page = place.metrics()?;
    let sums =
        page.lines().filter(|line| line.starts_with("kubeproxy_sync_full_proxy_rules_duration_seconds_sum"));
    let seconds: Vec<f64> = sums.filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
    // kube-proxy has one for each version of IP, and they work beside each other.
    let longest = seconds.into_iter().fold(0.0, f64::max);
    (longest > 0.0).then(|| Duration::from_secs_f64(longest))
}

/// Makes the API server have these objects.
fn write(cluster: &Cluster, etcd: &Etcd, there: Size, wanted: Size) -> Result<()> {
    let first = if there.endpoints == wanted.endpoints && there.services <= wanted.services {
        there.services
    } else {
        for prefix in ["services/specs/default/s-", "endpointslices/default/s-", "ipaddresses/10.96.1"] {
            etcd.delete(&format!("/registry/{prefix}"))?;
        }
        0
    };
    let range = first..wanted.services;
    etcd.put(range.clone().map(stored_address))?;
    etcd.put(range.clone().flat_map(|n| slices(wanted, n).map(move |slice| stored_slice(&slice, n))))?;
    etcd.put(range.map(stored_service))?;
    told(cluster, etcd, wanted)
}

/// Waits until the API server has told its watchers everything that was written: of many deletions it does for a minute,
/// in which it would be measured instead of the proxies.
fn told(cluster: &Cluster, etcd: &Etcd, size: Size) -> Result<()> {
    let (n, mark) = (size.services - 1, format!("{size:?}"));
    let slice = slices(size, n).last().context("no slice")?;
    let marked = [
        ("/api/v1/namespaces/default/services", stored_service(n)),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", stored_slice(&slice, n)),
    ];
    for (list, (key, mut object)) in marked {
        object["metadata"]["annotations"] = serde_json::json!({ "mark": mark });
        etcd.put(std::iter::once((key, object.clone())))?;
        let name = object["metadata"]["name"].as_str().context("no name")?;
        // What watchers are told is what this version is answered from.
        let path = format!("{list}/{name}?resourceVersion=0");
        let begun = Instant::now();
        while !cluster.run_kubectl(&["get", "--raw", &path]).is_ok_and(|said| said.contains(&mark)) {
            ensure!(begun.elapsed() < TOLD, "the API server does not tell what is in etcd");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// Waits until the proxy serves; `None`: not in time.
fn wait(place: &Place, size: Size, begun: Instant, running: &mut Running) -> Result<Option<Duration>> {
    for n in (1..=10).rev().map(|tenth| (size.services * tenth).div_ceil(10) - 1) {
        loop {
            if place.reach(n, Duration::from_millis(200)).is_some() {
                break;
            }
            if begun.elapsed() > PATIENCE {
                return Ok(None);
            }
            if !running.process.is_running() {
                bail!("the proxy has ended: {}", running.process.stderr());
            }
        }
    }
    Ok(Some(begun.elapsed()))
}
