//! The unsafe call of the workspace: unshare(2).

#![allow(unsafe_code)]

use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{NamespaceError, on_thread};

/// Runs `work` on a thread of its own in a new network namespace, and returns what it returned.
pub(super) fn in_new_namespace<T: Send>(
    action: &str,
    work: impl FnOnce() -> T + Send,
) -> Result<T, NamespaceError> {
    on_thread(action, || {
        // SAFETY: unshare is unsafe for what CLONE_FILES does: a thread with a file table of its own breaks the
        // ownership of descriptors that came from other threads. CLONE_NEWNET alone leaves the file table shared, and
        // the thread, whose network namespace it changes, ends with `work`.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
            .map_err(|error| NamespaceError::io(action)(error.into()))?;
        Ok(work())
    })
}

/// Gives the calling thread a mount namespace of its own. For a program that is about to become another by exec:
/// what it then mounts, the new program sees and nobody else, once the mounts' propagation has been cut too
/// (mount_namespaces(7)).
pub fn isolate_mounts() -> Result<(), NamespaceError> {
    // SAFETY: as above; CLONE_NEWNS (which implies CLONE_FS, the thread's own root and working folder) leaves the file
    // table shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
        .map_err(|error| NamespaceError::io("making a mount namespace")(error.into()))
}
