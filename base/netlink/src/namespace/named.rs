//! Names of network namespaces: files below `/run/netns` on which a namespace is mounted, compatible with `ip netns`.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_bind_recursive, mount_change, unmount},
};

use super::{Namespace, NamespaceError, fresh};

/// Where `ip netns` looks (`NETNS_RUN_DIR` of iproute2).
const FOLDER: &str = "/run/netns";

/// A folder of named network namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    folder: PathBuf,
}

impl Default for Names {
    /// `/run/netns`, which `ip netns` uses.
    fn default() -> Self {
        Self::new(FOLDER)
    }
}

impl Names {
    /// The names in `folder`. Any but `/run/netns` is hidden from `ip netns`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a name, whether it is there or not.
    pub fn path(&self, name: &str) -> Result<PathBuf, NamespaceError> {
        let fits = !name.is_empty() && name.len() <= 255 && name != "." && name != "..";
        if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            Ok(self.folder.join(name))
        } else {
            Err(NamespaceError::BadName { name: name.to_owned() })
        }
    }

    /// Makes a namespace with this name. Its loopback is down. It stays when this process ends, until
    /// [`Names::delete`]. When it fails, nothing of that name is left.
    pub fn create(&self, name: &str) -> Result<Namespace, NamespaceError> {
        let path = self.path(name)?;
        self.prepare_folder()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o444).open(&path);
        match file {
            Ok(file) => drop(file),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NamespaceError::Exists { name: name.to_owned() });
            }
            Err(error) => return Err(NamespaceError::io(format!("creating {}", path.display()))(error)),
        }
        let action = format!("making the network namespace {name}");
        let made = fresh::in_new_namespace(&action, || {
            mount_bind("/proc/thread-self/ns/net", &path).map_err(|error| {
                NamespaceError::io(format!("mounting a network namespace on {}", path.display()))(
                    error.into(),
                )
            })?;
            Namespace::current()
        });
        made.and_then(|inner| inner).inspect_err(|_| {
            if let Err(error) = self.delete(name) {
                tracing::warn!(name, %error, "a half-made network namespace stays");
            }
        })
    }

    /// Opens the namespace of this name.
    pub fn open(&self, name: &str) -> Result<Namespace, NamespaceError> {
        let path = self.path(name)?;
        let absent = || NamespaceError::Absent { name: name.to_owned(), folder: self.folder.clone() };
        // A file without a mount is what a crash between the two steps of `create` leaves.
        match is_namespace(&path) {
            Ok(true) => Namespace::open(&path),
            Ok(false) => Err(absent()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(absent()),
            Err(error) => Err(NamespaceError::io(format!("reading {}", path.display()))(error)),
        }
    }

    /// Takes the name away; `false` when there was none. The namespace itself, with all its links, goes when the last
    /// process in it and the last open file of it are gone.
    pub fn delete(&self, name: &str) -> Result<bool, NamespaceError> {
        let path = self.path(name)?;
        loop {
            match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                // Several may lie upon each other.
                Ok(()) => {}
                // Not mounted, or not there.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => {
                    return Err(NamespaceError::io(format!("unmounting {}", path.display()))(error.into()));
                }
            }
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(NamespaceError::io(format!("removing {}", path.display()))(error)),
        }
    }

    /// All names that begin with `prefix`, sorted; also those whose making was cut off by a crash, so that they can be
    /// deleted. A folder that is not there has none.
    pub fn list(&self, prefix: &str) -> Result<Vec<String>, NamespaceError> {
        let reading = || NamespaceError::io(format!("reading {}", self.folder.display()));
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(reading()(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| reading()(error))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| name.starts_with(prefix)));
        }
        names.sort();
        Ok(names)
    }

    /// Makes the folder, and makes it a shared mount of its own as `ip netns add` does, so that a name that is deleted
    /// here goes away in the mount namespaces of other processes too and does not keep the namespace alive there.
    fn prepare_folder(&self) -> Result<(), NamespaceError> {
        let folder = &self.folder;
        fs::create_dir_all(folder)
            .map_err(NamespaceError::io(format!("creating the folder {}", folder.display())))?;
        let share = || mount_change(folder, MountPropagationFlags::SHARED | MountPropagationFlags::REC);
        let shared = match share() {
            // Not a mount yet.
            Err(Errno::INVAL) => mount_bind_recursive(folder, folder).and_then(|()| share()),
            other => other,
        };
        shared.map_err(|error| {
            NamespaceError::io(format!("making {} a shared mount", folder.display()))(error.into())
        })
    }
}

/// Whether a namespace is mounted on `path`: it is then a file of the kernel's `nsfs`.
fn is_namespace(path: &Path) -> io::Result<bool> {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let found = rustix::fs::statfs(path)?;
    // The field's type differs between architectures.
    Ok(u64::try_from(found.f_type).is_ok_and(|kind| kind == NSFS_MAGIC))
}
