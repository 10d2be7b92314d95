//! Processes as `/proc` shows them: which one has a socket, which ones are in a namespace, and whether one is still
//! the one that it was.
//!
//! Everything is read at one moment and may be out of date at the next. Nothing here is an error: a process that
//! ended, or one that we may not look into, is not in the answer. Whose sockets these are to begin with says
//! [`crate::sockdiag`]. Format: proc(5), proc_pid_stat(5).

use std::{
    collections::{HashMap, HashSet},
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessId {
    /// Its number in our PID namespace.
    pub pid: u32,
    /// Its short name (`/proc/PID/comm`): at most 15 bytes, without arguments. A process chooses its own.
    pub command: String,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.command.escape_debug(), self.pid)
    }
}

impl ProcessId {
    fn of(pid: u32) -> Option<Self> {
        let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Self { pid, command: command.trim_end().to_owned() })
    }
}

/// One process and no other that gets its number later: a number is given again, but not with the same start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PidIdentity {
    /// The number.
    pub pid: u32,
    /// When it started, in clock ticks after boot; see [`start_time`]. Numbers of two boots cannot be compared.
    pub start_time: u64,
}

impl PidIdentity {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)? })
    }

    /// This process.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id())
    }

    /// Whether it runs. One that ended and was not yet waited for does not.
    pub fn is_alive(&self) -> bool {
        Stat::of(self.pid).is_some_and(|stat| stat.start_time == self.start_time && !stat.ended())
    }

    /// Sends a signal to this process and to no other that has its number by now. `false` when it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(false) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        // The handle stands for whoever has the number now; after this check, for the right one.
        if !self.is_alive() {
            return Ok(false);
        }
        match pidfd_send_signal(handle, signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is used of `/proc/PID/stat`.
struct Stat {
    state: u8,
    parent: u32,
    start_time: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field, the name, is in brackets and may itself contain brackets, blanks and bytes that are no text:
    /// what follows the last bracket counts.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|&byte| byte == b')')?;
        let mut fields = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
        // Fields 3 and 4, then 22.
        let state = *fields.next()?.as_bytes().first()?;
        let parent = fields.next()?.parse().ok()?;
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Self { state, parent, start_time })
    }

    fn ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// When a process started, in clock ticks after boot (field 22 of `/proc/PID/stat`); `None` when there is none.
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.start_time)
}

/// The process that has this socket open, the one with the lowest number if several have; `None` when no process
/// that we may look into has it. Looks at every open file of every process: some milliseconds.
pub fn owner_of(inode: u64) -> Option<ProcessId> {
    owners_of(&HashSet::from([inode])).remove(&inode)
}

/// [`owner_of`] for several sockets in one go. Inode 0, which sockets without an owner have, has none.
pub fn owners_of(inodes: &HashSet<u64>) -> HashMap<u64, ProcessId> {
    let mut owners = HashMap::new();
    let wanted = inodes.iter().filter(|&&inode| inode != 0).count();
    for pid in pids() {
        if owners.len() >= wanted {
            break;
        }
        for inode in inodes_of(pid).filter(|inode| inodes.contains(inode)) {
            if !owners.contains_key(&inode)
                && let Some(process) = ProcessId::of(pid)
            {
                owners.insert(inode, process);
            }
        }
    }
    owners
}

/// The sockets, by inode, that a process and its descendants have open.
pub fn inodes_of_tree(pid: u32) -> HashSet<u64> {
    tree(pid).into_iter().flat_map(inodes_of).collect()
}

/// A process and its descendants, parents first; empty when there is no such process. A descendant whose parent ended
/// has been given to another one (init, or a subreaper) and is not found.
pub fn tree(root: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut there = false;
    for pid in pids() {
        if let Some(stat) = Stat::of(pid) {
            there |= pid == root;
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = if there { vec![root] } else { Vec::new() };
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children.remove(&pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The processes in the network namespace with this inode ([`crate::namespace::Namespace::inode`]), by the namespace
/// of their main thread. Needs the right to look into them (`PTRACE_MODE_READ`).
pub fn processes_in_namespace(inode: u64) -> Vec<PidIdentity> {
    pids()
        .into_iter()
        .filter(|pid| fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|found| found.ino() == inode))
        .filter_map(PidIdentity::of)
        .filter(PidIdentity::is_alive)
        .collect()
}

/// All processes, by rising number.
fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

fn inodes_of(pid: u32) -> impl Iterator<Item = u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    files.filter_map(|file| socket_inode(&fs::read_link(file.path()).ok()?))
}

/// The number in `socket:[4711]`.
fn socket_inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests;
