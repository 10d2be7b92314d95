//! Starts a program that goes on without us: in its cgroup, in its namespaces, with a log and a clean environment.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{cgroup::Cgroup, command};

/// Moves itself into the cgroups named before `--`, and becomes what is named behind it.
const INTO_CGROUPS: &str =
    r#"while [ "$1" != -- ]; do echo 0 >"$1" || exit 1; shift; done; shift; exec "$@""#;

/// A program that is to run in the background.
pub(crate) struct Daemon {
    /// Its cgroup, made when it is not there.
    pub(crate) cgroup: Cgroup,
    /// The command that enters its namespaces: `nsenter` with its arguments.
    pub(crate) enter: Vec<String>,
    /// The program as its namespaces see it, and its arguments.
    pub(crate) words: Vec<String>,
    /// More than `PATH` and `HOME`.
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Where what it says goes; what is there stays.
    pub(crate) log: PathBuf,
}

impl Daemon {
    /// Starts it. Whether it stays is for the caller to see.
    pub(crate) fn start(self) -> Result<()> {
        self.cgroup.make()?;
        let mut command = Command::new("sh");
        command.args(["-c", INTO_CGROUPS, "sh"]).args(self.cgroup.doors()?).arg("--").args(&self.enter);
        // `setsid --fork`, not `&` of a shell: that would make the program ignore SIGINT, and every container below it.
        command.args(["setsid", "--fork", "env", "-i", "--default-signal=INT,QUIT"]);
        command.args(["PATH=/opt/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]);
        command.args(self.environment.iter().map(|(name, value)| format!("{name}={value}")));
        command.args(&self.words);
        let log = log(&self.log)?;
        command.stdin(Stdio::null()).current_dir("/");
        command.stdout(log.try_clone().context("cannot share a log")?).stderr(log);
        let status =
            command.status().with_context(|| format!("cannot start {}", command::shown(&command)))?;
        if !status.success() {
            bail!("{} did not start ({status}): see {}", self.words.join(" "), self.log.display());
        }
        Ok(())
    }
}

fn log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))
}

/// The last lines of a log, for an error.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
