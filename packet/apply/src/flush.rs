//! Deleting UDP connections that go to the wrong place, beside the owner.
//!
//! The kernel can only list all its connections, bucket by bucket: ten milliseconds for the usual 262,144 buckets even
//! when they are empty (`ctnetlink_dump_table`). A caller that adds a mapping does not wait for that. A thread of its own
//! lists them, once for all changes that came meanwhile, asks the owner which are stale by the plan as it is at that
//! moment, and deletes those. [`Flushes::wait`] tells when everything asked for so far has been looked at.

use std::{
    collections::HashSet,
    net::IpAddr,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use portolan_model::Protocol;
use portolan_netlink::{
    conntrack::{self, Conntrack, ConntrackError},
    route::{RouteError, Rtnl},
};
use portolan_plan::{Flow, PlanError, Touched};

use crate::{
    queue::{Command, Sender},
    stats::Shared,
};

/// So many flows are judged between two changes of mappings, which must not wait long.
const JUDGED_AT_ONCE: usize = 512;
/// Listing takes at most this part of a core's time.
const SHARE: u32 = 5;

/// What changes have touched since connections were looked at last.
pub(crate) trait Pending: Default {
    /// These and those.
    fn merge(&mut self, other: &Self);
    /// Whether nothing needs to be looked at.
    fn is_empty(&self) -> bool;
}

impl Pending for Touched {
    fn merge(&mut self, other: &Self) {
        self.merge(other);
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

/// What the owner has asked for, and what is done.
#[derive(Debug, Default)]
pub(crate) struct Flushes<T = Touched> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State<T> {
    pending: T,
    requested: u64,
    done: u64,
    stop: bool,
}

/// Why a look at the connections failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FlushError {
    #[error(transparent)]
    Conntrack(#[from] ConntrackError),
    #[error(transparent)]
    Addresses(#[from] RouteError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("the data plane has stopped")]
    Stopped,
}

impl<T: Pending> Flushes<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for flows of these ports to be looked at. Does not wait.
    pub(crate) fn request(&self, touched: &T) {
        if touched.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.pending.merge(touched);
        state.requested += 1;
        self.changed.notify_all();
    }

    /// The number of the last request.
    pub(crate) fn requested(&self) -> u64 {
        self.lock().requested
    }

    /// Waits until the request with this number is done; `false` if it is not within `patience`.
    pub(crate) fn wait(&self, number: u64, patience: Duration) -> bool {
        let state = self.lock();
        let waited =
            self.changed.wait_timeout_while(state, patience, |state| state.done < number && !state.stop);
        waited.unwrap_or_else(PoisonError::into_inner).0.done >= number
    }

    /// Ends the thread after what it does now.
    pub(crate) fn stop(&self) {
        self.lock().stop = true;
        self.changed.notify_all();
    }

    /// What was asked for since the last call, and the number of the last request in it; `None` to end.
    fn next(&self) -> Option<(T, u64)> {
        let state = self.lock();
        let mut state = self
            .changed
            .wait_while(state, |state| state.pending.is_empty() && !state.stop)
            .unwrap_or_else(PoisonError::into_inner);
        (!state.stop).then(|| (std::mem::take(&mut state.pending), state.requested))
    }

    /// Works until [`Flushes::stop`]: looks, and reports how many were deleted, or `None` for a look that failed.
    pub(crate) fn run(
        &self,
        mut look: impl FnMut(T) -> Result<u64, FlushError>,
        report: impl Fn(Option<u64>),
    ) {
        while let Some((touched, number)) = self.next() {
            let start = Instant::now();
            match look(touched) {
                Ok(0) => {}
                Ok(deleted) => {
                    tracing::debug!(deleted, took = ?start.elapsed(), "deleted stale connections");
                    report(Some(deleted));
                }
                Err(FlushError::Stopped) => break,
                Err(error) => {
                    tracing::warn!(%error, "stale UDP connections may remain until they are silent for two minutes");
                    report(None);
                }
            }
            let pause = start.elapsed() * (SHARE - 1);
            let mut state = self.lock();
            state.done = number;
            self.changed.notify_all();
            let rested = self.changed.wait_timeout_while(state, pause, |state| !state.stop);
            drop(rested);
        }
        self.stop();
    }
}

impl Flushes {
    /// Works for the owner of the mappings.
    pub(crate) fn run_for(&self, owner: &Sender, stats: &Shared) {
        self.run(
            |touched| flush(&Arc::new(touched), owner),
            |deleted| {
                let mut stats = stats.lock();
                match deleted {
                    Some(deleted) => stats.flows_deleted += deleted,
                    None => stats.failed_flushes += 1,
                }
            },
        );
    }
}

/// One look at all UDP connections; says how many were deleted.
fn flush(touched: &Arc<Touched>, owner: &Sender) -> Result<u64, FlushError> {
    delete_stale(&Conntrack::open()?, touched, |flows, local| {
        let (touched, local) = (Arc::clone(touched), Arc::clone(local));
        owner.ask(|reply| Command::Judge { flows, touched, local, reply }).map_err(|_| FlushError::Stopped)
    })
}

/// Lists the connections that were touched, has them judged, some at a time, and deletes those that are stale.
pub(crate) fn delete_stale(
    conntrack: &Conntrack,
    touched: &Touched,
    judge: impl FnMut(Vec<Flow>, &Arc<HashSet<IpAddr>>) -> Result<Vec<bool>, FlushError>,
) -> Result<u64, FlushError> {
    delete_judged_by(conntrack, Protocol::Udp, |flow| touched.contains(flow), judge)
}

/// Lists the connections of a protocol that `concerned` says yes to, has them judged, some at a time, and deletes those
/// for which the judge says yes.
pub(crate) fn delete_judged(
    protocol: Protocol,
    concerned: impl Fn(&Flow) -> bool,
    judge: impl FnMut(Vec<Flow>, &Arc<HashSet<IpAddr>>) -> Result<Vec<bool>, FlushError>,
) -> Result<u64, FlushError> {
    delete_judged_by(&Conntrack::open()?, protocol, concerned, judge)
}

fn delete_judged_by(
    conntrack: &Conntrack,
    protocol: Protocol,
    concerned: impl Fn(&Flow) -> bool,
    mut judge: impl FnMut(Vec<Flow>, &Arc<HashSet<IpAddr>>) -> Result<Vec<bool>, FlushError>,
) -> Result<u64, FlushError> {
    let filter = conntrack::Filter::protocol(protocol);
    let found = conntrack.flows(filter, |flow| concerned(&as_planned(flow)))?;
    if found.is_empty() {
        return Ok(0);
    }
    let addresses = Rtnl::open()?.addresses()?;
    let local: Arc<HashSet<IpAddr>> = Arc::new(addresses.iter().map(|address| address.net.addr()).collect());
    let mut deleted = 0;
    for chunk in found.chunks(JUDGED_AT_ONCE) {
        let stale = judge(chunk.iter().map(as_planned).collect(), &local)?;
        for (flow, _) in chunk.iter().zip(stale).filter(|(_, stale)| *stale) {
            deleted += u64::from(conntrack.delete(flow)?);
        }
    }
    Ok(deleted)
}

fn as_planned(flow: &conntrack::Flow) -> Flow {
    Flow {
        protocol: flow.protocol,
        client: flow.original.source,
        asked: flow.original.destination,
        server: flow.reply.source,
        seen: flow.reply.destination,
    }
}
