//! Finding the runtime, and finding it again: a plugin's life across connections.
//!
//! Runtimes restart, and their socket is gone meanwhile or was never there. [`Plugin::serve`] comes back for as long
//! as it runs; what it is doing can be watched ([`Plugin::state`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{net::UnixStream, sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{Handler, session::Session};

/// Where runtimes listen for plugins.
pub const DEFAULT_SOCKET: &str = "/var/run/nri/nri.sock";

/// Connecting to a local socket takes no time, unless its backlog is full.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// The first pause before another attempt.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest. An attempt costs a system call, and containers that are created meanwhile go without us.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a plugin is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no connection; the next attempt comes soon.
    Waiting {
        /// Why.
        reason: String,
    },
    /// There is a connection, and the runtime has not yet told what exists.
    Registering,
    /// Events come in.
    Ready {
        /// The runtime's name, as it calls itself.
        runtime: String,
        /// Its version.
        version: String,
    },
    /// It has been shut down.
    Ended,
}

/// A name or index that runtimes do not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name.
    #[error("a plugin's name has letters, digits and the signs - _ . + (not {0:?})")]
    Name(String),
    /// The index.
    #[error("a plugin's index is two digits: 00 is asked first, 99 last (not {0:?})")]
    Index(String),
}

/// A plugin, not yet connected.
#[derive(Debug)]
pub struct Plugin {
    socket: PathBuf,
    name: String,
    index: String,
    state: watch::Sender<State>,
}

impl Plugin {
    /// A plugin for the runtime that listens, or will, on `socket`. Of several plugins the one with the lowest `index`
    /// is asked first.
    pub fn new(socket: impl Into<PathBuf>, name: &str, index: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(NameError::Name(name.to_owned()));
        }
        if index.len() != 2 || !index.chars().all(|c| c.is_ascii_digit()) {
            return Err(NameError::Index(index.to_owned()));
        }
        let state = watch::Sender::new(State::Waiting { reason: "not begun".to_owned() });
        Ok(Self { socket: socket.into(), name: name.to_owned(), index: index.to_owned(), state })
    }

    /// What it is doing, now and later.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Connects, and connects again, and lets `handler` answer, until `shutdown`. Then what has been asked is still
    /// answered.
    pub async fn serve<H: Handler>(self, handler: Arc<H>, shutdown: CancellationToken) {
        let pauses = ExponentialBuilder::new()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        let mut pause = pauses.build();
        while !shutdown.is_cancelled() {
            let reason = self.connect_once(&handler, &shutdown).await;
            if shutdown.is_cancelled() {
                break;
            }
            if matches!(*self.state.borrow(), State::Ready { .. }) {
                tracing::warn!(socket = %self.socket.display(), reason, "the container runtime is gone (NRI)");
                pause = pauses.build();
            }
            self.wait(reason);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(pause.next().unwrap_or(LONGEST_PAUSE)) => {}
            }
        }
        self.state.send_replace(State::Ended);
    }

    /// One connection; says why it is no more.
    async fn connect_once<H: Handler>(&self, handler: &Arc<H>, shutdown: &CancellationToken) -> String {
        let connected = tokio::select! {
            connected = timeout(CONNECT_LIMIT, UnixStream::connect(&self.socket)) => connected,
            () = shutdown.cancelled() => return String::new(),
        };
        let socket = match connected {
            Ok(Ok(socket)) => socket,
            Ok(Err(error)) => return format!("cannot connect to {}: {error}", self.socket.display()),
            Err(_) => return format!("{} does not accept", self.socket.display()),
        };
        let (name, index, state) = (&self.name, &self.index, &self.state);
        match (Session { name, index, handler, state, shutdown }).run(socket).await {
            Ok(()) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    /// Says why there is no connection, once for each reason.
    fn wait(&self, reason: String) {
        let new = self.state.send_if_modified(|state| {
            let new = State::Waiting { reason };
            let modified = *state != new;
            *state = new;
            modified
        });
        if new && let State::Waiting { reason } = &*self.state.borrow() {
            tracing::info!(reason, "waiting for the container runtime (NRI)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_runtime_refuses_are_refused_here() {
        assert!(Plugin::new(DEFAULT_SOCKET, "portolan", "10").is_ok());
        for name in ["", "port olan", "x/y", "ü"] {
            assert!(matches!(Plugin::new(DEFAULT_SOCKET, name, "10"), Err(NameError::Name(_))), "{name}");
        }
        for index in ["", "1", "100", "a1", "١٢"] {
            assert!(matches!(Plugin::new(DEFAULT_SOCKET, "x", index), Err(NameError::Index(_))), "{index}");
        }
    }
}
