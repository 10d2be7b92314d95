//! The files of the tree, their sizes, and what none of them may say.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

/// Longer than this and a file deserves a second look.
const LONG: usize = 300;
/// Longer than this and a file holds more than one idea.
const TOO_LONG: usize = 600;

/// A text file: where it is, from the top of the tree, and what it says.
pub(crate) struct Text {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Every file that git knows or would take, and the folders they are in.
pub(crate) struct Tree {
    pub(crate) texts: Vec<Text>,
    names: BTreeSet<PathBuf>,
}

impl Tree {
    /// Asks git, so that what is ignored is not looked at.
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
            .current_dir(root)
            .output()
            .context("cannot start git")?;
        if !listed.status.success() {
            bail!("git ls-files failed: {}", String::from_utf8_lossy(&listed.stderr));
        }
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let files = listed.split('\0').filter(|name| !name.is_empty() && root.join(name).is_file());
        let texts = files.filter_map(|name| {
            let bytes = std::fs::read(root.join(name)).ok()?;
            Some((PathBuf::from(name), String::from_utf8(bytes).unwrap_or_default()))
        });
        Ok(Self::of(texts))
    }

    /// A tree of these files.
    pub(crate) fn of(files: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        let texts: Vec<_> = files.into_iter().map(|(path, text)| Text { path, text }).collect();
        let names = texts.iter().flat_map(|text| text.path.ancestors()).map(Path::to_owned).collect();
        Self { texts, names }
    }

    /// Whether there is a file or folder of this name, from the top of the tree.
    pub(crate) fn has(&self, path: &Path) -> bool {
        self.names.contains(path)
    }

    /// How many files.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The text of a file.
    pub(crate) fn text(&self, path: &Path) -> Option<&str> {
        self.texts.iter().find(|text| text.path == path).map(|text| text.text.as_str())
    }
}

/// Files of Rust that are too long, and those that are on the way there.
pub(crate) fn sizes(tree: &Tree) -> (Vec<String>, Vec<String>) {
    let lines = tree.texts.iter().filter(|text| text.path.extension().is_some_and(|ext| ext == "rs"));
    let lines = lines.map(|text| (text.path.display(), text.text.lines().count()));
    let (mut too_long, mut long) = (Vec::new(), Vec::new());
    for (path, count) in lines {
        if count > TOO_LONG {
            too_long.push(format!("{path}: {count} lines, more than {TOO_LONG}: split it by ideas"));
        } else if count > LONG {
            long.push(format!("{path}: {count} lines, more than {LONG}"));
        }
    }
    (too_long, long)
}

/// Paths of somebody's machine: they mean nothing to another reader.
pub(crate) fn machine_paths(tree: &Tree) -> Vec<String> {
    // Made-up homes are examples; the home of whoever runs this is not.
    let own = std::env::var("HOME").ok().filter(|home| home.starts_with("/home/"));
    let homes = ["/work", "/root"].map(str::to_owned).into_iter().chain(own).map(|home| format!("{home}/"));
    let homes: Vec<String> = homes.collect();
    let mut problems = Vec::new();
    for file in &tree.texts {
        for (number, line) in file.text.lines().enumerate() {
            for home in &homes {
                for (at, _) in line.match_indices(home.as_str()) {
                    // `https://host/home/page` and `node/work/x` are no paths of a machine.
                    let before = line[..at].chars().next_back().unwrap_or(' ');
                    if !before.is_alphanumeric() && !"/.-_}~>".contains(before) {
                        problems.push(format!(
                            "{}:{}: a path of one machine: {home}…",
                            file.path.display(),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_more_than_six_hundred_lines_is_refused() {
        let tree = Tree::of([("a.rs".into(), "\n".repeat(601)), ("b.rs".into(), "\n".repeat(301))]);
        let (too_long, long) = sizes(&tree);
        assert_eq!((too_long.len(), long.len()), (1, 1));
    }

    #[test]
    fn a_path_of_a_machine_is_found() {
        let bad = format!("see `{}/notes`", "/root");
        let good = "https://example.org/home/page";
        let tree = Tree::of([("a.md".into(), bad), ("b.md".into(), good.into())]);
        assert_eq!(machine_paths(&tree).len(), 1);
    }
}
