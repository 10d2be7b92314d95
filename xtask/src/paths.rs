//! Words in a text that look like paths of this tree, and what they mean from a place in it.

use std::path::{Component, Path, PathBuf};

use crate::files::Tree;

/// The words of a line that name something in the tree: their first folder is one of its top folders.
pub(crate) fn words<'a>(tree: &'a Tree, line: &'a str) -> impl Iterator<Item = &'a str> {
    line.split(|c: char| c.is_whitespace() || "`\"'()[]{}<>,;|=".contains(c)).filter_map(|word| {
        // A sentence may end behind it, or a line number follow.
        let word = word.trim_end_matches(['.', ':', '!', '?']).trim_end_matches('/');
        let word = word.split_once(':').map_or(word, |(path, _)| path);
        let (top, rest) = word.split_once('/')?;
        let like_a_path =
            !rest.is_empty() && !top.is_empty() && !word.contains(['*', '$', '…', '#', '%', '\\']);
        (like_a_path && tree.has(Path::new(top)) && has_files(tree, top)).then_some(word)
    })
}

/// Whether the name is a folder with files in it, and no file.
fn has_files(tree: &Tree, top: &str) -> bool {
    tree.text(Path::new(top)).is_none()
}

/// `target` as seen from the file `from`, without `.` and `..`; `None` when it leaves the tree.
pub(crate) fn resolve(from: &Path, target: &str) -> Option<PathBuf> {
    let mut path = from.parent().unwrap_or(Path::new("")).to_owned();
    for component in Path::new(target).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_begin_with_a_top_folder_are_paths() {
        let tree =
            Tree::of([("packet/nft/src/lib.rs".into(), String::new()), ("README.md".into(), String::new())]);
        let line =
            "see packet/nft/src/lib.rs:12, `packet/plan`. Not net/ipv4/x, README.md/x, and/or packet/*";
        assert_eq!(words(&tree, line).collect::<Vec<_>>(), ["packet/nft/src/lib.rs", "packet/plan"]);
    }

    #[test]
    fn a_target_is_seen_from_its_file() {
        let resolved = |target| resolve(Path::new("docs/guide/a.md"), target);
        assert_eq!(resolved("../b.md"), Some("docs/b.md".into()));
        assert_eq!(resolved("./c.md"), Some("docs/guide/c.md".into()));
        assert_eq!(resolved("../../../x"), None);
    }
}
