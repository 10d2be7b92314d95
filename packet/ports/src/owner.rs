//! Whether the owner of a lease is still there.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::Path};

pub use portolan_model::Owner;
use portolan_netlink::process::PidIdentity;

/// The process that has this number now.
pub fn process(pid: u32) -> Option<Owner> {
    PidIdentity::of(pid).map(of_identity)
}

/// This process.
pub fn this_process() -> Option<Owner> {
    PidIdentity::own().map(of_identity)
}

/// The network namespace that is mounted at `path` now.
///
/// Device and inode together tell it from every other namespace that exists at the same time, and from the plain file
/// that is left when the mount is gone. A number that the kernel gives again (nsfs counts inodes up and wraps at 2³²)
/// at the same path is taken for the same.
pub fn namespace(path: &Path) -> io::Result<Owner> {
    let found = fs::metadata(path)?;
    Ok(Owner::Namespace { path: path.to_owned(), device: found.dev(), inode: found.ino() })
}

/// Whether the owner is there: the process runs, or the file still is that namespace. A sandbox is, until its runtime
/// says otherwise.
///
/// A file that cannot be looked at for another reason than its absence counts as there: a lease that is ended too late
/// costs a port number, one that is ended too early the connections of an instance.
pub fn is_alive(owner: &Owner) -> bool {
    match owner {
        Owner::Process { pid, start_time } => PidIdentity { pid: *pid, start_time: *start_time }.is_alive(),
        Owner::Namespace { path, device, inode } => match fs::metadata(path) {
            Ok(found) => (found.dev(), found.ino()) == (*device, *inode),
            Err(error) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        },
        Owner::Sandbox { .. } => true,
    }
}

const fn of_identity(identity: PidIdentity) -> Owner {
    Owner::Process { pid: identity.pid, start_time: identity.start_time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_there_as_long_as_its_file_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cni-1");
        fs::write(&path, "").unwrap();
        let owner = namespace(&path).unwrap();
        assert!(is_alive(&owner));
        fs::write(folder.path().join("cni-2"), "").unwrap();
        fs::rename(folder.path().join("cni-2"), &path).unwrap();
        assert!(!is_alive(&owner), "another inode");
        fs::remove_file(&path).unwrap();
        assert!(!is_alive(&owner));
        assert!(namespace(&path).is_err());
    }

    #[test]
    fn a_process_is_there_and_a_sandbox_is_until_somebody_says_otherwise() {
        assert!(is_alive(&this_process().unwrap()));
        assert!(!is_alive(&Owner::Process { pid: std::process::id(), start_time: 1 }));
        assert!(is_alive(&Owner::Sandbox { id: "0f".into() }));
    }
}
