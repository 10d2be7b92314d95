//! Asks the agent: one line of JSON to its socket and one back, each step with a time limit.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use portolan_model::{AgentReply, AgentRequest};
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a connection may take where something listens.
const CONNECT: Duration = Duration::from_secs(2);

/// No reply is longer: 65,535 ports with names are some 8 MiB.
const REPLY: u64 = 16 << 20;

/// Why the agent did not answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens there.
    #[error("no agent at {socket}: {source}")]
    Away {
        /// Where it was looked for.
        socket: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// It took the request, or a part of it, and did not answer.
    #[error("the agent at {socket} did not answer: {source}")]
    Silent {
        /// Where it is.
        socket: String,
        /// What happened.
        source: io::Error,
    },
    /// It answered something else.
    #[error("the agent at {socket} answered what this plugin does not know: {source}")]
    Strange {
        /// Where it is.
        socket: String,
        /// What is wrong with the answer.
        source: serde_json::Error,
    },
}

/// Asks, and waits for the answer no longer than `limit`. An agent that is being started again is waited for as long as
/// `patience`.
pub fn ask(
    socket: &Path,
    request: &AgentRequest,
    patience: Duration,
    limit: Duration,
) -> Result<AgentReply, AskError> {
    let path = || socket.display().to_string();
    let stream = connect(socket, patience).map_err(|source| AskError::Away { socket: path(), source })?;
    let reply =
        exchange(stream, request, limit).map_err(|source| AskError::Silent { socket: path(), source })?;
    serde_json::from_str(&reply).map_err(|source| AskError::Strange { socket: path(), source })
}

fn connect(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    const PAUSE: Duration = Duration::from_millis(20);
    let address = SockAddr::unix(path)?;
    let begin = Instant::now();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // unix(7): connect blocks when the backlog is full, for no longer than the send timeout.
        socket.set_write_timeout(Some(CONNECT))?;
        match socket.connect(&address) {
            Ok(()) => return Ok(socket.into()),
            Err(error) if begin.elapsed() + PAUSE > patience => return Err(error),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

fn exchange(mut stream: UnixStream, request: &AgentRequest, limit: Duration) -> io::Result<String> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.set_write_timeout(Some(limit))?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY)).read_line(&mut reply)?;
    match reply.ends_with('\n') {
        true => Ok(reply),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
