//! Taking a cluster down, in whatever state it is: also after a crash or a start that failed half-way.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    cgroup::Cgroup,
    command,
    layout::{self, Layout},
    network,
    tools::Say,
};

/// Removes the cluster `name`: processes, containers, namespaces, mounts, cgroups, files. One that is not there is fine.
pub fn down(name: &str, say: Say<'_>) -> Result<()> {
    let layout = Layout::new(name)?;
    let lock = lock(&layout)?;
    remove(&layout, say)?;
    lock.forget()
}

/// What of a cluster is there, in words; nothing after [`down`].
pub fn remains(name: &str) -> Result<Vec<String>> {
    let layout = Layout::new(name)?;
    let mut found = Vec::new();
    let cgroup = Cgroup::new(layout.cgroup());
    found.extend(cgroup.processes()?.into_iter().map(|pid| format!("process {pid}")));
    if cgroup.exists() {
        found.push(format!("cgroup {}", cgroup.path()));
    }
    found.extend(network::namespaces(&layout).into_iter().map(|name| format!("network namespace {name}")));
    found.extend(mounts(&layout.folder)?.into_iter().map(|path| format!("mount {}", path.display())));
    if layout.folder.exists() {
        found.push(format!("folder {}", layout.folder.display()));
    }
    Ok(found)
}

/// Goes on after a failure, and reports every one.
pub(crate) fn remove(layout: &Layout, say: Say<'_>) -> Result<()> {
    let cgroup = Cgroup::new(layout.cgroup());
    let count = cgroup.processes().map_or(0, |processes| processes.len());
    if count > 0 {
        say(&format!("{count} processes end"));
    }
    let mut failures: Vec<String> = Vec::new();
    let mut attempt = |done: Result<()>| failures.extend(done.err().map(|error| format!("{error:#}")));
    // A node's first process takes its containers with it: all of them are in its PID namespace, and their mounts in its
    // mount namespace.
    attempt(cgroup.kill());
    for namespace in network::namespaces(layout) {
        attempt(network::remove_namespace(&namespace));
    }
    attempt(cgroup.remove());
    for path in mounts(&layout.folder).unwrap_or_default().iter().rev() {
        attempt(command::run(Command::new("umount").arg("--lazy").arg(path)).map(|_| ()));
    }
    if layout.folder.exists() && mounts(&layout.folder)?.is_empty() {
        let removed = fs::remove_dir_all(&layout.folder);
        attempt(removed.with_context(|| format!("cannot remove {}", layout.folder.display())));
    }
    if !failures.is_empty() {
        bail!("{} is not gone:\n{}", layout.name, failures.join("\n"));
    }
    Ok(())
}

/// The mounts below a folder in our own mount namespace. We make none; a person may have.
fn mounts(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let places = all.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(places.filter(|place| place.starts_with(folder)).collect())
}

/// Nobody else starts or removes the cluster while this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    _file: File,
}

/// Waits until nobody else starts or removes the cluster.
pub(crate) fn lock(layout: &Layout) -> Result<Lock> {
    let base = layout::base();
    fs::create_dir_all(&base).with_context(|| format!("cannot make {}", base.display()))?;
    let path = base.join(format!(".{}.lock", layout.name));
    loop {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        // The one before may have removed the file that we waited for.
        let same = fs::metadata(&path).is_ok_and(|there| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        });
        if same {
            return Ok(Lock { path, _file: file });
        }
    }
}

impl Lock {
    /// Removes its file too, and the folder of all clusters when this was the last.
    fn forget(self) -> Result<()> {
        fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))?;
        if let Some(base) = self.path.parent() {
            // Other clusters are the usual reason why it stays.
            let _ = fs::remove_dir(base);
        }
        Ok(())
    }
}
