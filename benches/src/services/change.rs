//! One change, and many: how long after etcd has it a client is served.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::{
    alone::{megabytes, or_dash},
    cost::{self, processor},
    etcd::Etcd,
    objects::{Size, slices, stored_service, stored_slice},
    place::Place,
    proxy::Running,
};
use crate::{stats::Samples, table::Table};

/// Changes that are timed, if [`BUDGET`] allows.
const CHANGES: u32 = 200;
/// How long the changes of one contender may take together.
const BUDGET: Duration = Duration::from_secs(25);
/// Changes in a second of steady churn.
pub(crate) const CHURN: u32 = 50;
/// For how long.
pub(crate) const CHURN_FOR: Duration = Duration::from_secs(15);
/// Nobody waits longer for one change.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen.
pub(crate) struct Changes {
    samples: Samples,
    processor: f64,
    memory: u64,
    behind: Option<Duration>,
}

impl Changes {
    /// Adds a row.
    pub(crate) fn row(&self, name: &str, heading: &str, table: &mut Table) {
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

/// Times changes, then makes many.
pub(crate) fn measure(etcd: &Etcd, place: &Place, size: Size, running: &Running) -> Result<Changes> {
    let mut samples = Samples::default();
    samples.begin_round();
    let begun = Instant::now();
    let mut last = size.services;
    // All endpoints answer that have an address in here.
    let end = (size.services + CHANGES).min((1 << 18) / size.endpoints - 2);
    while last < end && begun.elapsed() < BUDGET {
        let slices: Vec<_> = slices(size, last).collect();
        etcd.put(slices.iter().map(|slice| stored_slice(slice, last)).chain([stored_service(last)]))?;
        samples.add(place.reach(last, PATIENCE).context("a new Service is not served in a minute")?);
        last += 1;
    }
    // Then a Service whose endpoint goes and comes, so many times a second.
    let (process, start) = (running.process.pid(), Instant::now());
    let used = processor(process);
    let mut round = 0_u32;
    while start.elapsed() < CHURN_FOR {
        let some = size.services.min(500);
        let n = round % some;
        let mut slice = slices(size, n).next().context("no slice")?;
        slice.endpoints.truncate(slice.endpoints.len() - 1 + (round / some % 2) as usize);
        etcd.put(std::iter::once(stored_slice(&slice, n)))?;
        round += 1;
        let due = Duration::from_secs(1) * round / CHURN;
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    let spent = (processor(process) - used).as_secs_f64() / start.elapsed().as_secs_f64();
    let behind = {
        etcd.put(slices(size, last).map(|slice| stored_slice(&slice, last)).chain([stored_service(last)]))?;
        place.reach(last, PATIENCE)
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
