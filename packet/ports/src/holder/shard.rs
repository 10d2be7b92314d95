//! One holder process as its client sees it: find it or start it, ask it, notice its end.

use std::{
    ffi::OsString,
    fs::OpenOptions,
    io::{self, Read as _},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt as _, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::RecvFlags,
};

use super::wire::{Inbox, Reply, Request, VERSION, send};

/// Starting one takes milliseconds; a machine that is out of memory or swaps may need seconds.
const START: Duration = Duration::from_secs(10);
/// Binding 20,000 sockets takes a quarter of a second; an answer that takes longer than this will not come.
const ANSWER: Duration = Duration::from_secs(20);

/// Why a holder could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// The program could not be started.
    #[error("cannot start the holder of ports, {program}: {source}")]
    Start {
        /// Which program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It was started and ended, or said nothing in time.
    #[error("the holder of ports did not come up: {why}; its log is {log}")]
    Failed {
        /// What it said.
        why: String,
        /// Its standard error.
        log: PathBuf,
    },
    /// The socket cannot be connected to, though there is a holder.
    #[error("cannot connect to the holder of ports at {path}: {source}")]
    Connect {
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Nobody has started it.
    #[error(
        "no holder of ports answers at {path} within {patience:?}: its container should run `portolan holder --socket {path}`"
    )]
    Absent {
        /// Its socket.
        path: PathBuf,
        /// How long it was waited for.
        patience: Duration,
    },
    /// It speaks another version.
    #[error(
        "the holder of ports at {path} (process {pid}) speaks version {theirs}, this program {VERSION}: stop all instances and end that process, then start again"
    )]
    Version {
        /// Its socket.
        path: PathBuf,
        /// Its process.
        pid: u32,
        /// Its version.
        theirs: u32,
    },
    /// The connection ended: what this holder held is held no more.
    #[error("the holder of ports at {path} is gone: {source}")]
    Lost {
        /// Its socket.
        path: PathBuf,
        /// What the connection said.
        source: io::Error,
    },
    /// An answer that does not belong to the question.
    #[error("the holder of ports at {path} answered what was not asked: {answer}")]
    Confused {
        /// Its socket.
        path: PathBuf,
        /// The answer.
        answer: String,
    },
}

/// How to start a holder: `PROGRAM ARGS… --socket PATH`.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) args: Vec<OsString>,
}

/// A connection to one holder.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    stream: UnixStream,
    inbox: Inbox,
    /// How many sockets it could still take when it last said so.
    pub(super) room: usize,
    /// How many ports it held when it was connected to.
    pub(super) held: usize,
    /// Whether it keeps descriptors for its clients.
    pub(super) keeps: bool,
    /// Whether it lets go of ports after its answer, if asked to.
    pub(super) soon: bool,
    pub(super) pid: u32,
    /// Kept to be waited for, when this process started it.
    pub(super) child: Option<Child>,
}

impl Shard {
    /// Connects to the holder at `path` if there is one.
    pub(super) fn connect(path: &Path) -> Result<Option<Self>, HolderError> {
        let fail = |source| HolderError::Connect { path: path.to_owned(), source };
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(error) if is_absent(&error) => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        stream.set_read_timeout(Some(ANSWER)).map_err(fail)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(fail)?;
        let path = path.to_owned();
        let inbox = Inbox::default();
        let mut shard =
            Self { path, stream, inbox, room: 0, held: 0, keeps: false, soon: false, pid: 0, child: None };
        match shard.ask(&Request::Hello) {
            Ok((Reply::Hello { version: VERSION, pid, room, held, keeps, soon }, _)) => {
                (shard.pid, shard.room, shard.held) = (pid, room, held);
                (shard.keeps, shard.soon) = (keeps, soon);
                Ok(Some(shard))
            }
            Ok((Reply::Hello { version: theirs, pid, .. }, _)) => {
                Err(HolderError::Version { path: shard.path, pid, theirs })
            }
            Ok((answer, _)) => Err(shard.confused(&answer)),
            // It was ending when we came.
            Err(HolderError::Lost { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Connects to the holder at `path`, which somebody else starts.
    pub(super) fn connect_in_time(path: &Path, patience: Duration) -> Result<Self, HolderError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(shard) = Self::connect(path)? {
                return Ok(shard);
            }
            if Instant::now() >= deadline {
                return Err(HolderError::Absent { path: path.to_owned(), patience });
            }
            std::thread::sleep(Duration::from_millis(20).min(patience));
        }
    }

    /// Connects to the holder at `path`, or starts one there and connects.
    pub(super) fn connect_or_start(program: &Program, path: &Path) -> Result<Self, HolderError> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(shard) = Self::connect(path)? {
                return Ok(shard);
            }
            let error = match start(program, path, deadline) {
                Ok(child) => match Self::connect(path)? {
                    Some(shard) => return Ok(Self { child: Some(child), ..shard }),
                    None => HolderError::Failed { why: "it ended at once".to_owned(), log: log_of(path) },
                },
                // Perhaps another client started one at the same moment, or the old one is just ending.
                Err(error @ HolderError::Failed { .. }) => error,
                Err(error) => return Err(error),
            };
            if Instant::now() >= deadline {
                return Err(error);
            }
            if let Some(shard) = Self::connect(path)? {
                return Ok(shard);
            }
            if !matches!(&error, HolderError::Failed { why, .. } if why.contains("another holder serves")) {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends `request` and waits for the answer.
    pub(super) fn ask(&mut self, request: &Request) -> Result<(Reply, Option<OwnedFd>), HolderError> {
        self.ask_with(request, None)
    }

    /// The same with a descriptor.
    pub(super) fn ask_with(
        &mut self,
        request: &Request,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(Reply, Option<OwnedFd>), HolderError> {
        let lost = |path: &Path, source| HolderError::Lost { path: path.to_owned(), source };
        send(&self.stream, request, fd).map_err(|error| lost(&self.path, error))?;
        loop {
            if let Some((reply, fd)) = self.inbox.take().map_err(|error| lost(&self.path, error))? {
                if let Reply::Done { room, .. } | Reply::Full { room } = reply {
                    self.room = room;
                }
                return Ok((reply, fd));
            }
            match self.inbox.fill(&self.stream, RecvFlags::empty()) {
                Ok(true) => {}
                Ok(false) => return Err(lost(&self.path, io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(&self.path, error)),
            }
        }
    }

    /// The error for an answer that does not belong to the question.
    pub(super) fn confused(&self, answer: &Reply) -> HolderError {
        HolderError::Confused { path: self.path.clone(), answer: format!("{answer:?}") }
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn log_of(path: &Path) -> PathBuf {
    path.with_extension("log")
}

fn start(program: &Program, path: &Path, deadline: Instant) -> Result<Child, HolderError> {
    let log = log_of(path);
    let fail = |source| HolderError::Start { program: program.path.clone(), source };
    let errors = OpenOptions::new().create(true).append(true).mode(0o600).open(&log).map_err(fail)?;
    let mut child = Command::new(&program.path)
        .args(&program.args)
        .arg("--socket")
        .arg(path)
        // So that it keeps no file system busy.
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        .spawn()
        .map_err(fail)?;
    let status = child.stdout.take().map_or_else(String::new, |pipe| status_line(pipe, deadline));
    if status.lines().any(|line| line == "ready") {
        return Ok(child);
    }
    let _ = child.kill();
    let ended = child.wait().map(|status| status.to_string()).unwrap_or_default();
    let why = match status.trim() {
        "" => format!("{} ended with {ended} and said nothing", program.path.display()),
        said => said.trim_start_matches("failed: ").to_owned(),
    };
    Err(HolderError::Failed { why, log })
}

/// What the holder says first: up to a line `ready`, or all until it ends or the deadline comes.
fn status_line(mut pipe: ChildStdout, deadline: Instant) -> String {
    let mut said = String::new();
    let mut buffer = [0u8; 512];
    while !said.lines().any(|line| line == "ready") && said.len() < 4096 {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::new(&pipe, PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Ok(0) => break,
            Err(rustix::io::Errno::INTR) => continue,
            Ok(_) | Err(_) => match pipe.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => said.push_str(&String::from_utf8_lossy(&buffer[..length])),
            },
        }
    }
    said
}
