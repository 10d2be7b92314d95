//! Whole proxies that watch a real API server, one after the other on the same objects.

use std::{
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use portolan_cluster::Cluster;

use super::{
    alone::{megabytes, or_dash},
    cost::{self, Cost, processor},
    etcd::Etcd,
    objects::{
        PORT, Size, TARGET, cluster_address, endpoint_address, slices, stored_address, stored_service,
        stored_slice,
    },
    place::Place,
    proxy::{NODE, PATIENCE, Running, Which, join, start},
    sizes,
};
use crate::{
    Options,
    stats::{Samples, show},
    table::{Table, thousands},
};

/// The cluster's name; nobody else has one of it.
const NAME: &str = "bench-services";
/// First packets that are timed.
const CONNECTIONS: u32 = 2_000;
/// How long connections are made as fast as they can be.
const RATE: Duration = Duration::from_secs(3);
/// Changes that are timed, if [`BUDGET`] allows.
const CHANGES: u32 = 100;
/// How long the changes of one contender may take together.
const BUDGET: Duration = Duration::from_secs(25);
/// Changes in a second of steady churn, and for how long.
const CHURN: u32 = 50;
const CHURN_FOR: Duration = Duration::from_secs(15);

/// A cluster that is taken down with the value.
struct Api(Cluster);

impl Drop for Api {
    fn drop(&mut self) {
        if let Err(error) = portolan_cluster::down(NAME, &|_| {}) {
            eprintln!("[{NAME} is not down: {error:#}]");
        }
    }
}

/// The tables.
pub(crate) fn measure(options: Options) -> Result<String> {
    let wanted = portolan_cluster::Options { nodes: 0, proxy: None, ..Default::default() };
    let api = Api(Cluster::up(NAME, wanted, &|line| eprintln!("[{line}]"))?);
    let cluster = &api.0;
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

    let etcd = Etcd::of(NAME);
    let mut ready =
        Table::new(&["Services × endpoints", "", "ready after", "processor", "peak memory", "longest lock"]);
    let mut packets =
        Table::new(&["Services × endpoints", "", "TCP connect", "p90", "p99", "connections per second"]);
    let mut changes = Table::new(&[
        "Services × endpoints",
        "",
        "a new Service is served",
        "p99",
        "samples",
        "processor at 50 changes/s",
        "memory",
        "behind at the end",
    ]);
    let mut slow: Vec<Which> = Vec::new();
    let mut there = Size { services: 0, endpoints: 2 };
    for size in sizes(options) {
        eprintln!("[services: {} × {} beside kube-proxy]", size.services, size.endpoints);
        write(&etcd, there, size)?;
        there = size;
        let name = format!("{} × {}", thousands(size.services.into()), thousands(size.endpoints.into()));
        for which in Which::ALL {
            let heading = which.heading();
            if slow.contains(&which) && size.services > 100 {
                ready.row([name.clone(), heading, format!("> {}", show(PATIENCE)), dash(), dash(), dash()]);
                continue;
            }
            let place = Place::new();
            join(&place, cluster);
            let begun = Instant::now();
            let mut running = start(which, &place, cluster)?;
            let watch = cost::Watch::start(running.process.pid(), &place.node)?;
            let took = wait(&place, size, begun, &mut running);
            let Cost { processor, memory, lock } = watch.stop();
            let Some(took) = took? else {
                slow.push(which);
                ready.row([
                    name.clone(),
                    heading,
                    format!("> {}", show(PATIENCE)),
                    show(processor),
                    megabytes(memory),
                    show(lock),
                ]);
                continue;
            };
            ready.row([
                name.clone(),
                heading.clone(),
                show(took),
                show(processor),
                megabytes(memory),
                show(lock),
            ]);
            first_packets(&place, size, |n| SocketAddr::from((cluster_address(n), PORT))).row(
                &name,
                &heading,
                &mut packets,
            );
            if which == Which::Portolan {
                first_packets(&place, size, |n| SocketAddr::from((endpoint_address(size, n, 0), TARGET)))
                    .row(&name, "no Service: the endpoint's own address", &mut packets);
            }
            change(&etcd, &place, size, &running)?.row(&name, &heading, &mut changes);
        }
    }
    Ok(format!(
        "Whole proxies beside each other, each on a node of its own, started when the objects are in the API server:\n\
         ready when connections to ten Services, the last one among them, are made. Processor time and memory are\n\
         those of the process and of what it starts. The lock: the longest that another program waited to change a\n\
         rule. What takes longer than {} is not waited for.\n\n{}\n\
         First packets: a client beside the node connects to Services at random, each time from a fresh port.\n\n{}\n\
         One change: from the moment in which etcd has a new Service and its slice until a client's first connection\n\
         is made; then {CHURN} changes of endpoints per second for {} s, and how long after the last one it is\n\
         served.\n\n{}",
        show(PATIENCE),
        ready.markdown(),
        packets.markdown(),
        CHURN_FOR.as_secs(),
        changes.markdown()
    ))
}

fn dash() -> String {
    "—".to_owned()
}

/// Makes the API server have these objects.
fn write(etcd: &Etcd, there: Size, wanted: Size) -> Result<()> {
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
    // What reads lists has to have seen the last of them.
    std::thread::sleep(Duration::from_secs(2));
    Ok(())
}

/// Waits until the proxy serves; `None`: not in time.
fn wait(place: &Place, size: Size, begun: Instant, running: &mut Running) -> Result<Option<Duration>> {
    for n in (1..=10).rev().map(|tenth| size.services * tenth / 10 - 1) {
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

struct Packets {
    samples: Samples,
    rate: f64,
}

impl Packets {
    fn row(&self, name: &str, heading: &str, table: &mut Table) {
        table.row([
            name.to_owned(),
            heading.to_owned(),
            or_dash(self.samples.percentile(50.0)),
            or_dash(self.samples.percentile(90.0)),
            or_dash(self.samples.percentile(99.0)),
            thousands(self.rate as u64),
        ]);
    }
}

fn first_packets(place: &Place, size: Size, target: impl Fn(u32) -> SocketAddr + Sync) -> Packets {
    place.client.run(|| {
        let mut samples = Samples::default();
        samples.begin_round();
        let mut number = 12_345_u32;
        let mut next = || {
            // Any sequence does that visits all Services (Numerical Recipes, "quick and dirty" generator).
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (number >> 8) % size.services
        };
        for _ in 0..CONNECTIONS {
            let target = target(next());
            let _ = samples.time(|| TcpStream::connect_timeout(&target, Duration::from_secs(2)));
        }
        let (start, mut made) = (Instant::now(), 0_u32);
        while start.elapsed() < RATE {
            made += u32::from(TcpStream::connect_timeout(&target(next()), Duration::from_secs(2)).is_ok());
        }
        Packets { samples, rate: f64::from(made) / start.elapsed().as_secs_f64() }
    })
}

struct Changes {
    samples: Samples,
    processor: f64,
    memory: u64,
    behind: Option<Duration>,
}

impl Changes {
    fn row(&self, name: &str, heading: &str, table: &mut Table) {
        table.row([
            name.to_owned(),
            heading.to_owned(),
            self.samples.median_and_spread(),
            or_dash(self.samples.percentile(99.0)),
            self.samples.count().to_string(),
            format!("{:.0} %", self.processor * 100.0),
            megabytes(self.memory),
            or_dash(self.behind),
        ]);
    }
}

fn change(etcd: &Etcd, place: &Place, size: Size, running: &Running) -> Result<Changes> {
    let mut samples = Samples::default();
    samples.begin_round();
    let begun = Instant::now();
    let mut last = size.services;
    while last - size.services < CHANGES && begun.elapsed() < BUDGET {
        let slices: Vec<_> = slices(size, last).collect();
        etcd.put(slices.iter().map(|slice| stored_slice(slice, last)).chain([stored_service(last)]))?;
        samples.add(
            place.reach(last, Duration::from_secs(60)).context("a new Service is not served in a minute")?,
        );
        last += 1;
    }
    // Then a Service whose endpoint goes and comes, so many times a second.
    let (process, start) = (running.process.pid(), Instant::now());
    let used = processor(process);
    let mut round = 0_u32;
    while start.elapsed() < CHURN_FOR {
        let n = round % size.services.min(500);
        let mut slice = slices(size, n).next().context("no slice")?;
        slice.endpoints.truncate(1 + (round / 500 % 2) as usize);
        etcd.put(std::iter::once(stored_slice(&slice, n)))?;
        round += 1;
        let due = Duration::from_secs(1) * round / CHURN;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let spent = (processor(process) - used).as_secs_f64() / start.elapsed().as_secs_f64();
    let behind = {
        etcd.put(slices(size, last).map(|slice| stored_slice(&slice, last)).chain([stored_service(last)]))?;
        place.reach(last, Duration::from_secs(60))
    };
    let memory = cost::memory(process);
    for n in size.services..=last {
        etcd.delete_one(&format!("/registry/services/specs/default/s-{n}"))?;
        etcd.delete(&format!("/registry/endpointslices/default/s-{n}-"))?;
    }
    etcd.put(
        (0..size.services.min(500)).flat_map(|n| slices(size, n).map(move |slice| stored_slice(&slice, n))),
    )?;
    Ok(Changes { samples, processor: spent, memory, behind })
}
