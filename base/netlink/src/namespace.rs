//! Network namespaces: make, name, find, enter and remove them.
//!
//! A namespace lives as long as a process, a mount or an open file holds it. A named one is a file below `/run/netns`
//! on which the namespace is mounted, as `ip netns` makes them (ip-netns(8)), so that `ip netns exec NAME` works; the
//! names are in [`named`]. A thread that enters a namespace is one that is made for it and ends there: nothing here
//! changes the namespace of the calling thread, and nothing forks.
//!
//! What is then done inside is in [`crate::route`]; who is still inside, in [`crate::process`].

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

mod fresh;
pub mod named;

pub use fresh::isolate_mounts;
pub use named::Names;

/// Why something with a network namespace failed.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The name cannot be that of a file.
    #[error(
        "{name:?} cannot name a network namespace: use letters, digits, '-', '_' and '.', at most 255 bytes"
    )]
    BadName {
        /// What was given.
        name: String,
    },
    /// The name is taken.
    #[error(
        "the network namespace {name} exists already: delete it (`ip netns delete {name}`) or use another name"
    )]
    Exists {
        /// The name.
        name: String,
    },
    /// Nothing has that name.
    #[error("there is no network namespace {name} in {}", folder.display())]
    Absent {
        /// The name.
        name: String,
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// The kernel refused.
    #[error("{action}: {source}{}", hint(source))]
    Io {
        /// What was tried, and on what.
        action: String,
        /// The kernel's reason.
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (network namespaces need CAP_SYS_ADMIN: run as root)",
        _ => "",
    }
}

impl NamespaceError {
    fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }

    /// Whether it says that the namespace is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// An open network namespace, which lives at least as long as this value.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
    inode: u64,
}

impl Namespace {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NamespaceError> {
        // Not /proc/self, which is the main thread.
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of a process.
    pub fn of_process(pid: u32) -> Result<Self, NamespaceError> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")))
    }

    /// The namespace that a file stands for: `/proc/PID/ns/net`, or a bind mount of it.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let wrap = || NamespaceError::io(format!("opening the network namespace {}", path.display()));
        let file = File::open(path).map_err(|error| wrap()(error))?;
        let inode = file.metadata().map_err(|error| wrap()(error))?.ino();
        Ok(Self { file: file.into(), inode })
    }

    /// A new namespace without a name. Its loopback is down. It ends with this value, unless a process is inside.
    pub fn create() -> Result<Self, NamespaceError> {
        fresh::in_new_namespace("making a network namespace", Self::current)?
    }

    /// A new namespace with a name below `/run/netns`; see [`Names::create`].
    pub fn create_named(name: &str) -> Result<Self, NamespaceError> {
        Names::default().create(name)
    }

    /// The namespace of that name below `/run/netns`.
    pub fn open_named(name: &str) -> Result<Self, NamespaceError> {
        Names::default().open(name)
    }

    /// Takes the name below `/run/netns` away; see [`Names::delete`].
    pub fn delete_named(name: &str) -> Result<bool, NamespaceError> {
        Names::default().delete(name)
    }

    /// The names below `/run/netns` that begin with `prefix`; see [`Names::list`].
    pub fn list_named(prefix: &str) -> Result<Vec<String>, NamespaceError> {
        Names::default().list(prefix)
    }

    /// What tells this namespace from all others that exist now: the inode that `/proc/PID/ns/net` shows.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Runs `work` inside, on a thread that is made for it, and waits for it. Sockets which it opens belong to this
    /// namespace wherever they go, and programs which it starts (`Command::spawn`) begin there. A panic in `work` goes
    /// on here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
        on_thread("entering a network namespace", || {
            move_into_link_name_space(self.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| NamespaceError::io("entering a network namespace")(error.into()))?;
            Ok(work())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Runs `work` inside `namespace`: [`Namespace::run`] as a function.
pub fn run_in<T: Send>(namespace: &Namespace, work: impl FnOnce() -> T + Send) -> Result<T, NamespaceError> {
    namespace.run(work)
}

/// Runs `work` on a thread of its own, which may change its namespaces because it ends after that.
fn on_thread<T: Send>(
    action: &str,
    work: impl FnOnce() -> Result<T, NamespaceError> + Send,
) -> Result<T, NamespaceError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, work)
            .map_err(NamespaceError::io(format!("{action}: starting a thread")))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests;
