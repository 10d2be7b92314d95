//! A process that is measured: our data plane by itself, or the floor. Prints one line of JSON.
//!
//! A process of its own, because memory and processor time are counted by process, and what one run leaves behind in the
//! allocator would be the next one's.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use portolan_apply::{
    ServiceEvent::{RemoveService, SetService, SetSlice},
    ServicePlane,
};
use portolan_nft::{Kernel, Nft as _};
use portolan_services::{Gathered, Services, ServicesConfig};
use serde_json::json;

use super::{
    cost::processor,
    objects::{self, Size, all, name, service, slices},
};

/// The first word of the command line that asks for it.
pub(crate) const WORD: &str = "--services-child";
/// Changes that are made one after the other.
const CHANGES: u32 = 200;

/// Does what the words say: `plane` or `floor`, Services, endpoints of each.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let number = |at: usize| words.get(at).and_then(|word| word.parse().ok()).context("a number is missing");
    let size = Size { services: number(1)?, endpoints: number(2)? };
    let said = match words.first().map(String::as_str) {
        Some("plane") => plane(size)?,
        Some("floor") => floor(size)?,
        other => bail!("{other:?} is nothing that can be measured"),
    };
    println!("{said}");
    Ok(())
}

fn floor(size: Size) -> Result<serde_json::Value> {
    let (services, slices) = all(size);
    let creation = Services::load(ServicesConfig::default(), services, slices)?.ruleset().creation();
    let mut nft = Kernel::open()?;
    let before = processor(std::process::id());
    let start = Instant::now();
    nft.run(&creation)?;
    let wall = start.elapsed();
    Ok(json!({ "wall": micros(wall), "processor": micros(processor(std::process::id()) - before) }))
}

/// All objects, as they are when the last of a list has come.
fn gathered(size: Size) -> Gathered {
    let (services, slices) = all(size);
    let mut gathered = Gathered::default();
    slices.into_iter().for_each(|slice| gathered.set_slice(slice));
    services.into_iter().for_each(|service| gathered.set_service(service));
    gathered
}

fn plane(size: Size) -> Result<serde_json::Value> {
    let objects = gathered(size);
    let before = processor(std::process::id());
    let start = Instant::now();
    let plane = ServicePlane::start_with(ServicesConfig::default(), objects)?;
    let wall = start.elapsed();
    let used = processor(std::process::id()) - before;
    let peak = status("VmHWM:")?;
    let longest = plane.stats().longest_transaction;
    let (mut new, mut endpoint) = (Vec::new(), Vec::new());
    for round in 0..CHANGES {
        let n = size.services + round % 3;
        let events = std::iter::once(SetService(service(n))).chain(objects::slices(size, n).map(SetSlice));
        let events = events.collect();
        let start = Instant::now();
        plane.change(events)?;
        new.push(start.elapsed());
        plane.change(vec![RemoveService(name(n))])?;
    }
    for round in 0..CHANGES {
        let mut slice = objects::slices(size, 0).next().context("no slice")?;
        slice.endpoints.remove((round % 2) as usize);
        let start = Instant::now();
        plane.change(vec![SetSlice(slice)])?;
        endpoint.push(start.elapsed());
    }
    plane.change(self::slices(size, 0).map(SetSlice).collect())?;
    // Slices of Services that are gone.
    plane.change(
        (0..3)
            .flat_map(|n| self::slices(size, size.services + n))
            .map(|slice| portolan_apply::ServiceEvent::RemoveSlice(slice.name))
            .collect(),
    )?;
    let memory = status("VmRSS:")?;
    plane.leave();
    let objects = gathered(size);
    let start = Instant::now();
    let plane = ServicePlane::start_with(ServicesConfig::default(), objects)?;
    let again = start.elapsed();
    if plane.stats().transactions > 0 {
        bail!("a restart with unchanged state wrote {:?}", plane.stats());
    }
    plane.leave();
    Ok(json!({
        "wall": micros(wall), "processor": micros(used), "peak": peak, "memory": memory, "longest": micros(longest),
        "new": new.into_iter().map(micros).collect::<Vec<_>>(),
        "endpoint": endpoint.into_iter().map(micros).collect::<Vec<_>>(),
        "again": micros(again),
    }))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A field of this process's status, in bytes.
fn status(field: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("no status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
