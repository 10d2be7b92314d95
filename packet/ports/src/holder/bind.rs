//! Binding many ports at once.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use portolan_model::Protocol;
use rustix::thread::{Pid, gettid, sched_getaffinity, sched_getcpu, sched_setaffinity};

use super::wire::Failure;
use crate::hold;

/// Conflicts that are told at once: enough to choose a better block the next time.
const FAILURES: usize = 256;
/// So many ports take a millisecond: they are worth a second thread.
pub(super) const MANY: usize = 256;
/// Threads beside the holder's own, at most.
const HELPERS: usize = 3;
/// Ports that a thread takes at a time.
const PART: usize = 64;

/// A port, as the holder finds it.
pub(super) type Key = (Protocol, Option<IpAddr>, u16);

/// Ports, with what holds them: bound, or still to be bound or made. `None` once bound: the kernel has no sockets of the
/// protocol.
pub(super) type Bound = Vec<(Key, Option<OwnedFd>)>;

/// Threads that bind, on all processors. They are there from the first block on: starting one takes as long as 100 ports.
#[derive(Debug, Default)]
pub(super) struct Binder(Option<Vec<Helper>>);

impl Binder {
    /// Binds all of these; where some cannot be bound, the others are closed with what is returned.
    pub(super) fn bind(&mut self, mut wanted: Bound) -> (Bound, Vec<Failure>) {
        if wanted.len() < MANY {
            let failures = bind_each(&mut wanted);
            return (wanted, failures);
        }
        let job = Arc::new(Job::of(wanted));
        for helper in self.0.get_or_insert_with(helpers) {
            helper.join_in(&job);
        }
        job.work();
        let (bound, mut failures) = job.result();
        failures.sort_by_key(|failure| (failure.protocol, failure.port));
        failures.truncate(FAILURES);
        (bound, failures)
    }
}

fn helpers() -> Vec<Helper> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (1..processors.min(HELPERS + 1)).filter_map(|_| Helper::start()).collect()
}

#[derive(Debug)]
struct Helper {
    jobs: SyncSender<Arc<Job>>,
    thread: Pid,
}

impl Helper {
    /// `None` when the system has no thread for it: then the others do its work.
    fn start() -> Option<Self> {
        let (jobs, todo): (_, Receiver<Arc<Job>>) = sync_channel(1);
        let (begun, thread) = sync_channel(1);
        let serve = move || {
            let _ = begun.send(gettid());
            todo.iter().for_each(|job| job.work());
        };
        thread::Builder::new().name("bind".to_owned()).spawn(serve).ok()?;
        Some(Self { jobs, thread: thread.recv().ok()? })
    }

    fn join_in(&self, job: &Arc<Job>) {
        // The scheduler wakes a thread on the processor of the one that wakes it, since most of those wait then. This
        // one goes on binding: without a word the helper would come when it is done.
        if let Ok(mut others) = sched_getaffinity(None) {
            others.unset(sched_getcpu());
            if others.count() > 0 {
                let _ = sched_setaffinity(Some(self.thread), &others);
            }
        }
        // It may still be at the one before, which others have finished.
        let _ = self.jobs.try_send(Arc::clone(job));
    }
}

/// Ports to bind, by whoever has time.
#[derive(Debug)]
struct Job {
    state: Mutex<State>,
    part_done: Condvar,
}

#[derive(Debug)]
struct State {
    todo: Vec<Bound>,
    /// Parts that somebody is at.
    doing: usize,
    bound: Bound,
    failures: Vec<Failure>,
}

impl Job {
    fn of(mut wanted: Bound) -> Self {
        let mut todo = Vec::with_capacity(wanted.len().div_ceil(PART));
        let bound = Bound::with_capacity(wanted.len());
        while !wanted.is_empty() {
            todo.push(wanted.split_off(wanted.len().saturating_sub(PART)));
        }
        let state = State { todo, doing: 0, bound, failures: Vec::new() };
        Self { state: Mutex::new(state), part_done: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Binds part by part until none is left, or until it is known to be in vain.
    fn work(&self) {
        let mut state = self.state();
        while let Some(mut part) = state.todo.pop() {
            state.doing += 1;
            drop(state);
            let failures = bind_each(&mut part);
            state = self.state();
            state.doing -= 1;
            state.bound.append(&mut part);
            // Ports that are taken are all told; any other reason would be the same for the next port.
            if state.failures.len() + failures.len() >= FAILURES
                || failures.iter().any(|failure| !failure.is_taken())
            {
                state.todo.clear();
            }
            state.failures.extend(failures);
            self.part_done.notify_all();
        }
    }

    /// What was bound and what was not, when everybody has ended.
    fn result(&self) -> (Bound, Vec<Failure>) {
        let ended = self.part_done.wait_while(self.state(), |state| state.doing > 0);
        let mut state = ended.unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.bound), std::mem::take(&mut state.failures))
    }
}

fn bind_each(part: &mut Bound) -> Vec<Failure> {
    let mut failures = Vec::new();
    for ((protocol, address, port), socket) in part {
        let (protocol, address, port) = (*protocol, *address, *port);
        let bound = match socket.take() {
            Some(spare) => hold::bind_spare(spare, protocol, port).map(Some),
            None => hold::bind(protocol, address, port),
        };
        match bound {
            Ok(bound) => *socket = bound,
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or_default();
                failures.push(Failure { protocol, address, port, errno });
                if error.kind() != io::ErrorKind::AddrInUse {
                    break;
                }
            }
        }
    }
    failures
}
