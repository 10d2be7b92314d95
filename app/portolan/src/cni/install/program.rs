//! Which program becomes the plugin: `portolan-cni` beside this one, or else this one.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use portolan_plugin::{PROGRAM, VERSION};

/// A program that can be the plugin.
#[derive(Debug)]
pub(super) struct Program {
    /// Open at its beginning.
    pub(super) file: File,
    /// Why it is not `portolan-cni`, if it is not.
    pub(super) instead: Option<String>,
}

/// The program to install.
pub(super) fn find() -> anyhow::Result<Program> {
    let this = std::env::current_exe().context("finding this program")?;
    find_in(this.parent().unwrap_or(Path::new("/")))
}

/// The same with `portolan-cni` in this folder.
pub(super) fn find_in(folder: &Path) -> anyhow::Result<Program> {
    let path = folder.join(PROGRAM);
    match small(&path) {
        Ok(file) => Ok(Program { file, instead: None }),
        Err(error) => Ok(Program {
            // Not by its name: that may have been given to another version since this process began.
            file: File::open("/proc/self/exe").context("reading this program")?,
            instead: Some(format!(
                "the plugin is all of `portolan`, which takes some milliseconds more to start: {error:#}"
            )),
        }),
    }
}

/// `portolan-cni`, if it is of this version. An upgrade replaces two files, and may be halfway through, or replace one.
fn small(path: &PathBuf) -> anyhow::Result<File> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let asked = Command::new(path).arg("--version").env_clear().output();
    let asked = asked.with_context(|| format!("starting {}", path.display()))?;
    let version = String::from_utf8_lossy(&asked.stdout);
    if version.trim() != VERSION {
        bail!("{} is {:?} instead of {VERSION}", path.display(), version.trim());
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn beside(text: Option<&str>) -> (tempfile::TempDir, Program) {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            let path = folder.path().join(PROGRAM);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let program = find_in(folder.path()).unwrap();
        (folder, program)
    }

    #[test]
    fn the_small_program_of_the_same_version_is_the_plugin() {
        let text = format!("#!/bin/sh\necho {VERSION}\n");
        let (_folder, program) = beside(Some(&text));
        assert_eq!(program.instead, None);
        assert_eq!(program.file.metadata().unwrap().len(), text.len() as u64);
    }

    #[test]
    fn without_it_this_program_is_and_says_why() {
        let whole = fs::metadata("/proc/self/exe").unwrap().len();
        for (text, reason) in
            [(None, "No such file"), (Some("#!/bin/sh\necho portolan-cni 0.0.1\n"), "portolan-cni 0.0.1")]
        {
            let (_folder, program) = beside(text);
            let why = program.instead.unwrap();
            assert!(why.contains(reason) && why.contains(PROGRAM), "{why}");
            assert_eq!(program.file.metadata().unwrap().len(), whole);
        }
    }
}
