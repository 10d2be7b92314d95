//! `cargo xtask plugin`: the CNI plugin as it is shipped, a program that starts as soon as one can.
//!
//! Each start of a container waits for it, and without ports to map most of that is the start of its process. Linked
//! statically it looks for no libraries; at fixed addresses, as Go links the plugins it stands beside, nothing of it has to
//! be relocated: a fifth of what a call takes (`make bench BENCH=cni`). What reads from the network stays where nobody
//! knows: the agent, whose program is another.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::cargo;

/// For the program alone: what it is linked with is as it is for any other.
const FLAGS: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "relocation-model=static"];

/// Reads the words of the command line and builds.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<String> {
    let profile = match words {
        [] => "release",
        ["--profile", profile] => profile,
        _ => bail!("usage: cargo xtask plugin [--profile release|dist|dev]"),
    };
    build(&mut cargo(root), profile)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let file = root.join(target).join(folder(profile)).join("portolan-cni");
    Ok(format!("portolan-cni in {}", file.display()))
}

/// Builds it with this profile, by a `cargo` that may have been told more.
pub(crate) fn build(cargo: &mut Command, profile: &str) -> Result<()> {
    let words = ["rustc", "--quiet", "--locked", "--package", "portolan", "--bin", "portolan-cni"];
    let status = cargo.args(words).args(["--profile", profile, "--"]).args(FLAGS).status();
    let status = status.context("cannot start cargo")?;
    if !status.success() {
        bail!("the CNI plugin cannot be built: cargo ended with {status}");
    }
    Ok(())
}

/// The folder of what is built with a profile.
pub(crate) fn folder(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}
