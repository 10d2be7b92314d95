//! Connections that go to the wrong place, beside the owner.
//!
//! A UDP client that keeps its port keeps its endpoint, also one that is long gone: 13 hours in kubernetes#139628, where
//! nothing was left to go to. kube-proxy lists all connections of a family and looks at them while its changes wait
//! (kubernetes#135323); here a thread of its own lists the UDP ones, once for all changes that came meanwhile, and the
//! owner judges a few hundred at a time. TCP connections end by themselves, unless their Service wants them ended.

use std::{sync::Arc, time::Instant};

use portolan_model::Protocol;
use portolan_services::{Gone, Touched};

use super::{drain::is_of, queue::Command, stats::Shared};
use crate::{
    flush::{FlushError, Flushes, Pending, delete_judged},
    queue::Sender,
};

/// What is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    /// UDP, by frontend.
    pub(crate) touched: Touched,
    /// TCP, by endpoint: those that are still there have been silent.
    pub(crate) silent: Vec<Gone>,
}

impl Suspects {
    /// Everything that was led anywhere.
    pub(crate) fn everything() -> Self {
        Touched::everything().into()
    }
}

impl From<Touched> for Suspects {
    fn from(touched: Touched) -> Self {
        Self { touched, silent: Vec::new() }
    }
}

impl Pending for Suspects {
    fn merge(&mut self, other: &Self) {
        self.touched.merge(&other.touched);
        self.silent.extend_from_slice(&other.silent);
    }

    fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.silent.is_empty()
    }
}

/// Works until the owner ends.
pub(super) fn run(flushes: &Flushes<Suspects>, owner: &Sender<Command>, shared: &Shared) {
    flushes.run(
        |suspects| {
            let start = Instant::now();
            let result = delete_stale(suspects, owner);
            shared.lock().last_flush = start.elapsed();
            result
        },
        |deleted| {
            let mut stats = shared.lock();
            match deleted {
                Some(deleted) => stats.flows_deleted += deleted,
                None => stats.failed_flushes += 1,
            }
        },
    );
}

fn delete_stale(suspects: Suspects, owner: &Sender<Command>) -> Result<u64, FlushError> {
    let Suspects { touched, silent } = suspects;
    let mut deleted = 0;
    if !touched.is_empty() {
        let touched = Arc::new(touched);
        deleted += delete_judged(
            Protocol::Udp,
            |flow| touched.contains(flow),
            |flows, local| {
                let (touched, local) = (Arc::clone(&touched), Arc::clone(local));
                owner
                    .ask(|reply| Command::Judge { flows, touched, local, reply })
                    .map_err(|_| FlushError::Stopped)
            },
        )?;
    }
    if !silent.is_empty() {
        let ended = |flow: &_| silent.iter().any(|gone| is_of(gone, flow));
        deleted += delete_judged(Protocol::Tcp, ended, |flows, _| Ok(vec![true; flows.len()]))?;
    }
    Ok(deleted)
}
