//! Project chores that are too long for a line of the Makefile: `cargo xtask <chore>`.
//!
//! - `layers`: no crate depends on one that it may not know (`layers.rs` has the rule);
//! - `links`: what documents and comments point to exists, and files stay small (`links.rs`, `files.rs`);
//! - `man`: the man pages, from the binary that knows its flags;
//! - `cluster`: a real Kubernetes cluster of network namespaces (`cluster.rs`, docs/cluster.md);
//! - `plugin`: the CNI plugin as it is shipped (`plugin.rs`);
//! - `image`: Portolan's container image, without a registry or a build tool for containers;
//! - `conformance`: Kubernetes' own end-to-end tests against such a cluster (`conformance.rs`).
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, bail};

mod cluster;
mod conformance;
mod files;
mod image;
mod layers;
mod links;
mod paths;
mod plugin;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["layers"] => layers::check(&root()),
        ["links"] => check_links(&root()),
        ["man"] => man(&root(), Path::new("target/man")),
        ["man", folder] => man(&root(), Path::new(folder)),
        ["cluster", rest @ ..] => return exit(cluster::run(rest)),
        ["conformance", rest @ ..] => return exit(conformance::run(rest)),
        ["plugin", rest @ ..] => plugin::run(&root(), rest),
        ["image", rest @ ..] => image::run(&root(), rest),
        _ => Err(anyhow::anyhow!(
            "usage: cargo xtask layers | links | man [FOLDER] | cluster … | plugin … | image … | conformance …"
        )),
    };
    exit(done.map(|said| {
        println!("{said}");
        ExitCode::SUCCESS
    }))
}

fn exit(done: Result<ExitCode>) -> ExitCode {
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the tree: the folder above this crate.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Cargo, for another build of this tree.
fn cargo(root: &Path) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    portolan_cluster::without_package(&mut cargo).current_dir(root);
    cargo
}

fn check_links(root: &Path) -> Result<String> {
    let tree = files::Tree::read(root)?;
    let mut problems = links::problems(&tree);
    let (too_long, long) = files::sizes(&tree);
    problems.extend(too_long);
    problems.extend(files::machine_paths(&tree));
    for warning in &long {
        eprintln!("warning: {warning}");
    }
    if !problems.is_empty() {
        bail!("{}\n{} problems", problems.join("\n"), problems.len());
    }
    Ok(format!("links: {} files, every path in documents and comments exists", tree.len()))
}

/// Asks the binary for its man pages; they are made from the same definitions as `--help`.
fn man(root: &Path, folder: &Path) -> Result<String> {
    let folder = root.join(folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let status = cargo(root)
        .args(["run", "--quiet", "--locked", "--package", "portolan", "--", "man"])
        .arg(&folder)
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`portolan man {}` ended with {status}", folder.display());
    }
    let pages = std::fs::read_dir(&folder)?.count();
    Ok(format!("man: {pages} pages in {}", folder.display()))
}
