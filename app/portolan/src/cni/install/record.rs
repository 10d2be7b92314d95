//! What was changed, so that it can be undone.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use portolan_plugin::files;

use super::conflist;

/// A file beside the configuration, with an extension that no runtime knows.
const NAME: &str = "portolan.installed";

/// One change of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The file that has our entry.
    pub(super) target: PathBuf,
    /// The file that was there before: another one if a single plugin became a list.
    pub(super) original: PathBuf,
    /// Its text.
    pub(super) text: String,
    /// The text of the target as we wrote it.
    pub(super) written: String,
    /// The entry of portmap whose place ours took.
    pub(super) replaced: Option<String>,
}

impl Record {
    /// Reads it; `None` when there is none.
    pub(super) fn read(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(NAME);
        let Some(json) = files::read(&path)? else { return Ok(None) };
        serde_json::from_str(&json)
            .map(Some)
            .with_context(|| format!("reading {}: remove it if it is not Portolan's", path.display()))
    }

    /// Writes it, on disk.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let json = serde_json::to_string_pretty(self)?;
        // The configuration may be for root's eyes only, and so is a copy of it.
        files::replace(&folder.join(NAME), json.as_bytes(), 0o600)
    }

    /// Forgets it.
    pub(super) fn remove(folder: &Path) -> anyhow::Result<()> {
        files::remove(&folder.join(NAME))
    }

    /// Gives back what was there. What somebody has written since stays, without our entry.
    pub(super) fn undo(&self) -> anyhow::Result<()> {
        let Some(text) = files::read(&self.target)? else { return Ok(()) };
        let mode = files::mode(&self.target);
        if self.original == self.target {
            let restored = match text == self.written {
                true => Some(self.text.clone()),
                false => conflist::unchain(&text, self.replaced.as_deref()),
            };
            return match restored {
                Some(restored) => files::replace(&self.target, restored.as_bytes(), mode),
                None => Ok(()),
            };
        }
        // The list is of our making. Its plugin comes back, unless somebody has written that anew already.
        if text == self.written && !self.original.exists() {
            files::replace(&self.original, self.text.as_bytes(), mode)?;
        }
        match text == self.written || self.original.exists() {
            true => files::remove(&self.target),
            false => match conflist::unchain(&text, None) {
                Some(restored) => files::replace(&self.target, restored.as_bytes(), mode),
                None => Ok(()),
            },
        }
    }
}
