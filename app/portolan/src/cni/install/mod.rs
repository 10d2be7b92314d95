//! Puts the plugin where the runtime finds it, and into the chain of its network.
//!
//! A runtime takes the first file of its configuration folder, by name, whose extension it knows. Our entry goes into
//! that file, whoever wrote it; the text as it was is kept in a [`record`], so that [`uninstall`] gives it back. When
//! the other plugin's installer writes its file again, [`watch()`] chains again.

mod conflist;
mod program;
mod record;
mod watch;

use std::{
    fs,
    io::Seek as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use portolan_plugin::files;
use serde_json::json;

use self::{conflist::Chained, program::Program, record::Record};

pub(crate) use self::watch::watch;

/// Where and how.
#[derive(Clone, Debug)]
pub(crate) struct InstallConfig {
    /// Where the runtime has its plugins: `/opt/cni/bin`. `None`: the plugin is there by other means.
    pub(crate) bin_dir: Option<PathBuf>,
    /// Where the runtime has its configuration: `/etc/cni/net.d`.
    pub(crate) conf_dir: PathBuf,
    /// The agent's socket as the runtime sees it; `None`: the plugin does the work itself.
    pub(crate) agent_socket: Option<PathBuf>,
    /// Leave the entry of portmap, and `portMappings`, to portmap.
    pub(crate) keep_portmap: bool,
}

impl InstallConfig {
    /// Our entry, in the order in which people write such entries.
    fn entry(&self) -> String {
        let mappings = if self.keep_portmap { "" } else { r#""portMappings": true, "# };
        let capabilities = format!(r#"{{{mappings}"io.kubernetes.cri.pod-annotations": true}}"#);
        let who = match &self.agent_socket {
            Some(socket) => format!(r#""agentSocket": {}"#, json!(socket)),
            None => r#""standalone": true"#.to_owned(),
        };
        format!(r#"{{"type": "{}", "capabilities": {capabilities}, {who}}}"#, conflist::TYPE)
    }

    /// The plugin's file.
    pub(crate) fn binary(&self) -> Option<PathBuf> {
        self.bin_dir.as_ref().map(|folder| folder.join(conflist::TYPE))
    }
}

/// What [`copy_binary`] did.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// `false` when it was there already.
    pub(crate) changed: bool,
    /// Why it is this whole program, when it is.
    pub(crate) instead: Option<String>,
}

/// Copies the plugin to where the runtime has its plugins.
///
/// The file is replaced by another, never written to: a runtime may be executing it.
pub(crate) fn copy_binary(config: &InstallConfig) -> anyhow::Result<Copied> {
    let Some(target) = config.binary() else { return Ok(Copied::default()) };
    let Program { mut file, instead } = program::find()?;
    if fs::File::open(&target).and_then(|present| files::same(&present, &file)).unwrap_or(false) {
        return Ok(Copied { changed: false, instead });
    }
    file.rewind().context("reading the plugin")?;
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    files::replace_by(&target, &mut file, 0o755)?;
    Ok(Copied { changed: true, instead })
}

/// Whether the plugin that the runtime would start is the one that would be installed now.
pub(crate) fn is_current(config: &InstallConfig) -> anyhow::Result<bool> {
    let Some(target) = config.binary() else { return Ok(true) };
    let present = fs::File::open(&target).with_context(|| format!("reading {}", target.display()))?;
    files::same(&present, &program::find()?.file).with_context(|| format!("reading {}", target.display()))
}

/// Chains the plugin into the configuration that the runtime takes. Returns the file, and whether it had to be changed.
///
/// Whatever happens in between, the record of what was there is on disk before anything changes.
pub(crate) fn chain(config: &InstallConfig) -> anyhow::Result<(PathBuf, bool)> {
    let record = Record::read(&config.conf_dir)?;
    let Some((path, text)) = first(&config.conf_dir)? else {
        bail!(
            "there is no network configuration in {}: install the network plugin of the cluster first",
            config.conf_dir.display()
        );
    };
    let problem = || format!("chaining into {}", path.display());
    let Chained::Changed { text: written, replaced } =
        conflist::chain(&text, &config.entry(), config.keep_portmap).with_context(problem)?
    else {
        return Ok((path, false));
    };
    let target = path.with_extension("conflist");
    let mut new = Record { target: target.clone(), original: path.clone(), text, written, replaced };
    match record {
        // An entry of ours that is brought up to date: what counts is what was there without it.
        Some(old) if old.target == target && conflist::has_ours(&new.text) => {
            if new.text == old.written {
                (new.original, new.text) = (old.original, old.text);
            } else if let Some(without) = conflist::unchain(&new.text, old.replaced.as_deref()) {
                new.text = without;
            }
            new.replaced = new.replaced.or(old.replaced);
        }
        Some(old) if old.target != target => old.undo()?,
        _ => {}
    }
    new.write(&config.conf_dir)?;
    files::replace(&target, new.written.as_bytes(), files::mode(&path))?;
    if target != path {
        files::remove(&path)?;
    }
    Ok((target, true))
}

/// Takes everything back: the configuration is as it was, the plugin gone. Says what was done.
pub(crate) fn uninstall(config: &InstallConfig) -> anyhow::Result<Vec<String>> {
    let mut done = Vec::new();
    if let Some(record) = Record::read(&config.conf_dir)? {
        record.undo()?;
        done.push(format!("{} is as it was", record.original.display()));
    }
    // Entries of ours without a record, such as those that somebody copied.
    for path in candidates(&config.conf_dir)? {
        let Some(text) = files::read(&path)? else { continue };
        if let Some(without) = conflist::unchain(&text, None) {
            files::replace(&path, without.as_bytes(), files::mode(&path))?;
            done.push(format!("taken out of {}", path.display()));
        }
    }
    Record::remove(&config.conf_dir)?;
    if let Some(binary) = config.binary().filter(|binary| binary.exists()) {
        files::remove(&binary)?;
        done.push(format!("{} is removed", binary.display()));
    }
    Ok(done)
}

/// The file that the runtime takes, and whether our entry is in it. `None` when there is no file.
pub(crate) fn chained(conf_dir: &Path) -> anyhow::Result<Option<(PathBuf, bool)>> {
    Ok(first(conf_dir)?.map(|(path, text)| (path, conflist::has_ours(&text))))
}

/// The first file that is a network configuration, with its text.
fn first(folder: &Path) -> anyhow::Result<Option<(PathBuf, String)>> {
    for path in candidates(folder)? {
        let Some(text) = files::read(&path)? else { continue };
        match conflist::check(&text) {
            Ok(()) => return Ok(Some((path, text))),
            // Half written, perhaps.
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "no network configuration; looking further")
            }
        }
    }
    Ok(None)
}

/// The files that a runtime looks at, in its order: `libcni.ConfFiles`, sorted by name.
fn candidates(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = match fs::read_dir(folder) {
        Ok(files) => files,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let known = |path: &PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "conf" || extension == "conflist" || extension == "json")
    };
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).filter(known).collect();
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests;
