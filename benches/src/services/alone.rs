//! Our data plane by itself, beside the floor.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use portolan_testkit::net::Namespace;
use serde_json::Value;

use super::{child, cost, objects::Size, sizes};
use crate::{
    Options,
    stats::{Samples, ratio, show},
    table::{Table, thousands},
};

/// How often the two take turns.
const ROUNDS: usize = 3;

/// The tables.
pub(crate) fn measure(options: Options) -> Result<String> {
    let mut table = Table::new(&[
        "Services × endpoints",
        "from nothing",
        "the floor",
        "against the floor",
        "processor",
        "others waited, p99",
        "at most",
        "peak memory",
        "restart, unchanged",
    ]);
    let mut changes =
        Table::new(&["Services × endpoints", "a new Service", "p99", "one endpoint goes", "p99", "memory"]);
    for size in sizes(options) {
        eprintln!("[services: {} × {} alone]", size.services, size.endpoints);
        let mut seen = Seen::default();
        for _ in 0..if options.is_quick() { 1 } else { ROUNDS } {
            seen.round(size)?;
        }
        let name = format!("{} × {}", thousands(size.services.into()), thousands(size.endpoints.into()));
        table.row([
            name.clone(),
            seen.plane.median_and_spread(),
            seen.floor.median_and_spread(),
            ratio(&seen.floor, &seen.plane),
            seen.processor.median_and_spread(),
            show(seen.lock.p99),
            show(seen.lock.longest),
            megabytes(seen.peak),
            seen.again.median_and_spread(),
        ]);
        changes.row([
            name,
            seen.new.median_and_spread(),
            seen.new.p99(),
            seen.endpoint.median_and_spread(),
            seen.endpoint.p99(),
            megabytes(seen.memory),
        ]);
    }
    Ok(format!(
        "## Services\n\n\
         The data plane by itself, in a process of its own: from the last object of the lists to all Services in the\n\
         kernel, in transactions of which none keeps others from changing rules for long. The floor is the same elements, made\n\
         beforehand, in one netlink transaction, for whose whole time nobody else can change or list a rule. Others\n\
         wait: somebody in the same network namespace begins a transaction every 2 ms meanwhile. A restart compares\n\
         everything and writes nothing.\n\n{}\n\
         One change, while as many Services are there: from the event to the kernel's answer.\n\n{}",
        table.markdown(),
        changes.markdown()
    ))
}

#[derive(Default)]
struct Seen {
    plane: Samples,
    floor: Samples,
    processor: Samples,
    lock: cost::Lock,
    again: Samples,
    new: Samples,
    endpoint: Samples,
    peak: u64,
    memory: u64,
}

impl Seen {
    fn round(&mut self, size: Size) -> Result<()> {
        let samples = [
            &mut self.plane,
            &mut self.floor,
            &mut self.processor,
            &mut self.again,
            &mut self.new,
            &mut self.endpoint,
        ];
        samples.into_iter().for_each(Samples::begin_round);
        let (floor, _) = run("floor", size)?;
        self.floor.add(time(&floor["wall"])?);
        let (plane, lock) = run("plane", size)?;
        self.plane.add(time(&plane["wall"])?);
        self.processor.add(time(&plane["processor"])?);
        self.lock.longest = self.lock.longest.max(lock.longest);
        self.lock.p99 = self.lock.p99.max(lock.p99);
        self.again.add(time(&plane["again"])?);
        for (samples, key) in [(&mut self.new, "new"), (&mut self.endpoint, "endpoint")] {
            for one in plane[key].as_array().context("no times")? {
                samples.add(time(one)?);
            }
        }
        self.peak = self.peak.max(plane["peak"].as_u64().unwrap_or(0));
        self.memory = self.memory.max(plane["memory"].as_u64().unwrap_or(0));
        Ok(())
    }
}

fn time(value: &Value) -> Result<Duration> {
    value.as_u64().map(Duration::from_micros).with_context(|| format!("{value} is no time"))
}

/// Runs a child in a namespace of its own.
fn run(what: &str, size: Size) -> Result<(Value, cost::Lock)> {
    let node = Namespace::new();
    let knocks = cost::Knocks::start(&node)?;
    let program = std::env::current_exe().context("who am I?")?;
    let mut command = node.command(&program.to_string_lossy());
    command.args([child::WORD, what, &size.services.to_string(), &size.endpoints.to_string()]);
    let output = command.output();
    let lock = knocks.stop();
    let output = output.context("cannot start a child")?;
    if !output.status.success() {
        bail!("{what} {size:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok((serde_json::from_slice(&output.stdout)?, lock))
}

/// `1.5 MB`.
pub(crate) fn megabytes(bytes: u64) -> String {
    if bytes == 0 {
        return "—".to_owned();
    }
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// A time, or a dash.
pub(crate) fn or_dash(time: Option<Duration>) -> String {
    time.map_or("—".to_owned(), show)
}
