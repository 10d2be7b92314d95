//! The holder's own side: one thread, one poll loop, no runtime. Only blocks are bound by others beside it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::{held::Held, wire::Inbox};
use crate::hold::Hold;

mod answer;

/// How long a holder that holds nothing stays when nobody is connected.
pub const IDLE: Duration = Duration::from_secs(60);
/// How long `portolan up` lets its holder stay when nobody is connected, whatever it holds: long enough to repair or
/// upgrade `up`, short enough that what nobody will come back for is not held for ever.
pub const ABANDONED: Duration = Duration::from_secs(15 * 60);
/// How often it looks whether it can still be found.
const LOOK: Duration = Duration::from_secs(10);
/// After a request, what can wait does: whoever asked is at work on the same processors.
const QUIET: Duration = Duration::from_millis(5);
/// What could wait for so long does not wait any more.
const OVERDUE: Duration = Duration::from_millis(100);
/// Descriptors that are not holds: standard ones, the listener, the lock, connections.
const SPARE: usize = 32;
/// Connections at a time. `up` has one; the others are people who look.
const CONNECTIONS: usize = 16;
/// Descriptors that are kept for clients at most: one for each network namespace that a client came from.
const KEPT: usize = 4;
/// A client that does not read its answer for so long is let go.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How to serve.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// Where clients connect. Mode 0600; beside it a `.lock` file.
    pub socket: PathBuf,
    /// When to end by itself while nothing is held, counted from the end of the last connection: [`IDLE`]. `None` is
    /// never.
    pub idle: Option<Duration>,
    /// The same while something is held: [`ABANDONED`]. `None` is never, and what a runtime's containers need.
    pub abandoned: Option<Duration>,
    /// Holds at most, if that is less than the limit of open files allows. For tests.
    pub limit: Option<usize>,
}

/// Why a holder could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Another holder has this socket.
    #[error("another holder serves {0}: connect to it, or end it first")]
    Served(PathBuf),
    /// The socket or its lock could not be made.
    #[error("the holder cannot serve at {path}: {source}")]
    Socket {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Waiting failed.
    #[error("the holder cannot wait for requests: {0}")]
    Poll(io::Error),
}

/// Serves until told to shut down, or until nobody has been connected for as long as `options` say.
///
/// Leaves the session of whoever started it, so that neither Ctrl-C nor the end of that terminal reaches it. Says
/// `ready`, or `failed: ` and why, on standard output, where [`super::HolderClient`] waits for it.
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let begun = Server::begin(options);
    let status = match &begun {
        Ok(_) => "ready\n".to_owned(),
        Err(error) => format!("failed: {error}\n"),
    };
    // Whoever started it may be gone already; the next one will connect.
    let _ = io::stdout().write_all(status.as_bytes()).and_then(|()| io::stdout().flush());
    let mut server = begun?;
    let result = server.run();
    // The socket first, then the holds (on drop): nobody connects to a holder that is on its way out.
    if server.has_socket() {
        let _ = fs::remove_file(&options.socket);
    }
    result
}

struct Server {
    listener: UnixListener,
    /// Its file, and what tells it from another one at the same place.
    socket: (PathBuf, Option<(u64, u64)>),
    connections: Vec<Connection>,
    held: Held,
    /// What clients left for the next ones, the oldest first.
    kept: Vec<(String, OwnedFd)>,
    idle: Option<Duration>,
    abandoned: Option<Duration>,
    lonely_since: Instant,
    /// When somebody asked for something last.
    asked: Instant,
    /// When there was nothing last that could wait.
    tidy_since: Instant,
    ending: bool,
    /// Locked as long as this process lives.
    _lock: File,
}

struct Connection {
    stream: UnixStream,
    inbox: Inbox,
    /// What is lent to whoever is at the other end.
    lent: Vec<Hold>,
}

impl Server {
    fn begin(options: &ServeOptions) -> Result<Self, ServeError> {
        let path = &options.socket;
        let lock_path = path.with_extension("lock");
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Socket { path, source }
        };
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fail(folder))?;
        }
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(fail(&lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(ServeError::Served(path.clone())),
            Err(error) => return Err(fail(&lock_path)(error.into())),
        }
        // Nobody serves it: a socket file that is there was left by a holder that was killed.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(path)(error)),
            _ => {}
        }
        // This process does nothing else, so its umask is nobody else's: the socket is never open to others.
        let umask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(umask);
        let listener = listener.map_err(fail(path))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail(path))?;
        listener.set_nonblocking(true).map_err(fail(path))?;
        // Fails only for the leader of a process group, which has a group of its own already.
        let _ = rustix::process::setsid();
        let files = raise_file_limit().saturating_sub(SPARE);
        let socket = (path.clone(), identity(path));
        Ok(Self {
            listener,
            socket,
            connections: Vec::new(),
            held: Held::new(options.limit.map_or(files, |limit| limit.min(files))),
            kept: Vec::new(),
            idle: options.idle,
            abandoned: options.abandoned,
            lonely_since: Instant::now(),
            asked: Instant::now(),
            tidy_since: Instant::now(),
            ending: false,
            _lock: lock,
        })
    }

    fn run(&mut self) -> Result<(), ServeError> {
        while !self.ending {
            let patience = if self.held.count() == 0 { self.idle } else { self.abandoned };
            let left = match patience.filter(|_| self.connections.is_empty()) {
                None => None,
                Some(patience) => match patience.checked_sub(self.lonely_since.elapsed()) {
                    Some(left) if !left.is_zero() => Some(left),
                    _ => return Ok(()),
                },
            };
            if self.connections.is_empty() && !self.has_socket() {
                // Somebody has removed the folder: nobody will find what is held here.
                return Ok(());
            }
            let left = left.map_or(LOOK, |left| left.min(LOOK));
            let left = self.until_tidying().map_or(left, |soon| left.min(soon));
            let ready = self.wait(left).map_err(ServeError::Poll)?;
            let mut index = 0;
            let had = self.connections.len();
            self.connections = std::mem::take(&mut self.connections)
                .into_iter()
                .filter_map(|connection| {
                    index += 1;
                    if ready[index] { self.attend(connection) } else { Some(connection) }
                })
                .collect();
            if ready[0] {
                self.accept();
            }
            if had > 0 && self.connections.is_empty() {
                self.lonely_since = Instant::now();
            }
            self.tidy(ready.contains(&true));
        }
        Ok(())
    }

    /// When to do what can wait; `None` when there is nothing of that.
    fn until_tidying(&self) -> Option<Duration> {
        let quiet = || QUIET.saturating_sub(self.asked.elapsed());
        (!self.held.is_tidy()).then(quiet)
    }

    /// Does some of what can wait, if nobody has asked for a moment, or if it has waited for long.
    fn tidy(&mut self, asked: bool) {
        if asked {
            self.asked = Instant::now();
        }
        if self.held.is_tidy() {
            self.tidy_since = Instant::now();
            self.held.expire();
        } else if self.until_tidying() == Some(Duration::ZERO) || self.tidy_since.elapsed() > OVERDUE {
            self.held.tidy();
        }
    }

    fn has_socket(&self) -> bool {
        let (path, own) = &self.socket;
        identity(path) == *own
    }

    /// Which of listener and connections, in this order, have something.
    fn wait(&self, left: Duration) -> io::Result<Vec<bool>> {
        let mut fds = vec![PollFd::new(&self.listener, PollFlags::IN)];
        fds.extend(self.connections.iter().map(|c| PollFd::new(&c.stream, PollFlags::IN)));
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else { return };
        // The mode of the socket file keeps others out; this holds where somebody changed it. The agent of another
        // container is in another PID namespace, where its number is 0: rustix takes that for an error.
        let own = rustix::process::geteuid();
        let peer = rustix::net::sockopt::socket_peercred(&stream);
        let stranger = peer.is_ok_and(|peer| peer.uid != own && !peer.uid.is_root());
        if stranger || self.connections.len() >= CONNECTIONS {
            return;
        }
        // Reads never wait (MSG_DONTWAIT); writes may, for a time.
        if stream.set_nonblocking(false).is_ok() && stream.set_write_timeout(Some(WRITE_TIMEOUT)).is_ok() {
            self.connections.push(Connection { stream, inbox: Inbox::default(), lent: Vec::new() });
        }
    }
}

/// What tells the file at `path` from all others.
fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Raises the limit of open files to what may be had, and says what it is.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}
