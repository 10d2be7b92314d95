//! What a holder has: the sockets, by port.

use std::{collections::BTreeMap, net::IpAddr, os::fd::OwnedFd};

use portolan_model::{PortRange, Protocol};

use super::wire::{Failure, Reply};
use crate::hold::{self, Hold};

/// Conflicts that are told at once: enough to choose a better block the next time.
const FAILURES: usize = 256;

/// So many sockets take some milliseconds: they are bound by more than one thread, and closed after the answer.
const MANY: usize = 256;
/// Threads that bind at most.
const THREADS: usize = 4;

type Key = (Protocol, Option<IpAddr>, u16);

/// Bound sockets, no more than a limit.
#[derive(Debug)]
pub(super) struct Held {
    /// `None`: the kernel has no sockets of the protocol.
    by_port: BTreeMap<Key, Option<OwnedFd>>,
    /// Not held any more, and not closed yet.
    released: Vec<OwnedFd>,
    sockets: usize,
    limit: usize,
}

impl Held {
    /// Nothing, with room for `limit` sockets.
    pub(super) const fn new(limit: usize) -> Self {
        Self { by_port: BTreeMap::new(), released: Vec::new(), sockets: 0, limit }
    }

    /// How many ports are held.
    pub(super) fn count(&self) -> usize {
        self.by_port.len()
    }

    /// All of it, neighbouring ports as one range.
    pub(super) fn list(&self) -> Vec<Hold> {
        runs(self.by_port.keys())
    }

    /// How many sockets can be added.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.sockets)
    }

    /// Holds all of these, or none and says why.
    pub(super) fn hold(&mut self, holds: &[Hold]) -> Reply {
        let wanted: Vec<Key> =
            holds.iter().flat_map(keys).filter(|key| !self.by_port.contains_key(key)).collect();
        if wanted.len() > self.room() {
            return Reply::Full { room: self.room() };
        }
        let (bound, failures) = bind_all(&wanted);
        if !failures.is_empty() {
            return Reply::Refused(failures);
        }
        let count = bound.len();
        self.sockets += bound.iter().filter(|(_, socket)| socket.is_some()).count();
        self.by_port.extend(bound);
        Reply::Done { count, room: self.room() }
    }

    /// Lets go of these; answers how many of them it had. The sockets are closed with the next
    /// [`Held::close_released`].
    pub(super) fn release(&mut self, hold: &Hold) -> usize {
        let removed: Vec<_> = keys(hold).filter_map(|key| self.by_port.remove(&key)).collect();
        let count = removed.len();
        let sockets = removed.into_iter().flatten();
        let before = self.released.len();
        self.released.extend(sockets);
        self.sockets -= self.released.len() - before;
        count
    }

    /// Whether so much was released that closing it takes longer than an answer should.
    pub(super) fn has_much_to_close(&self) -> bool {
        self.released.len() >= MANY
    }

    /// Closes what was released.
    pub(super) fn close_released(&mut self) {
        self.released.clear();
    }

    /// A duplicate of one socket, which is made ready for use.
    pub(super) fn borrow(&mut self, hold: Hold) -> (Reply, Option<OwnedFd>) {
        let key @ (protocol, address, port) = first_key(hold);
        let refused = |errno| (Reply::Refused(vec![Failure { protocol, address, port, errno }]), None);
        match self.by_port.get(&key) {
            None => refused(rustix::io::Errno::NOENT.raw_os_error()),
            Some(None) => (Reply::Taken { socket: false }, None),
            Some(Some(fd)) => {
                let copy = fd.try_clone().and_then(|copy| hold::prepare_for_use(protocol, copy));
                match copy {
                    Ok(fd) => (Reply::Taken { socket: true }, Some(fd)),
                    Err(error) => refused(error.raw_os_error().unwrap_or_default()),
                }
            }
        }
    }

    /// Makes a borrowed socket one that is only bound.
    pub(super) fn give_back(&self, hold: Hold) {
        let key = first_key(hold);
        if let Some(Some(fd)) = self.by_port.get(&key) {
            hold::only_bound(key.0, fd);
        }
    }

    /// Hands one socket over.
    pub(super) fn take(&mut self, hold: Hold) -> (Reply, Option<OwnedFd>) {
        let key @ (protocol, address, port) = first_key(hold);
        let refused = |errno| (Reply::Refused(vec![Failure { protocol, address, port, errno }]), None);
        match self.by_port.remove(&key) {
            None => refused(rustix::io::Errno::NOENT.raw_os_error()),
            Some(None) => (Reply::Taken { socket: false }, None),
            Some(Some(fd)) => {
                self.sockets -= 1;
                match hold::prepare_for_use(protocol, fd) {
                    Ok(fd) => (Reply::Taken { socket: true }, Some(fd)),
                    Err(error) => refused(error.raw_os_error().unwrap_or_default()),
                }
            }
        }
    }
}

type Bound = Vec<(Key, Option<OwnedFd>)>;

/// Binds all of these, or stops where one fails.
fn bind_all(wanted: &[Key]) -> (Bound, Vec<Failure>) {
    let threads = match wanted.len() {
        ..MANY => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from).min(THREADS),
    };
    if threads == 1 {
        return bind_each(wanted);
    }
    let parts = wanted.chunks(wanted.len().div_ceil(threads));
    let done: Vec<(Bound, Vec<Failure>)> = std::thread::scope(|scope| {
        let begin =
            |part| (part, std::thread::Builder::new().spawn_scoped(scope, move || bind_each(part)).ok());
        let begun: Vec<_> = parts.map(begin).collect();
        // What no thread could be had for is done by this one.
        let end = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join().ok();
        begun
            .into_iter()
            .map(|(part, thread)| thread.and_then(end).unwrap_or_else(|| bind_each(part)))
            .collect()
    });
    let (mut bound, mut failures) = (Vec::with_capacity(wanted.len()), Vec::new());
    for (some, failed) in done {
        bound.extend(some);
        failures.extend(failed);
    }
    failures.truncate(FAILURES);
    (bound, failures)
}

fn bind_each(wanted: &[Key]) -> (Bound, Vec<Failure>) {
    let mut bound = Vec::with_capacity(wanted.len());
    let mut failures = Vec::new();
    for &(protocol, address, port) in wanted {
        match hold::bind(protocol, address, port) {
            Ok(socket) => bound.push(((protocol, address, port), socket)),
            Err(error) => {
                let failure =
                    Failure { protocol, address, port, errno: error.raw_os_error().unwrap_or_default() };
                // Ports that are taken are all told; any other reason would be the same for the next port.
                let go_on = failure.is_taken() && failures.len() < FAILURES;
                failures.push(failure);
                if !go_on {
                    break;
                }
            }
        }
    }
    (bound, failures)
}

const fn first_key(hold: Hold) -> Key {
    (hold.protocol, hold.address, hold.ports.first())
}

fn keys(hold: &Hold) -> impl Iterator<Item = Key> {
    let (protocol, address) = (hold.protocol, hold.address);
    hold.ports.iter().map(move |port| (protocol, address, port))
}

/// Neighbouring ports as ranges.
fn runs<'a>(keys: impl Iterator<Item = &'a Key>) -> Vec<Hold> {
    let mut runs: Vec<Hold> = Vec::new();
    for &(protocol, address, port) in keys {
        if let Some(last) = runs.last_mut()
            && (last.protocol, last.address) == (protocol, address)
            && last.ports.last().checked_add(1) == Some(port)
            && let Ok(longer) = PortRange::new(last.ports.first(), port)
        {
            last.ports = longer;
        } else if let Ok(ports) = PortRange::single(port) {
            runs.push(Hold { protocol, address, ports });
        }
    }
    runs
}
