//! Networks for tests: namespaces, links between them, and threads inside them.
//!
//! Two kinds. [`Namespace`] has a name, can be linked to others and be entered by commands: for topologies.
//! [`private_namespace`] is anonymous and ends with its closure: for tests of one kernel feature.

use std::{
    fs::File,
    net::IpAddr,
    os::fd::{AsFd as _, BorrowedFd},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rustix::{
    io,
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::programs;

mod link;
mod private;

pub use link::{End, link};
pub(crate) use private::private_mounts;
pub use private::{private_machine, private_namespace};

/// Names begin so: `ptk-<process id>-<number>`, by which namespaces of dead test processes are known.
const PREFIX: &str = "ptk";

/// Where `ip netns` keeps named namespaces.
const FOLDER: &str = "/run/netns";

/// A named network namespace with loopback up, deleted on drop unless it was there before.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
    borrowed: bool,
}

impl Namespace {
    /// Makes one with a name of its own. The first call also removes what dead test processes left behind.
    #[track_caller]
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEEP.call_once(remove_stale);
        let name = format!("{PREFIX}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        programs::run(&mut programs::command("ip", ["netns", "add", &name]));
        let mut namespace = Self::existing(&name);
        namespace.borrowed = false;
        namespace.ip("link set lo up");
        namespace
    }

    /// One that somebody else made, and will delete.
    #[track_caller]
    pub fn existing(name: &str) -> Self {
        let path = Path::new(FOLDER).join(name);
        let handle =
            File::open(&path).unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
        Self { name: name.to_owned(), handle, borrowed: true }
    }

    /// Its name, as `ip netns exec` takes it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that names it.
    pub fn path(&self) -> PathBuf {
        Path::new(FOLDER).join(&self.name)
    }

    /// The open namespace, for system calls.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Runs `work` on a fresh thread inside, and returns its value. A panic inside is a panic here.
    ///
    /// A socket belongs to the namespace in which it was made: one that `work` returns still works there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        on_fresh_thread(|| {
            if let Err(error) = move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network)) {
                panic!("cannot enter {}: {error}", self.name);
            }
            work()
        })
    }

    /// A command that runs inside. It keeps this machine's /sys, which `ip netns exec` would remount.
    #[track_caller]
    pub fn command(&self, program: &str) -> Command {
        let mut command = programs::command("nsenter", [format!("--net={}", self.path().display())]);
        command.arg("--").arg(programs::find(program).unwrap_or_else(|| program.into()));
        command
    }

    /// Runs `ip` inside with these words and returns what it prints; panics when it fails.
    #[track_caller]
    pub fn ip(&self, words: &str) -> String {
        programs::run(programs::command("ip", ["-n", &self.name]).args(words.split_whitespace()))
    }

    /// Writes a setting under /proc/sys as this namespace sees it: `sysctl("net/ipv4/ip_forward", "1")`.
    #[track_caller]
    pub fn sysctl(&self, path: &str, value: &str) {
        let file = Path::new("/proc/sys").join(path);
        if let Err(error) = self.run(|| std::fs::write(&file, value)) {
            panic!("cannot write {value} to {} in {}: {error}", file.display(), self.name);
        }
    }

    /// Reads a setting under /proc/sys as this namespace sees it.
    #[track_caller]
    pub fn read_sysctl(&self, path: &str) -> String {
        let file = Path::new("/proc/sys").join(path);
        match self.run(|| std::fs::read_to_string(&file)) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => panic!("cannot read {} in {}: {error}", file.display(), self.name),
        }
    }

    /// Makes it forward packets of both families between its links.
    pub fn forward(&self) {
        self.sysctl("net/ipv4/ip_forward", "1");
        self.sysctl("net/ipv6/conf/all/forwarding", "1");
    }

    /// Makes it tell every refusal by ICMP, however many there are.
    pub fn tell_all_refusals(&self) {
        self.sysctl("net/ipv4/icmp_ratelimit", "0");
        self.sysctl("net/ipv6/icmp/ratelimit", "0");
        self.sysctl("net/ipv4/icmp_msgs_per_sec", "1000000");
        self.sysctl("net/ipv4/icmp_msgs_burst", "100000");
    }

    /// Adds a route: `route("default via 10.0.0.1")`; the family is that of the first address in it.
    #[track_caller]
    pub fn route(&self, words: &str) {
        let family = if words.contains(':') { "-6" } else { "-4" };
        self.ip(&format!("{family} route add {words}"));
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.borrowed {
            return;
        }
        // Nothing to do about a failure here: the sweep of the next test process tries again.
        let _ = programs::output(&mut programs::command("ip", ["netns", "del", &self.name]));
    }
}

/// Runs `work` on a thread of its own, whose namespaces it may change, and hands its panic on.
pub(crate) fn on_fresh_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let name = thread::current().name().unwrap_or("namespace").to_owned();
    thread::scope(|scope| {
        let started = thread::Builder::new().name(name).spawn_scoped(scope, work);
        match started {
            Ok(handle) => match handle.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            },
            Err(error) => panic!("cannot start a thread: {error}"),
        }
    })
}

/// Gives the calling thread a new network namespace, and with `mounts` a mount namespace too.
pub(crate) fn unshare_network(mounts: bool) -> io::Result<()> {
    unshare(if mounts { UnshareFlags::NEWNET | UnshareFlags::NEWNS } else { UnshareFlags::NEWNET })
}

/// Gives the calling thread a new mount namespace.
pub(crate) fn unshare_mounts() -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // Deprecated because with UnshareFlags::FILES it could close other threads' descriptors, which is never passed
    // here; its replacement is the same call under `unsafe`.
    #[expect(deprecated)]
    rustix::thread::unshare(flags)
}

/// Removes the namespaces of test processes that died before they could.
fn remove_stale() {
    let Ok(entries) = std::fs::read_dir(FOLDER) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let mut parts = name.split('-');
        if parts.next() == Some(PREFIX)
            && let Some(pid) = parts.next()
            && pid.bytes().all(|b| b.is_ascii_digit())
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = programs::output(&mut programs::command("ip", ["netns", "del", &name]));
        }
    }
}

/// `10.0.0.1/24` to its address.
fn address_of(with_prefix: &str) -> IpAddr {
    let text = with_prefix.split('/').next().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("{with_prefix} is no address with a prefix length"))
}
