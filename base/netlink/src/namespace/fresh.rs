//! The one unsafe call of the workspace: unshare(2), on a thread that is made for it.

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
