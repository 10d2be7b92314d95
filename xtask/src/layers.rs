//! Which crate may depend on which: `app -> edge -> {packet, registration} -> base`.
//!
//! A folder is a layer, and a dependency may only point from a layer to one below it. `packet` and `registration`
//! are side by side and never know each other: they meet in `base/model`. Inside a layer every edge is written
//! down here, so that a new one is a decision and not an accident.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// The layers below each layer.
const BELOW: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("packet", &["base"]),
    ("registration", &["base"]),
    ("edge", &["packet", "registration", "base"]),
    ("app", &["edge", "packet", "registration", "base"]),
    // They stand outside and may look at everything; nothing may look at them.
    ("tests", &["app", "edge", "packet", "registration", "base", "cluster"]),
    ("benches", &["app", "edge", "packet", "registration", "base", "cluster"]),
    ("testkit", &[]),
    ("cluster", &[]),
    ("xtask", &["cluster"]),
];

/// The edges inside a layer.
const WITHIN: &[(&str, &str)] = &[
    ("base/netlink", "base/model"),
    ("base/telemetry", "base/model"),
    ("packet/plan", "packet/nft"),
    ("packet/services", "packet/nft"),
    ("packet/services", "packet/plan"),
    ("packet/apply", "packet/plan"),
    ("packet/apply", "packet/services"),
    ("packet/apply", "packet/nft"),
    ("registration/store", "registration/registry"),
    ("registration/dns", "registration/registry"),
    ("registration/web", "registration/registry"),
    ("app/plugin", "app/attach"),
    ("app/portolan", "app/attach"),
    ("app/portolan", "app/cli"),
    ("app/portolan", "app/plugin"),
];

/// The one crate that may soften `unsafe_code = "forbid"`: system calls that no safe crate offers.
const UNSAFE: &str = "base/netlink";

/// One crate of the workspace depends on another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    /// The folder of the crate that depends, from the top of the tree.
    from: String,
    /// The folder of the crate it depends on.
    to: String,
    /// Whether only its tests do.
    dev: bool,
}

impl Edge {
    /// Why it may not be; `None` when it may.
    fn problem(&self) -> Option<String> {
        let (from, to) = (layer(&self.from), layer(&self.to));
        let described = format!("{} depends on {}", self.from, self.to);
        if to == "testkit" {
            let tester = self.dev || matches!(from, "tests" | "benches");
            return (!tester)
                .then(|| format!("{described}: testkit is for [dev-dependencies], tests and benches"));
        }
        let Some((_, below)) = BELOW.iter().find(|(name, _)| *name == from) else {
            return Some(format!("{}: {from} is no layer; name it in xtask/src/layers.rs", self.from));
        };
        // Tests of a crate may put it together with its neighbours; what ships may not.
        let neighbours = self.dev && from == to;
        if neighbours || below.contains(&to) || WITHIN.contains(&(self.from.as_str(), self.to.as_str())) {
            return None;
        }
        Some(match from == to {
            true => format!("{described}: an edge inside {from} that xtask/src/layers.rs does not know"),
            false => format!("{described}: {from} may know only {below:?}"),
        })
    }
}

fn layer(folder: &str) -> &str {
    folder.split('/').next().unwrap_or(folder)
}

/// Fails with every edge that may not be.
pub(crate) fn check(root: &Path) -> Result<String> {
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--locked", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("cannot start cargo metadata")?;
    if !metadata.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&metadata.stderr));
    }
    let metadata: Value = serde_json::from_slice(&metadata.stdout).context("cargo metadata is no JSON")?;
    let (folders, edges) = read(&metadata)?;
    let mut problems: BTreeSet<String> = edges.iter().filter_map(Edge::problem).collect();
    problems.extend(lint_problems(root, &folders));
    if !problems.is_empty() {
        let problems: Vec<_> = problems.into_iter().collect();
        bail!("{}\n{} edges against the layers", problems.join("\n"), problems.len());
    }
    Ok(format!("layers: {} crates, {} edges, all downwards", folders.len(), edges.len()))
}

/// The crates' folders, and the edges between them.
fn read(metadata: &Value) -> Result<(BTreeSet<String>, BTreeSet<Edge>)> {
    let root = metadata["workspace_root"].as_str().context("no workspace_root")?;
    let folder = |path: &str| path.strip_prefix(root).map(|rest| rest.trim_start_matches('/').to_owned());
    let packages = metadata["packages"].as_array().context("no packages")?;
    let mut folders = BTreeMap::new();
    for package in packages {
        let manifest = package["manifest_path"].as_str().context("no manifest_path")?;
        let path = manifest.trim_end_matches("/Cargo.toml");
        let name = package["name"].as_str().context("no name")?;
        folders.insert(name, folder(path).with_context(|| format!("{path} is outside {root}"))?);
    }
    let mut edges = BTreeSet::new();
    for package in packages {
        let from = &folders[package["name"].as_str().unwrap_or_default()];
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let Some(to) = dependency["name"].as_str().and_then(|name| folders.get(name)) else { continue };
            let dev = dependency["kind"].as_str() == Some("dev");
            edges.insert(Edge { from: from.clone(), to: to.clone(), dev });
        }
    }
    Ok((folders.into_values().collect(), edges))
}

/// Crates that do not take the workspace's lints, and with them `forbid(unsafe_code)`.
fn lint_problems(root: &Path, folders: &BTreeSet<String>) -> Vec<String> {
    let lacks = |folder: &&String| {
        let manifest = std::fs::read_to_string(root.join(folder).join("Cargo.toml")).unwrap_or_default();
        !manifest.contains("[lints]\nworkspace = true")
    };
    let without = folders.iter().filter(|folder| *folder != UNSAFE).filter(lacks);
    without.map(|folder| format!("{folder}/Cargo.toml lacks [lints] workspace = true")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(from: &str, to: &str) -> Edge {
        Edge { from: from.to_owned(), to: to.to_owned(), dev: false }
    }

    #[test]
    fn dependencies_point_downwards() {
        for (from, to) in [
            ("app/portolan", "edge/cloud"),
            ("app/portolan", "base/model"),
            ("edge/cloud", "packet/ports"),
            ("registration/dns", "registration/registry"),
            ("tests", "app/portolan"),
        ] {
            assert_eq!(edge(from, to).problem(), None);
        }
    }

    #[test]
    fn every_other_direction_is_refused() {
        for (from, to) in [
            ("base/model", "packet/nft"),
            ("packet/plan", "registration/registry"),
            ("registration/registry", "packet/ports"),
            ("packet/nft", "packet/plan"),
            ("registration/registry", "edge/cloud"),
            ("edge/cloud", "app/portolan"),
            ("app/portolan", "tests"),
            ("elsewhere/thing", "base/model"),
        ] {
            assert!(edge(from, to).problem().is_some(), "{from} -> {to}");
        }
    }

    #[test]
    fn the_testkit_is_for_tests_only() {
        assert!(edge("packet/nft", "testkit").problem().is_some());
        assert_eq!(Edge { dev: true, ..edge("packet/nft", "testkit") }.problem(), None);
        assert_eq!(edge("benches", "testkit").problem(), None);
    }

    #[test]
    fn tests_may_know_their_neighbours_and_no_more() {
        let dev = |from, to| Edge { dev: true, ..edge(from, to) }.problem();
        assert_eq!(dev("registration/web", "registration/store"), None);
        assert!(dev("registration/web", "packet/nft").is_some());
    }
}
