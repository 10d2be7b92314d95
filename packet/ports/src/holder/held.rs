//! What a holder has: the sockets, by port.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use portolan_model::{PortRange, Protocol};

use super::{
    spares::Spares,
    wire::{Failure, Reply},
};
use crate::hold::{self, Hold};

/// Conflicts that are told at once: enough to choose a better block the next time.
const FAILURES: usize = 256;

/// So many sockets take a millisecond or more: they are bound by more than one thread, and closed after the answer where
/// that may be.
const MANY: usize = 256;
/// Threads that bind at most.
const THREADS: usize = 4;
/// Sockets that are closed or made at a time, between two looks whether somebody asks: a fifth of a millisecond.
const STEP: usize = 32;

type Key = (Protocol, Option<IpAddr>, u16);

/// Bound sockets, no more than a limit.
#[derive(Debug)]
pub(super) struct Held {
    /// `None`: the kernel has no sockets of the protocol.
    by_port: BTreeMap<Key, Option<OwnedFd>>,
    /// Not held any more, and not closed yet.
    closing: BTreeMap<Key, OwnedFd>,
    spares: Spares,
    /// Of `by_port`.
    sockets: usize,
    limit: usize,
}

impl Held {
    /// Nothing, with room for `limit` sockets.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_port: BTreeMap::new(),
            closing: BTreeMap::new(),
            spares: Spares::default(),
            sockets: 0,
            limit,
        }
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
        if self.sockets + self.closing.len() + self.spares.count() + wanted.len() > self.limit {
            self.closing.clear();
            self.spares.clear();
        }
        // What was let go of a moment ago, and is not closed yet, is taken back.
        let (mut again, mut new) = (Vec::new(), Vec::new());
        for key in wanted {
            match self.closing.remove(&key) {
                Some(socket) => again.push((key, socket)),
                None => new.push(key),
            }
        }
        let (mut bound, mut failures) = bind_all(self.with_spares(&new));
        if !failures.is_empty() && !self.closing.is_empty() {
            // Perhaps what is in the way is the same port on another address, not closed yet.
            self.closing.clear();
            drop(bound);
            (bound, failures) = bind_all(self.with_spares(&new));
        }
        if !failures.is_empty() {
            self.closing.extend(again);
            return Reply::Refused(failures);
        }
        for ((protocol, ..), socket) in &again {
            hold::only_bound(*protocol, socket);
        }
        let count = again.len() + bound.len();
        self.sockets += again.len() + bound.iter().filter(|(_, socket)| socket.is_some()).count();
        self.by_port.extend(again.into_iter().map(|(key, socket)| (key, Some(socket))));
        self.by_port.extend(bound);
        Reply::Done { count, room: self.room() }
    }

    /// Each with a socket that is there already, where there is one.
    fn with_spares(&mut self, wanted: &[Key]) -> Bound {
        let everywhere = |key: &&Key| key.1.is_none();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let count = wanted.iter().filter(everywhere).filter(|key| key.0 == protocol).count();
            self.spares.learn(protocol, count);
        }
        let with = |key: &Key| (*key, everywhere(&key).then(|| self.spares.take(key.0)).flatten());
        wanted.iter().map(with).collect()
    }

    /// Lets go of these, closed when this returns; answers how many of them it had.
    pub(super) fn release(&mut self, holds: &[Hold]) -> usize {
        for key in holds.iter().flat_map(keys) {
            self.closing.remove(&key);
        }
        self.remove(holds).len()
    }

    /// Lets go of these; answers how many of them it had. Many are closed by [`Held::tidy`], and until then nobody else
    /// can bind them.
    pub(super) fn release_soon(&mut self, holds: &[Hold]) -> usize {
        let removed = self.remove(holds);
        let count = removed.len();
        if count >= MANY {
            self.closing.extend(removed.into_iter().filter_map(|(key, socket)| Some((key, socket?))));
        }
        count
    }

    fn remove(&mut self, holds: &[Hold]) -> Bound {
        let remove = |key| Some((key, self.by_port.remove(&key)?));
        let removed: Bound = holds.iter().flat_map(keys).filter_map(remove).collect();
        self.sockets -= removed.iter().filter(|(_, socket)| socket.is_some()).count();
        removed
    }

    /// Whether [`Held::tidy`] has nothing to do.
    pub(super) fn is_tidy(&self) -> bool {
        self.closing.is_empty() && !self.spares.wants_more()
    }

    /// Does a little of what can wait: closes what was let go of, then makes sockets for the next one who asks.
    pub(super) fn tidy(&mut self) {
        if self.closing.is_empty() {
            let room = self.room().saturating_sub(self.spares.count());
            match room {
                0 => self.spares.clear(),
                room => self.spares.make(room.min(STEP)),
            }
        } else {
            for _ in 0..STEP {
                self.closing.pop_first();
            }
        }
    }

    /// Forgets what nobody has needed for long.
    pub(super) fn expire(&mut self) {
        self.spares.expire();
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

/// Ports, with what holds them: bound, or still to be bound or made.
type Bound = Vec<(Key, Option<OwnedFd>)>;

/// Binds all of these, or stops where one fails.
fn bind_all(mut wanted: Bound) -> (Bound, Vec<Failure>) {
    let threads = match wanted.len() {
        ..MANY => 1,
        _ => std::thread::available_parallelism().map_or(1, usize::from).min(THREADS),
    };
    let parts = Mutex::new(wanted.chunks_mut(STEP));
    let work = || {
        let mut failures = Vec::new();
        loop {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(part) = part else { return failures };
            failures.extend(bind_each(part));
            // Ports that are taken are all told; any other reason would be the same for the next port.
            if failures.len() >= FAILURES || failures.iter().any(|failure| !failure.is_taken()) {
                return failures;
            }
        }
    };
    let mut failures: Vec<Failure> = std::thread::scope(|scope| {
        let begin = |_| std::thread::Builder::new().spawn_scoped(scope, work);
        // What no thread could be had for is done by this one.
        let others: Vec<_> = (1..threads).map(begin).filter_map(Result::ok).collect();
        let mut failures = work();
        for other in others {
            failures.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        failures
    });
    failures.sort_by_key(|failure| (failure.protocol, failure.port));
    failures.truncate(FAILURES);
    (wanted, failures)
}

fn bind_each(part: &mut [(Key, Option<OwnedFd>)]) -> Vec<Failure> {
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
