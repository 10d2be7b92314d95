//! The cgroup of a cluster: how its processes are found again, also after a crash of whoever started them.
//!
//! Works with version 1, where each hierarchy has the same folders (that is what kubelet's `cgroupRoot` expects), with
//! version 2, and with both at once. Below `portolan-cluster-NAME/` are `control/PROGRAM`, and for each node
//! `nodeN/daemons/PROGRAM` beside kubelet's `nodeN/kubepods`: in version 2 a group that has groups below it may have
//! no processes of its own.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A group of processes, the same path in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup(String);

/// A mounted hierarchy.
struct Hierarchy {
    folder: PathBuf,
    second: bool,
}

impl Cgroup {
    /// The group at `path`, without a slash in front.
    pub(crate) fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// A group below this one.
    pub(crate) fn below(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// With a slash in front, as kubelet wants it.
    pub(crate) fn path(&self) -> String {
        format!("/{}", self.0)
    }

    /// Makes it in every hierarchy, unless it is there.
    pub(crate) fn make(&self) -> Result<()> {
        let hierarchies = hierarchies()?;
        // Beside version 1, version 2 has nothing to divide that anybody here would use.
        let alone = hierarchies.iter().all(|hierarchy| hierarchy.second);
        for hierarchy in hierarchies {
            let mut folder = hierarchy.folder.clone();
            for name in self.0.split('/') {
                let above = folder.clone();
                folder.push(name);
                if alone {
                    delegate(&above);
                }
                match fs::create_dir(&folder) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error)
                            .with_context(|| format!("cannot make the cgroup {}", folder.display()));
                    }
                    _ => {}
                }
                // In version 1 a new cpuset is empty, and takes no process until it has cores and memory.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    if !hierarchy.second
                        && let Ok(value) = fs::read_to_string(above.join(file))
                    {
                        let _ = fs::write(folder.join(file), value.trim());
                    }
                }
            }
        }
        Ok(())
    }

    /// The files that take a process in: one for each hierarchy.
    pub(crate) fn doors(&self) -> Result<Vec<PathBuf>> {
        Ok(self.folders()?.into_iter().map(|folder| folder.join("cgroup.procs")).collect())
    }

    /// The processes in it and below it.
    pub(crate) fn processes(&self) -> Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        for folder in self.folders()? {
            collect(&folder, &mut found);
        }
        Ok(found)
    }

    /// The processes in it that run a program of this name.
    pub(crate) fn processes_of(&self, program: &str) -> Result<Vec<i32>> {
        let runs = |pid: &i32| {
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program))
        };
        Ok(self.processes()?.into_iter().filter(runs).collect())
    }

    /// Kills everything in it and below it, and waits until it is gone.
    pub(crate) fn kill(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let processes = self.processes()?;
            if processes.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the processes {processes:?} in the cgroup {} do not end", self.0);
            }
            for pid in processes {
                kill(pid);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes it and what is below it; nothing may run in it any more.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for folder in self.folders()? {
            // The kernel keeps a group busy for a moment after its last process has ended.
            loop {
                match remove(&folder) {
                    Ok(()) => break,
                    Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("cannot remove the cgroup {}", folder.display()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether it exists in some hierarchy.
    pub(crate) fn exists(&self) -> bool {
        self.folders().is_ok_and(|folders| !folders.is_empty())
    }

    fn folders(&self) -> Result<Vec<PathBuf>> {
        let all = hierarchies()?.into_iter().map(|hierarchy| hierarchy.folder.join(&self.0));
        Ok(all.filter(|folder| folder.is_dir()).collect())
    }
}

/// Kills one process; one that has ended already is fine.
pub(crate) fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn hierarchies() -> Result<Vec<Hierarchy>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((place, kind)) = line.split_once(" - ") else { continue };
        let second = match kind.split(' ').next() {
            Some("cgroup") => false,
            Some("cgroup2") => true,
            _ => continue,
        };
        let fields: Vec<&str> = place.split(' ').collect();
        let Some(folder) = fields.get(4).filter(|folder| folder.starts_with("/sys/fs/cgroup")) else {
            continue;
        };
        let folder = PathBuf::from(folder);
        if found.iter().all(|other| other.folder != folder) {
            found.push(Hierarchy { folder, second });
        }
    }
    if found.is_empty() {
        bail!("no cgroups are mounted below /sys/fs/cgroup");
    }
    Ok(found)
}

/// Version 2: what this group may divide, the groups below it may too. What the kernel refuses is left out.
fn delegate(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn collect(folder: &Path, found: &mut BTreeSet<i32>) {
    let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    found.extend(processes.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    for child in children(folder) {
        collect(&child, found);
    }
}

fn remove(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove(&child)?;
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
