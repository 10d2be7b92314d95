//! Anonymous namespaces that last as long as a closure.

use std::{ffi::CStr, fs::File, path::Path};

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::{FOLDER, on_fresh_thread, unshare_mounts, unshare_network};
use crate::programs;

/// Runs `work` on a fresh thread in a new, empty network namespace with loopback up.
///
/// Commands and threads that `work` starts are in it too.
pub fn private_namespace<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_fresh_thread(|| {
        enter(false);
        work()
    })
}

/// As [`private_namespace`], with mounts of its own: /run/netns is empty and seen by nobody else.
///
/// For tests that make named namespaces under fixed names, or that list all of them.
pub fn private_machine<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    on_fresh_thread(|| {
        enter(true);
        hide_named_namespaces();
        work()
    })
}

/// A mount namespace as [`private_machine`] has, for commands: `nsenter --mount=/proc/<pid>/fd/<number>`.
///
/// It lasts as long as the file is open or a process is in it.
pub(crate) fn private_mounts() -> File {
    on_fresh_thread(|| {
        if let Err(error) = unshare_mounts() {
            panic!("cannot make a mount namespace: {error}");
        }
        hide_named_namespaces();
        match File::open("/proc/thread-self/ns/mnt") {
            Ok(file) => file,
            Err(error) => panic!("cannot open a mount namespace: {error}"),
        }
    })
}

/// Mounts an empty folder over /run/netns, in the mount namespace of the calling thread and in no other.
fn hide_named_namespaces() {
    // Without this a mount made here would appear on the machine: systemd makes / a shared mount.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    if let Err(error) = mount_change("/", private) {
        panic!("cannot make the mounts private: {error}");
    }
    let folder = Path::new(FOLDER);
    if let Err(error) = std::fs::create_dir_all(folder) {
        panic!("cannot make {}: {error}", folder.display());
    }
    if let Err(error) = mount("portolan-test", folder, "tmpfs", MountFlags::empty(), None::<&CStr>) {
        panic!("cannot mount a tmpfs on {}: {error}", folder.display());
    }
}

fn enter(mounts: bool) {
    if let Err(error) = unshare_network(mounts) {
        panic!("cannot make a namespace: {error}");
    }
    programs::run(&mut programs::command("ip", ["link", "set", "lo", "up"]));
}
