//! Programs that tests run beside ours: oracles, peers and clients.

use std::{
    ffi::OsStr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// Where `program` is. Panics with the Debian package's name when it is not installed.
#[track_caller]
pub fn need(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| {
        panic!(
            "{program} is not installed: run scripts/prerequisites, or install the package {}",
            package(program)
        )
    })
}

/// Where `program` is, when it is installed. Looks in the sbin folders too, which the PATH of a user may lack.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

/// The Debian package that has `program`; the same table as in `scripts/prerequisites`.
fn package(program: &str) -> &str {
    match program {
        "ip" | "ss" => "iproute2",
        "nft" => "nftables",
        "dig" => "bind9-dnsutils",
        "chromedriver" => "chromium-driver",
        "etcd" => "etcd-server",
        "host" => "bind9-host",
        "nc.openbsd" => "netcat-openbsd",
        "nslookup" => "bind9-dnsutils",
        "turnserver" | "turnutils_peer" | "turnutils_stunclient" | "turnutils_uclient" => "coturn",
        "nsenter" | "setpriv" | "unshare" => "util-linux",
        "pgrep" | "sysctl" => "procps",
        other => other,
    }
}

/// Runs `command` to its end and returns what it wrote; panics when it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `command` to its end and returns all of its answer; panics only when it cannot be started.
#[track_caller]
pub fn output(command: &mut Command) -> Output {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    }
}

/// A [`Command`] for `program` with `arguments`, found as [`need`] finds it.
#[track_caller]
pub fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(need(program));
    command.args(arguments);
    command
}
