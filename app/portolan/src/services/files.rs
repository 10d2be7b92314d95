//! The files of `-f`: read, and looked at for changes.
//!
//! By looking, not by inotify(7): a file that an editor replaces, a ConfigMap's chain of symbolic links and a network's
//! file system all change in ways that a watch on an inode misses.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::manifest::{self, ManifestError, Read};

/// What is read of a folder.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// More is no list of Services.
const MOST: u64 = 64 << 20;

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

#[derive(Clone, Debug)]
struct Known {
    stamp: Stamp,
    /// The last text that could be read.
    good: Option<Read>,
    /// Why the present one cannot.
    error: Option<ManifestError>,
}

/// All files of the command line.
#[derive(Debug)]
pub(crate) struct Files {
    given: Vec<PathBuf>,
    known: BTreeMap<PathBuf, Known>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// Whether anything is otherwise than before.
    pub(crate) changed: bool,
    /// What is wrong with what has changed.
    pub(crate) errors: Vec<ManifestError>,
    pub(crate) warnings: Vec<String>,
}

impl Files {
    pub(crate) fn new(given: Vec<PathBuf>) -> Self {
        Self { given, known: BTreeMap::new() }
    }

    /// Reads what has changed. A file that cannot be read any more stays as it was; one that is gone is gone, but one
    /// that was named on the command line is missed.
    pub(crate) fn look(&mut self) -> Looked {
        let mut looked = Looked::default();
        let mut there = Vec::new();
        for given in self.given.clone() {
            match list(&given) {
                Ok(files) => there.extend(files),
                Err(error) => {
                    let place = given.display().to_string();
                    let error = ManifestError { place, message: format!("cannot be read: {error}") };
                    self.missed(&given, error, &mut looked);
                    there.push(given);
                }
            }
        }
        there.sort();
        there.dedup();
        let before = self.known.len();
        self.known.retain(|path, _| there.contains(path));
        looked.changed |= before != self.known.len();
        for path in there {
            self.look_at(path, &mut looked);
        }
        looked
    }

    /// It is told once.
    fn missed(&mut self, path: &Path, error: ManifestError, looked: &mut Looked) {
        let stamp = Stamp { modified: None, length: 0, inode: 0 };
        let known = self.known.entry(path.to_owned()).or_insert(Known {
            stamp: stamp.clone(),
            good: None,
            error: None,
        });
        if known.error.as_ref() != Some(&error) {
            looked.errors.push(error.clone());
            looked.changed = true;
            (known.error, known.stamp) = (Some(error), stamp);
        }
    }

    fn look_at(&mut self, path: PathBuf, looked: &mut Looked) {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(metadata) = fs::metadata(&path) else { return };
        if metadata.is_dir() {
            return;
        }
        let stamp =
            Stamp { modified: metadata.modified().ok(), length: metadata.len(), inode: metadata.ino() };
        let known = self.known.get(&path);
        if known.is_some_and(|known| known.stamp == stamp) {
            return;
        }
        let good = known.and_then(|known| known.good.clone());
        looked.changed = true;
        let name = path.display().to_string();
        let text = match fs::read_to_string(&path) {
            _ if metadata.len() > MOST => Err(format!("is larger than {} MiB", MOST >> 20)),
            Ok(text) => Ok(text),
            Err(error) => Err(format!("cannot be read: {error}")),
        };
        let read = text
            .map_err(|message| ManifestError { place: name.clone(), message })
            .and_then(|text| manifest::read(&name, &text));
        let now = match read {
            Ok(read) => {
                looked.warnings.extend(read.warnings.iter().cloned());
                Known { stamp, good: Some(read), error: None }
            }
            Err(error) => {
                looked.errors.push(error.clone());
                Known { stamp, good, error: Some(error) }
            }
        };
        self.known.insert(path, now);
    }

    /// What they say: the last text of each that could be read.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = &Read> {
        self.known.values().filter_map(|known| known.good.as_ref())
    }

    /// The files that are not as they are written.
    pub(crate) fn errors(&self) -> Vec<ManifestError> {
        self.known.values().filter_map(|known| known.error.clone()).collect()
    }
}

/// The file itself, or those in the folder; hidden ones are none.
fn list(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        let ending = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known));
        if ending && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> String {
        format!("apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: 80\n")
    }

    fn names(files: &Files) -> Vec<String> {
        files.manifests().flat_map(|read| &read.services).map(|service| service.name().name.clone()).collect()
    }

    #[test]
    fn edits_hold_and_broken_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let new = folder.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, folder.path().join(name)).unwrap();
        };
        write("a.yaml", &service("one"));
        write("notes.txt", "no Service");
        let mut files = Files::new(vec![folder.path().to_owned()]);
        assert!(files.look().changed);
        assert_eq!(names(&files), ["one"]);
        assert!(!files.look().changed);
        write("b.yml", &service("two"));
        assert!(files.look().changed);
        assert_eq!(names(&files), ["one", "two"]);
        write("a.yaml", "kind: [");
        let looked = files.look();
        assert_eq!(looked.errors.len(), 1);
        assert!(looked.errors[0].place.contains("a.yaml"), "{:?}", looked.errors);
        assert_eq!((names(&files).len(), files.errors().len()), (2, 1));
        write("a.yaml", &service("three"));
        assert!(files.look().errors.is_empty() && files.errors().is_empty());
        assert_eq!(names(&files), ["three", "two"]);
        fs::remove_file(folder.path().join("b.yml")).unwrap();
        assert!(files.look().changed);
        assert_eq!(names(&files), ["three"]);
    }

    #[test]
    fn a_file_that_is_missed_is_told_once_and_what_it_said_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.yaml");
        let mut files = Files::new(vec![path.clone()]);
        assert_eq!(files.look().errors.len(), 1);
        assert!(files.look().errors.is_empty());
        fs::write(&path, service("one")).unwrap();
        assert!(files.look().changed && files.errors().is_empty());
        fs::remove_file(&path).unwrap();
        assert_eq!(files.look().errors.len(), 1);
        assert_eq!(names(&files), ["one"]);
    }
}
