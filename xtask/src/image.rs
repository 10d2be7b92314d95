//! `cargo xtask image`: Portolan's container image, from scratch, with a static program and the CNI plugin beside it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use portolan_cluster::images;

use crate::{cargo, plugin};

/// Reads the words of the command line and builds.
pub(crate) fn run(root: &Path, words: &[&str]) -> Result<String> {
    let (mut profile, mut output) = ("release", None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (*word, words.next()) {
            ("--profile", Some(value)) => profile = value,
            ("--output", Some(value)) => output = Some(PathBuf::from(value)),
            _ => bail!("usage: cargo xtask image [--profile release|dist|dev] [--output FILE]"),
        }
    }
    let file = build(root, profile, output)?;
    Ok(format!("portolan:{} in {}", env!("CARGO_PKG_VERSION"), file.display()))
}

/// Builds the binary with this profile and the image of it; where it is.
pub(crate) fn build(root: &Path, profile: &str, output: Option<PathBuf>) -> Result<PathBuf> {
    let program = build_static(root, profile)?;
    let file = output.unwrap_or_else(|| root.join("target/image/portolan.tar"));
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    images::portolan(&program, env!("CARGO_PKG_VERSION"))?.write(&file)?;
    Ok(file)
}

/// The static programs, in a target folder of its own: other flags would build everything anew in the usual one.
fn build_static(root: &Path, profile: &str) -> Result<PathBuf> {
    let architecture = std::env::consts::ARCH;
    // Named explicitly, so that the flag is not for build scripts and macros, which are libraries of the compiler.
    let target = format!("{architecture}-unknown-linux-gnu");
    let folder = root.join("target/static");
    let cargo = || {
        let mut cargo = cargo(root);
        cargo
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_BUILD_TARGET", &target)
            .env("CARGO_TARGET_DIR", &folder);
        cargo
    };
    let words = ["build", "--quiet", "--locked", "--package", "portolan", "--bin", "portolan", "--profile"];
    let status = cargo().args(words).arg(profile).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("the static binary cannot be built: cargo ended with {status}");
    }
    plugin::build(&mut cargo(), profile)?;
    Ok(folder.join(&target).join(plugin::folder(profile)).join("portolan"))
}
