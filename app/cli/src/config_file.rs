//! The configuration file of `portolan up`: TOML, with each flag as a key of the same name.
//!
//! ```toml
//! listen = "127.0.0.1:10080"
//! pool = ["20000-29999", "media=30000-31999"]
//! no-dataplane = false
//! ```
//! Its values become the *defaults* of the flags, so that flags and environment win by clap's own rules, and each
//! value is read by the parser of its flag. An error names the file and the line.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::Command;
use toml::de::{DeTable, DeValue};

/// Why a configuration file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be opened or read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// As given by `--config`.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the TOML parser says.
        message: String,
    },
    /// A key that is no flag of `up`.
    #[error("{}:{line}: there is no key {key:?}{}", path.display(), suggestion.as_ref().map(|s| format!(": did you mean {s:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// As written.
        key: String,
        /// The most similar key.
        suggestion: Option<String>,
        /// All keys that there are.
        known: Vec<String>,
    },
    /// A value that its flag does not take.
    #[error("{}:{line}: {key}: {message}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key.
        key: String,
        /// What is wrong with the value.
        message: String,
    },
}

impl ConfigError {
    /// What to do, where the message does not say it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownKey { known, .. } => Some(format!("the keys are {}", known.join(", "))),
            Self::Read { .. } => Some("give another file by --config, or leave it out".to_owned()),
            Self::Syntax { .. } | Self::Value { .. } => None,
        }
    }
}

/// One flag's values from the file.
#[derive(Debug)]
pub(crate) struct Default {
    /// The id of the argument, which is the name of its field.
    id: clap::Id,
    values: Vec<String>,
    global: bool,
}

/// Flags of every verb that make sense in a file of `up`. A token has a file of its own.
const GLOBAL_KEYS: [&str; 5] = ["data", "token-file", "log-level", "log-format", "color"];

/// Reads the file and checks each value by its flag.
pub(crate) fn read(path: &Path, command: &Command) -> Result<Vec<Default>, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    parse(path, &text, command)
}

fn parse(path: &Path, text: &str, command: &Command) -> Result<Vec<Default>, ConfigError> {
    let line = |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: line(error.span().unwrap_or_default()),
        message: error.message().to_owned(),
    })?;
    let keys = keys(command);
    let mut defaults = Vec::new();
    for (key, value) in table.get_ref() {
        let Some((_, id, global)) = keys.iter().find(|(name, ..)| name == key.get_ref()) else {
            return Err(ConfigError::UnknownKey {
                path: path.to_owned(),
                line: line(key.span()),
                key: key.get_ref().clone().into_owned(),
                suggestion: nearest(key.get_ref(), &keys),
                known: keys.into_iter().map(|(name, ..)| name).collect(),
            });
        };
        let wrong = |message| ConfigError::Value {
            path: path.to_owned(),
            line: line(value.span()),
            key: key.get_ref().clone().into_owned(),
            message,
        };
        let values = texts(value.get_ref()).map_err(wrong)?;
        check(command, key.get_ref(), &values).map_err(wrong)?;
        defaults.push(Default { id: id.clone(), values, global: *global });
    }
    Ok(defaults)
}

/// The command with the file's values as defaults of `verb`, which has the flags of `up`.
pub(crate) fn with_defaults(mut command: Command, verb: &str, defaults: &[Default]) -> Command {
    for default in defaults {
        let values = default.values.clone();
        let set = |arg: clap::Arg| arg.default_values(values);
        command = if default.global {
            command.mut_arg(&default.id, set)
        } else {
            command.mut_subcommand(verb, |verb| verb.mut_arg(&default.id, set))
        };
    }
    command
}

/// Name, argument and whether it is of every verb: all keys that there are.
fn keys(command: &Command) -> Vec<(String, clap::Id, bool)> {
    let of = |command: &Command, global| {
        let long = move |arg: &clap::Arg| Some((arg.get_long()?.to_owned(), arg.get_id().clone(), global));
        command.get_arguments().filter_map(long).collect::<Vec<_>>()
    };
    let up = command.find_subcommand("up").map(|up| of(up, false)).unwrap_or_default();
    let global = of(command, true).into_iter().filter(|(name, ..)| GLOBAL_KEYS.contains(&name.as_str()));
    up.into_iter().filter(|(name, ..)| name != "config" && name != "help").chain(global).collect()
}

/// A value as it would be written behind its flag; a list is the flag several times.
fn texts(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    match value {
        DeValue::String(text) => Ok(vec![text.clone().into_owned()]),
        DeValue::Integer(number) => Ok(vec![number.to_string()]),
        DeValue::Boolean(yes) => Ok(vec![yes.to_string()]),
        DeValue::Array(items) => {
            let items: Result<Vec<_>, _> = items.iter().map(|item| texts(item.get_ref())).collect();
            items.map(|items| items.into_iter().flatten().collect())
        }
        _ => Err("write a text, a number, true or false, or a list of those".to_owned()),
    }
}

/// Lets clap read the flag with these values, and gives what it says against them.
fn check(command: &Command, key: &str, values: &[String]) -> Result<(), String> {
    let flags = values.iter().map(|value| format!("--{key}={value}"));
    let arguments = ["portolan".to_owned(), "up".to_owned()].into_iter().chain(flags);
    let Err(error) = command.clone().try_get_matches_from(arguments) else { return Ok(()) };
    let text = error.to_string();
    let reason = text.split("\n\nFor more information").next().unwrap_or_default();
    let reason = reason.split("\n\nUsage:").next().unwrap_or_default();
    Err(reason.strip_prefix("error: ").unwrap_or(reason).trim_end().to_owned())
}

/// The key with the fewest changed letters, if it is near enough to be meant.
fn nearest(wrong: &str, keys: &[(String, clap::Id, bool)]) -> Option<String> {
    let wrong = wrong.replace('_', "-").to_ascii_lowercase();
    let (distance, name) = keys.iter().map(|(name, ..)| (distance(&wrong, name), name)).min()?;
    (distance <= 2).then(|| name.clone())
}

/// Levenshtein's distance: inserted, removed and changed characters.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
