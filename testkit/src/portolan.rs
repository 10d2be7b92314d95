//! The real binary, started as a user would start it.

use std::{
    net::SocketAddr,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{Background, net::Namespace, programs};

/// The user and group of tests without privileges: Debian's `nobody` and `nogroup`.
const NOBODY: u32 = 65534;

/// The binary that cargo builds from this tree, as fresh as its sources.
///
/// `PORTOLAN_BIN` names another one: an installed package, say. Otherwise cargo is asked once per test process;
/// a stale binary would make the tests speak about yesterday's code.
#[track_caller]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("PORTOLAN_BIN") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    // target/<profile>/deps/<test>-<hash>: the folder above `deps` says where to build, and with which profile.
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("where is this program? {error}"));
    let folder = test.ancestors().find(|folder| folder.ends_with("deps")).and_then(Path::parent);
    let Some(folder) = folder.or(test.parent()) else { panic!("{} is in no folder", test.display()) };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "portolan", "--target-dir"]);
    command
        .arg(folder.parent().unwrap_or(folder))
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    programs::run(&mut command);
    folder.join("portolan")
}

/// What a finished command said.
#[derive(Clone, Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Panics with everything it said unless it ended with 0; then gives its standard output.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}\n--- stdout\n{}--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    /// Panics with everything it said unless it failed with `code`; then gives its standard error.
    #[track_caller]
    pub fn failure(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// A machine on which Portolan runs: a namespace for the network and a folder for its state.
///
/// Inside its own namespace every default address and port is free, so the tests use the defaults that users use.
#[derive(Debug)]
pub struct Portolan {
    namespace: Option<Namespace>,
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
        let machine = Self { namespace, folder, user, executable };
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
        let program = program.as_ref();
        let found = program.to_str().and_then(programs::find).unwrap_or_else(|| program.to_owned());
        let mut words: Vec<PathBuf> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.push(programs::need("nsenter"));
            words.push(format!("--net={}", namespace.path().display()).into());
            words.push("--".into());
        }
        if let Some(user) = self.user {
            words.push(programs::need("setpriv"));
            words.extend([format!("--reuid={user}").into(), format!("--regid={user}").into()]);
            words.extend(["--clear-groups", "--"].map(PathBuf::from));
        }
        words.push(found);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env_clear().current_dir(self.folder.path());
        for kept in ["PATH", "LANG", "RUST_BACKTRACE", "RUST_LOG"] {
            if let Some(value) = std::env::var_os(kept) {
                command.env(kept, value);
            }
        }
        command.env("HOME", self.folder.path()).env("PORTOLAN_DATA", self.data());
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

    /// Stops it as Ctrl-C would, and waits.
    #[track_caller]
    pub fn interrupt(&self, background: &mut Background) -> ExitStatus {
        background.signal(Signal::INT);
        background.wait(Duration::from_secs(20))
    }
}

impl Default for Portolan {
    fn default() -> Self {
        Self::new()
    }
}
