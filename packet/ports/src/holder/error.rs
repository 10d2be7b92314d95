//! Why ports are not held, in words.

use std::fmt;

use super::{shard::HolderError, wire::Failure};

/// Why ports are not held.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// The kernel refused some of them; none is held.
    #[error("{}", Failures(.0))]
    Refused(Vec<Failure>),
    /// All holders together have no room.
    #[error("cannot hold {wanted} more ports: {} limit of open files; raise it (ulimit -Hn, LimitNOFILE=)", processes(*.holders))]
    Full {
        /// Sockets that were to be added.
        wanted: usize,
        /// How many processes there are at most.
        holders: usize,
    },
    /// A holder could not be asked.
    #[error(transparent)]
    Holder(#[from] HolderError),
}

fn processes(holders: usize) -> String {
    if holders == 1 {
        "the holder has reached its".to_owned()
    } else {
        format!("{holders} holder processes have reached their")
    }
}

struct Failures<'a>(&'a [Failure]);

impl fmt::Display for Failures<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.0.first() else { return f.write_str("cannot bind") };
        let on = first.address.map(|address| format!(" on {address}")).unwrap_or_default();
        write!(f, "cannot bind {}/{}{on}: {}", first.port, first.protocol, first.error())?;
        match self.0.len() {
            1 => Ok(()),
            n => write!(f, " (and {} more)", n - 1),
        }
    }
}
