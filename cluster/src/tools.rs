//! The programs of a cluster, and where they are: built from their Go modules into a cache outside of the tree.
//!
//! `PORTOLAN_CACHE`, else `XDG_CACHE_HOME/portolan`, else `~/.cache/portolan`; in it `tools/NAME-VERSION-RECIPE/`, where
//! RECIPE is a hash of everything that the build depends on. `PORTOLAN_CLUSTER_BIN` names a folder with programs that
//! are used as they are instead.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

mod build;
mod recipe;

pub(crate) use recipe::COREDNS;
pub use recipe::{RECIPES, Recipe};

/// Hears what is going on, in lines.
pub type Say<'a> = &'a (dyn Fn(&str) + Sync);

/// Programs of the machine that a cluster needs beside its own, with their Debian packages.
const MACHINE: [(&str, &str); 7] = [
    ("etcd", "etcd-server"),
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("socat", "socat"),
    ("nsenter", "util-linux"),
    ("cc", "gcc libc6-dev"),
];

/// The programs of a cluster.
#[derive(Clone, Debug)]
pub struct Tools {
    cache: PathBuf,
    instead: Option<PathBuf>,
}

impl Tools {
    /// The tools in the user's cache.
    pub fn new() -> Result<Self> {
        Ok(Self { cache: cache()?, instead: std::env::var_os("PORTOLAN_CLUSTER_BIN").map(PathBuf::from) })
    }

    /// The folder that is kept between clusters.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Where a program is. Fails when it is not built yet.
    pub fn program(&self, name: &str) -> Result<String> {
        let found = self.find(name).with_context(|| {
            match RECIPES.iter().find(|one| one.programs.contains(&name)) {
                Some(recipe) => {
                    format!("{name} is not built: `cargo xtask cluster build {}` does it", recipe.name)
                }
                None => format!("{name} is no program of a cluster"),
            }
        })?;
        Ok(found.to_string_lossy().into_owned())
    }

    /// Whether a program is built.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        if name == "pause" {
            return self.pause().ok();
        }
        let recipe = RECIPES.iter().find(|recipe| recipe.programs.contains(&name))?;
        let mut places = vec![self.folder(recipe).join(name)];
        if let Some(instead) = &self.instead {
            places = vec![instead.join(name), instead.join("cni").join(name)];
        }
        places.into_iter().find(|place| place.is_file())
    }

    /// Builds what is missing of these recipes, by name; with programs given instead, they only have to be there.
    pub fn build(&self, names: &[&str], say: Say<'_>) -> Result<()> {
        check_machine()?;
        for name in names {
            let recipe = RECIPES.iter().find(|recipe| recipe.name == *name).with_context(|| {
                let all: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
                format!("{name} is nothing that can be built; there are {}", all.join(", "))
            })?;
            if let Some(instead) = &self.instead {
                let missing: Vec<&str> =
                    recipe.programs.iter().filter(|one| !self.has(one)).copied().collect();
                if !missing.is_empty() {
                    bail!("{} (PORTOLAN_CLUSTER_BIN) lacks {}", instead.display(), missing.join(", "));
                }
                continue;
            }
            build::build(recipe, &self.folder(recipe), say)?;
        }
        Ok(())
    }

    /// What a cluster of these tools runs.
    pub fn versions(&self) -> Vec<(String, String)> {
        RECIPES.iter().map(|recipe| (recipe.name.to_owned(), recipe.version.to_owned())).collect()
    }

    /// Where the programs of a recipe are, or will be.
    pub fn folder(&self, recipe: &Recipe) -> PathBuf {
        self.cache.join("tools").join(format!("{}-{}-{}", recipe.name, recipe.version, recipe.hash()))
    }

    /// The first process of nodes and Pods; compiled in an instant.
    fn pause(&self) -> Result<PathBuf> {
        build::pause(&self.cache)
    }
}

fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("PORTOLAN_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("portolan")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/portolan")));
    cache.context("no place for the cache: set PORTOLAN_CACHE")
}

/// Where a program of the machine is; looks in the sbin folders too.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/go/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Where a program of the distribution is: not one of the same name that a user put in front of it.
pub(crate) fn on_path_of_debian(program: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"].map(PathBuf::from);
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn check_machine() -> Result<()> {
    let missing: Vec<String> = MACHINE
        .iter()
        .filter(|(program, _)| on_path(program).is_none())
        .map(|(program, package)| format!("{program} (Debian: {package})"))
        .collect();
    if !missing.is_empty() {
        bail!("missing for a cluster: {}; scripts/prerequisites installs them", missing.join(", "));
    }
    Ok(())
}
