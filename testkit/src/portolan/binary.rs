//! Where the binary under test is.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use crate::programs;

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

/// The CNI plugin beside [`binary`]. A package may be without it: then `portolan` is the plugin.
#[track_caller]
pub fn plugin() -> PathBuf {
    let small = binary().with_file_name("portolan-cni");
    if small.exists() { small } else { binary().to_owned() }
}

/// Cargo, as a person would start it.
///
/// A program that cargo runs has words of cargo's in its environment, of the package that it comes from. Build scripts
/// of dependencies ask for them (ring's: `CARGO_PKG_NAME`), so a build with them would make these dependencies and all
/// that stands above them anew, and the next one without them again.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

fn build() -> PathBuf {
    built(&["--package", "portolan"]).join("portolan")
}

/// Builds this part of the tree, as `cargo build` names it, with the profile of the test; answers the folder of what was
/// built. Programs of a package's examples are in its `examples`: `cargo test --tests` leaves old ones there.
#[track_caller]
pub fn built(what: &[&str]) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>: the folder above `deps` says where to build, and with which profile.
    let test = std::env::current_exe().unwrap_or_else(|error| panic!("where is this program? {error}"));
    let folder = test.ancestors().find(|folder| folder.ends_with("deps")).and_then(Path::parent);
    let Some(folder) = folder.or(test.parent()) else { panic!("{} is in no folder", test.display()) };
    let mut command = cargo();
    command.args(["build", "--quiet"]).args(what).arg("--target-dir");
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
    folder.to_owned()
}
