//! Binding many ports at once.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use portolan_model::Protocol;

use super::wire::Failure;
use crate::hold;

/// Conflicts that are told at once: enough to choose a better block the next time.
const FAILURES: usize = 256;
/// So many ports take a millisecond: they are worth a second thread.
pub(super) const MANY: usize = 256;
/// Threads beside the holder's own, at most.
const HELPERS: usize = 3;

/// A port, as the holder finds it.
pub(super) type Key = (Protocol, Option<IpAddr>, u16);

/// Ports, with what holds them: bound, or still to be bound or made. `None` once bound: the kernel has no sockets of the
/// protocol.
pub(super) type Bound = Vec<(Key, Option<OwnedFd>)>;

/// Threads that bind, on all processors. They are there from the first block on: starting one takes as long as 100 ports.
#[derive(Debug, Default)]
pub(super) struct Binder(Option<Vec<Helper>>);

#[derive(Debug)]
struct Helper {
    work: SyncSender<Bound>,
    done: Receiver<(Bound, Vec<Failure>)>,
}

impl Helper {
    /// `None` when the system has no thread for it.
    fn start() -> Option<Self> {
        let (work, todo) = sync_channel::<Bound>(1);
        let (finished, done) = sync_channel(1);
        let serve = move || {
            for mut part in todo {
                let failures = bind_each(&mut part);
                if finished.send((part, failures)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("bind".to_owned()).spawn(serve).ok()?;
        Some(Self { work, done })
    }
}

impl Binder {
    /// Binds all of these; where some cannot be bound, what was is closed with what is returned.
    pub(super) fn bind(&mut self, mut wanted: Bound) -> (Bound, Vec<Failure>) {
        let helpers = match wanted.len() {
            ..MANY => &mut [],
            _ => self.0.get_or_insert_with(helpers).as_mut_slice(),
        };
        let part = wanted.len().div_ceil(helpers.len() + 1);
        let mut busy = Vec::with_capacity(helpers.len());
        for helper in helpers {
            let rest = wanted.split_off(wanted.len().saturating_sub(part));
            match helper.work.send(rest) {
                Ok(()) => busy.push(helper),
                // It is gone: nobody knows why, and its work is done here.
                Err(lost) => wanted.extend(lost.0),
            }
        }
        let mut failures = bind_each(&mut wanted);
        for helper in busy {
            match helper.done.recv() {
                Ok((bound, failed)) => {
                    wanted.extend(bound);
                    failures.extend(failed);
                }
                Err(_) => failures.push(Failure {
                    protocol: Protocol::Tcp,
                    address: None,
                    port: 0,
                    errno: rustix::io::Errno::CANCELED.raw_os_error(),
                }),
            }
        }
        failures.sort_by_key(|failure| (failure.protocol, failure.port));
        failures.truncate(FAILURES);
        (wanted, failures)
    }
}

fn helpers() -> Vec<Helper> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (1..processors.min(HELPERS + 1)).filter_map(|_| Helper::start()).collect()
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
                // Ports that are taken are all told; any other reason would be the same for the next port.
                if error.kind() != io::ErrorKind::AddrInUse || failures.len() >= FAILURES {
                    break;
                }
            }
        }
    }
    failures
}
