//! What a holder has: the sockets, by port.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
};

use portolan_model::{PortRange, Protocol};

use super::{
    bind::{Binder, Bound, Key, MANY},
    spares::Spares,
    wire::{Failure, Reply},
};
use crate::hold::{self, Hold};

/// Sockets that are closed or made at a time, between two looks whether somebody asks: a fifth of a millisecond.
const STEP: usize = 32;

/// Bound sockets, no more than a limit.
#[derive(Debug)]
pub(super) struct Held {
    /// `None`: the kernel has no sockets of the protocol.
    by_port: BTreeMap<Key, Option<OwnedFd>>,
    /// Those of them that were lent, and may be more than bound.
    used: BTreeSet<Key>,
    /// Not held any more, and not closed yet. None of them was lent.
    closing: BTreeMap<Key, OwnedFd>,
    spares: Spares,
    binder: Binder,
    /// Of all that is held.
    sockets: usize,
    limit: usize,
}

impl Held {
    /// Nothing, with room for `limit` sockets.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            by_port: BTreeMap::new(),
            used: BTreeSet::new(),
            closing: BTreeMap::new(),
            spares: Spares::default(),
            binder: Binder::default(),
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

    /// Holds all of these, or none and says why, by `answer`: whoever asked does not wait until they are in order here.
    pub(super) fn hold<T>(&mut self, holds: &[Hold], answer: impl FnOnce(Reply) -> T) -> T {
        match self.bound(holds) {
            Ok(bound) => {
                let done = answer(Reply::Done { count: bound.len(), room: self.room() });
                self.by_port.extend(bound);
                done
            }
            Err(refused) => answer(refused),
        }
    }

    /// Sockets for those of these that are not held yet, and counts them; or none and why.
    fn bound(&mut self, holds: &[Hold]) -> Result<Bound, Reply> {
        let wanted: Vec<Key> = holds.iter().flat_map(|hold| self.not_held(*hold)).collect();
        if wanted.len() > self.room() {
            return Err(Reply::Full { room: self.room() });
        }
        if self.sockets + self.closing.len() + self.spares.count() + wanted.len() > self.limit {
            self.closing.clear();
            self.spares.clear();
        }
        // What was let go of a moment ago, and is not closed yet, is taken back.
        let (mut again, mut new) = (Vec::new(), Vec::new());
        for key in wanted {
            match self.closing.remove(&key) {
                Some(socket) => again.push((key, Some(socket))),
                None => new.push(key),
            }
        }
        let (mut bound, mut failures) = self.bind(&new);
        if !failures.is_empty() && !self.closing.is_empty() {
            // Perhaps what is in the way is the same port on another address, not closed yet.
            self.closing.clear();
            drop(bound);
            (bound, failures) = self.bind(&new);
        }
        if !failures.is_empty() {
            self.closing.extend(again.into_iter().filter_map(|(key, socket)| Some((key, socket?))));
            return Err(Reply::Refused(failures));
        }
        bound.append(&mut again);
        self.sockets += bound.iter().filter(|(_, socket)| socket.is_some()).count();
        Ok(bound)
    }

    fn not_held(&self, hold: Hold) -> impl Iterator<Item = Key> {
        let key = |port| (hold.protocol, hold.address, port);
        let held = self.by_port.range(key(hold.ports.first())..=key(hold.ports.last()));
        let held: BTreeSet<u16> = held.map(|((.., port), _)| *port).collect();
        keys(hold).filter(move |(.., port)| held.is_empty() || !held.contains(port))
    }

    /// Binds them, with sockets that are there already where there are some.
    fn bind(&mut self, wanted: &[Key]) -> (Bound, Vec<Failure>) {
        let everywhere = |key: &&Key| key.1.is_none();
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            let count = wanted.iter().filter(everywhere).filter(|key| key.0 == protocol).count();
            self.spares.learn(protocol, count);
        }
        let with = |key: &Key| (*key, everywhere(&key).then(|| self.spares.take(key.0)).flatten());
        let wanted = wanted.iter().map(with).collect();
        self.binder.bind(wanted)
    }

    /// Lets go of these, closed when this returns; answers how many of them it had.
    pub(super) fn release(&mut self, holds: &[Hold]) -> usize {
        for key in holds.iter().copied().flat_map(keys) {
            self.closing.remove(&key);
        }
        self.forget_use(holds);
        self.remove(holds).len()
    }

    /// Lets go of these; answers how many of them it had. Many are closed by [`Held::tidy`], and until then nobody else
    /// can bind them.
    pub(super) fn release_soon(&mut self, holds: &[Hold]) -> usize {
        let removed = self.remove(holds);
        let count = removed.len();
        if count >= MANY {
            // One that was lent is closed now: it is not what somebody who asks for it again should get.
            let unused = removed.into_iter().filter(|(key, _)| !self.used.contains(key));
            self.closing.extend(unused.filter_map(|(key, socket)| Some((key, socket?))));
        }
        self.forget_use(holds);
        count
    }

    fn forget_use(&mut self, holds: &[Hold]) {
        if !self.used.is_empty() {
            holds.iter().copied().flat_map(keys).for_each(|key| _ = self.used.remove(&key));
        }
    }

    fn remove(&mut self, holds: &[Hold]) -> Bound {
        let remove = |key| Some((key, self.by_port.remove(&key)?));
        let removed: Bound = holds.iter().copied().flat_map(keys).filter_map(remove).collect();
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
                    Ok(fd) => {
                        self.used.insert(key);
                        (Reply::Taken { socket: true }, Some(fd))
                    }
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
        self.used.remove(&key);
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

const fn first_key(hold: Hold) -> Key {
    (hold.protocol, hold.address, hold.ports.first())
}

fn keys(hold: Hold) -> impl Iterator<Item = Key> {
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
