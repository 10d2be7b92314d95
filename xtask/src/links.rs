//! What documents and comments point to exists: files, folders and headings.
//!
//! In `*.md`: the targets of `[links](docs/install.md#heading)` and words that look like paths of this tree. In
//! comments of code and of settings: words that look like paths of this tree. Links to the outside are not followed,
//! because a check that needs the network fails for reasons that are not ours.

use std::path::Path;

use crate::{
    files::{Text, Tree},
    paths,
};

/// Every dangling link and path, as `file:line: what`.
pub(crate) fn problems(tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    for file in &tree.texts {
        match file.path.extension().and_then(|extension| extension.to_str()) {
            Some("md") => markdown(tree, file, &mut problems),
            Some("rs") => comments(tree, file, &["//"], &mut problems),
            Some("toml" | "yaml" | "yml" | "sh") => comments(tree, file, &["#"], &mut problems),
            None => comments(tree, file, &["#"], &mut problems),
            Some(_) => {}
        }
    }
    problems
}

fn markdown(tree: &Tree, file: &Text, problems: &mut Vec<String>) {
    let mut fenced = false;
    for (number, line) in file.text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            for target in link_targets(line) {
                if let Some(problem) = dangling(tree, &file.path, target) {
                    problems.push(format!("{}:{}: {problem}", file.path.display(), number + 1));
                }
            }
            let outside_links = without_link_targets(line);
            words(tree, file, number, &outside_links, problems);
        }
    }
}

fn comments(tree: &Tree, file: &Text, starts: &[&str], problems: &mut Vec<String>) {
    for (number, line) in file.text.lines().enumerate() {
        let comment = starts.iter().find_map(|start| line.find(start).map(|at| &line[at..]));
        if let Some(comment) = comment {
            words(tree, file, number, comment, problems);
        }
    }
}

fn words(tree: &Tree, file: &Text, number: usize, line: &str, problems: &mut Vec<String>) {
    for word in paths::words(tree, line) {
        // From the top of the tree, or from the file's crate, which has folders such as `tests` of its own.
        let known = file.path.ancestors().any(|folder| tree.has(&folder.join(word)));
        if !known && !line.contains("://") {
            problems.push(format!("{}:{}: there is no {word}", file.path.display(), number + 1));
        }
    }
}

/// The targets of the inline links of a line: `[text](target)`.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next())
}

fn without_link_targets(line: &str) -> String {
    line.split("](").enumerate().fold(String::new(), |text, (index, part)| {
        let kept = if index == 0 { part } else { part.split_once(')').map_or("", |(_, after)| after) };
        text + kept
    })
}

/// Why a link's target cannot be followed; `None` when it can, or leads outside.
fn dangling(tree: &Tree, from: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) =
        target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let resolved = if path.is_empty() { Some(from.to_owned()) } else { paths::resolve(from, path) };
    let Some(resolved) = resolved.filter(|resolved| tree.has(resolved)) else {
        return Some(format!("the link to {target} leads nowhere"));
    };
    let heading = heading.filter(|_| resolved.extension().is_some_and(|ext| ext == "md"))?;
    let known = tree.text(&resolved).is_some_and(|text| headings(text).any(|known| known == heading));
    (!known).then(|| format!("{} has no heading #{heading}", resolved.display()))
}

/// The anchors of a document's headings, as GitHub makes them: lower case, spaces to hyphens, no punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(document: &str) -> Tree {
        Tree::of([
            ("README.md".into(), document.to_owned()),
            ("docs/install.md".into(), "# Install\n## On `Debian` 12\n".to_owned()),
            ("packet/nft/src/lib.rs".into(), "// see docs/gone.md\n".to_owned()),
        ])
    }

    #[test]
    fn a_link_to_a_file_or_heading_that_exists_is_good() {
        let good =
            "[a](docs/install.md) [b](docs/install.md#on-debian-12) [c](https://x.org/y) [d](packet/nft)";
        let problems = problems(&tree(good));
        assert_eq!(problems, ["packet/nft/src/lib.rs:1: there is no docs/gone.md"]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_found() {
        let bad = "[a](docs/remove.md)\n[b](docs/install.md#on-arch)\nsee packet/plan";
        assert_eq!(problems(&tree(bad)).len(), 4);
    }

    #[test]
    fn examples_are_not_links() {
        assert_eq!(problems(&tree("```\n[a](docs/remove.md)\n```")).len(), 1);
    }
}
