//! The real binary, started as a user would start it.

use std::{
    fs::File,
    net::SocketAddr,
    os::{
        fd::AsRawFd as _,
        unix::fs::{PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{
    Background,
    net::{Namespace, private_mounts},
    programs,
};

pub use binary::{binary, built, cargo, plugin};
pub use output::Output;

mod binary;
mod output;

/// The user and group of tests without privileges: Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// A machine on which Portolan runs: a namespace for the network, one for named namespaces, a folder for its state.
///
/// Inside its own namespace every default address and port is free, so the tests use the defaults that users use.
#[derive(Debug)]
pub struct Portolan {
    namespace: Option<Namespace>,
    mounts: Option<File>,
    folder: TempDir,
    user: Option<u32>,
    executable: PathBuf,
}

impl Portolan {
    /// A machine for root, in a namespace of its own.
    #[track_caller]
    pub fn new() -> Self {
        Self::build_machine(Some(Namespace::new()), None)
    }

    /// A machine for a user without any privilege, in a namespace of its own (which needs root to make).
    #[track_caller]
    pub fn unprivileged() -> Self {
        Self::build_machine(Some(Namespace::new()), Some(NOBODY))
    }

    /// The machine and the user as they are: what a test without root can have. Ports must be chosen by the test.
    #[track_caller]
    pub fn here() -> Self {
        Self::build_machine(None, None)
    }

    #[track_caller]
    fn build_machine(namespace: Option<Namespace>, user: Option<u32>) -> Self {
        let folder = match TempDir::with_prefix("portolan-test-") {
            Ok(folder) => folder,
            Err(error) => panic!("cannot make a temporary folder: {error}"),
        };
        let mut executable = binary().to_owned();
        if let Some(user) = user {
            // The build folder may be closed to other users: they get a copy.
            let copy = folder.path().join("portolan");
            let prepared = std::fs::copy(&executable, &copy)
                .and_then(|_| std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)))
                .and_then(|()| chown(folder.path(), Some(user), Some(user)));
            if let Err(error) = prepared {
                panic!("cannot prepare {}: {error}", folder.path().display());
            }
            executable = copy;
        }
        // Its own /run/netns: Portolan names namespaces after instances, and sweeps those that belong to nobody.
        let mounts = namespace.is_some().then(private_mounts);
        let machine = Self { namespace, mounts, folder, user, executable };
        if machine.user.is_none() {
            let _ = std::fs::create_dir(machine.data());
        }
        machine
    }

    /// The network, when it is its own.
    #[track_caller]
    pub fn namespace(&self) -> &Namespace {
        match &self.namespace {
            Some(namespace) => namespace,
            None => panic!("this test runs on the machine's own network"),
        }
    }

    /// Where Portolan keeps its state.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A folder for files of the test; it goes away with this value.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A command on this machine: in its namespace, as its user, with its state and with none of our environment.
    #[track_caller]
    pub fn program(&self, program: impl AsRef<Path>) -> Command {
        self.program_as(self.user, program.as_ref())
    }

    /// [`Portolan::program`] as the user of the test, to look at what the machine's own user may not see.
    #[track_caller]
    pub fn observe(&self, program: &str) -> Command {
        self.program_as(None, program.as_ref())
    }

    #[track_caller]
    fn program_as(&self, user: Option<u32>, program: &Path) -> Command {
        let found = program.to_str().and_then(programs::find).unwrap_or_else(|| program.to_owned());
        let mut words: Vec<PathBuf> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.push(programs::need("nsenter"));
            words.push(format!("--net={}", namespace.path().display()).into());
            if let Some(mounts) = &self.mounts {
                words.push(format!("--mount=/proc/{}/fd/{}", std::process::id(), mounts.as_raw_fd()).into());
            }
            words.push("--".into());
        }
        // A shell without job control starts what is in its background with SIGINT ignored, and so would be everything
        // that these tests interrupt. Entering a mount namespace leads to its root folder.
        words.push(programs::need("env"));
        words.push("--default-signal".into());
        words.push(format!("--chdir={}", self.folder.path().display()).into());
        if let Some(user) = user {
            words.push(programs::need("setpriv"));
            words.extend([format!("--reuid={user}").into(), format!("--regid={user}").into()]);
            words.extend(["--clear-groups", "--"].map(PathBuf::from));
        }
        words.push(found);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().current_dir(self.folder.path());
        for kept in ["PATH", "LANG", "RUST_BACKTRACE", "PORTOLAN_LOG"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command
            .env("HOME", self.folder.path())
            .env("TMPDIR", self.folder.path())
            .env("PORTOLAN_DATA", self.data());
        command
    }

    /// `portolan` with these arguments, not started yet.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&self.executable);
        command.args(arguments);
        command
    }

    /// Runs `portolan` with these arguments to its end.
    #[track_caller]
    pub fn portolan(&self, arguments: &[&str]) -> Output {
        let output = programs::output(&mut self.command(arguments));
        Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Starts `portolan` with these arguments beside the test.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Background {
        Background::start(&mut self.command(arguments))
    }

    /// Starts `portolan up` with these arguments and waits until its API answers.
    #[track_caller]
    pub fn up(&self, arguments: &[&str]) -> Background {
        let mut up = self.start(&[&["up"], arguments].concat());
        self.wait_ready(&mut up);
        up
    }

    /// Waits until the API of `up` (or of `demo`) answers at its default address.
    #[track_caller]
    pub fn wait_ready(&self, up: &mut Background) {
        let address = SocketAddr::from(([127, 0, 0, 1], 10080));
        let ready = crate::eventually_ok(Duration::from_secs(20), || {
            if !up.is_running() {
                return Ok(false);
            }
            let get = || crate::ask::http_get(address, "/healthz");
            match &self.namespace {
                Some(namespace) => namespace.run(get),
                None => get(),
            }
            .map(|_| true)
        });
        match ready {
            Ok(true) => {}
            Ok(false) => panic!("it ended before it was ready: {}", up.transcript()),
            Err(error) => panic!("not ready: {error}: {}", up.transcript()),
        }
    }

    /// Every process that has this machine's folder in its environment or arguments, with its command line.
    ///
    /// Those are Portolan's and all that it started, wherever they went. Parts of a test's own pipelines are too.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let mark = self.folder.path().as_os_str().as_encoded_bytes();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let ours =
                [&environment, &command].iter().any(|text| text.windows(mark.len()).any(|part| part == mark));
            // A zombie has no command line any more, and nothing else either.
            if ours && !command.is_empty() {
                found.push((pid, String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned()));
            }
        }
        found
    }

    /// Stops it as Ctrl-C in a terminal does, which reaches its children too, and waits.
    #[track_caller]
    pub fn interrupt(&self, background: &mut Background) -> ExitStatus {
        background.signal_group(Signal::INT);
        background.wait(Duration::from_secs(20))
    }
}

impl Drop for Portolan {
    fn drop(&mut self) {
        // What outlives `up` on purpose must not outlive a test that failed.
        for (pid, _) in self.processes() {
            if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Default for Portolan {
    fn default() -> Self {
        Self::new()
    }
}
