//! One `up` per data folder, and one data plane per network namespace.

use std::{
    fs::{File, OpenOptions, Permissions},
    io::{Read, Seek, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{OpenOptionsExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::output::problem::Mendable;

/// Why this `up` may not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// The folder cannot be made or written.
    #[error("cannot use the data folder {}: {source}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Another `up` has it.
    #[error("the data folder {} is in use by `portolan up` with pid {pid}", folder.display())]
    InUse {
        /// Which.
        folder: PathBuf,
        /// By whom, as written in the lock file; `?` when it could not be read.
        pid: String,
    },
    /// Another `up` has the data plane of this network namespace.
    #[error("another `portolan up` runs the data plane of this network namespace")]
    DataPlane,
}

impl Mendable for LockError {
    fn hint(&self) -> String {
        let hint = match self {
            Self::Folder { .. } => "give a folder that you may write: --data DIR",
            Self::InUse { .. } => "stop that one first, or give this one a folder of its own: --data DIR",
            Self::DataPlane => {
                "stop that one first, or start this one without: --no-dataplane, with --listen, --register-listen, \
                 --dns-listen and --pool of its own"
            }
        };
        hint.to_owned()
    }
}

/// The data folder, locked until this is dropped or the process ends in whatever way.
#[derive(Debug)]
pub(crate) struct DataFolder {
    _lock: File,
}

impl DataFolder {
    /// Makes the folder (mode 0700: it holds the socket that gives away ports) and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Folder { folder: path.to_owned(), source };
        if !path.is_dir() {
            std::fs::create_dir_all(path).map_err(failed)?;
            std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed)?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() };
            return Err(LockError::InUse { folder: path.to_owned(), pid });
        }
        // A full disk must not keep a running node from starting again: the number is only for the message above.
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(folder = %path.display(), %error, "cannot write the pid into the lock file");
        }
        Ok(Self { _lock: lock })
    }
}

/// The right to write this network namespace's table, until this is dropped.
///
/// An abstract socket is the one kind of lock that the kernel keeps per network namespace (unix(7)), just as it keeps
/// tables; and it is gone when its process is.
#[derive(Debug)]
pub(crate) struct DataPlaneLock {
    _socket: UnixListener,
}

impl DataPlaneLock {
    /// Takes it, unless another has it.
    pub(crate) fn take() -> Result<Self, LockError> {
        let name = SocketAddr::from_abstract_name("portolan-dataplane").map_err(|_| LockError::DataPlane)?;
        UnixListener::bind_addr(&name)
            .map(|socket| Self { _socket: socket })
            .map_err(|_| LockError::DataPlane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_belongs_to_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = DataFolder::lock(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let error = DataFolder::lock(&path).unwrap_err();
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        drop(first);
        DataFolder::lock(&path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = DataFolder::lock(Path::new("/proc/nothing")).unwrap_err();
        assert!(error.to_string().contains("/proc/nothing"), "{error}");
    }
}
