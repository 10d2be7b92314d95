//! The text of a runtime's network configuration, with our entry put in and taken out.
//!
//! Only our entry changes: the rest of the file, its order, its spaces and keys that nobody knows stay as they are,
//! because another program wrote it and people read it.

use std::{borrow::Cow, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// `type` of our entry: the name of the plugin's file.
pub(crate) const TYPE: &str = "portolan";

const PORTMAP: &str = "portmap";

/// What putting the entry in did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chained {
    /// It was there already.
    Already,
    /// The new text.
    Changed {
        /// Of the whole file.
        text: String,
        /// The entry of portmap whose place ours took, as it was written.
        replaced: Option<String>,
    },
}

/// Why a text cannot be chained into.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConflistError {
    /// It is no JSON object.
    #[error("it is no JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// Neither a list nor a plugin.
    #[error("it has neither plugins nor a type")]
    NoPlugins,
    /// The portmap entry has options that we refuse.
    #[error("its portmap entry has {key}, which has no equal: take it out, or keep portmap (--keep-portmap)")]
    Portmap {
        /// The option.
        key: &'static str,
    },
}

/// Where the plugins of a list are in its text.
struct List {
    plugins: Vec<Plugin>,
}

struct Plugin {
    kind: String,
    span: Range<usize>,
}

impl List {
    /// `None` when it is no list, but a single plugin.
    fn read(text: &str) -> Result<Option<Self>, ConflistError> {
        let object: Object<'_> = serde_json::from_str(text)?;
        let Some(plugins) = object.get("plugins") else {
            return if object.get("type").is_some() { Ok(None) } else { Err(ConflistError::NoPlugins) };
        };
        let plugins: Vec<&RawValue> = serde_json::from_str(plugins.get())?;
        if plugins.is_empty() {
            return Err(ConflistError::NoPlugins);
        }
        let plugins = plugins
            .into_iter()
            .map(|json| Plugin { kind: kind(json.get()).unwrap_or_default(), span: span(text, json.get()) });
        Ok(Some(Self { plugins: plugins.collect() }))
    }

    fn position(&self, kind: &str) -> Option<usize> {
        self.plugins.iter().position(|plugin| plugin.kind == kind)
    }
}

/// Whether the text has our entry.
pub(crate) fn has_ours(text: &str) -> bool {
    matches!(List::read(text), Ok(Some(list)) if list.position(TYPE).is_some())
}

/// Whether a runtime could use the text.
pub(crate) fn check(text: &str) -> Result<(), ConflistError> {
    List::read(text).map(|_| ())
}

/// Puts `entry` at the end of the chain, or in the place of the entry of portmap. A single plugin becomes a list.
pub(crate) fn chain(text: &str, entry: &str, keep_portmap: bool) -> Result<Chained, ConflistError> {
    let changed = |text, replaced| Ok(Chained::Changed { text, replaced });
    let Some(list) = List::read(text)? else {
        return changed(list_of(text, entry)?, None);
    };
    let portmap = list.position(PORTMAP).filter(|_| !keep_portmap);
    match (list.position(TYPE), portmap) {
        (Some(ours), None) => {
            let span = list.plugins[ours].span.clone();
            let same = |a: &str, b: &str| {
                Ok::<_, ConflistError>(serde_json::from_str::<Value>(a)? == serde_json::from_str::<Value>(b)?)
            };
            match same(&text[span.clone()], entry)? {
                true => Ok(Chained::Already),
                false => changed(splice(text, span, entry), None),
            }
        }
        // Ours is there, and somebody has added portmap since: both would map the same ports.
        (Some(ours), Some(portmap)) => {
            let replaced = text[list.plugins[portmap].span.clone()].to_owned();
            check_portmap(&replaced)?;
            let text = without(text, &list, portmap);
            match chain(&text, entry, true)? {
                Chained::Already => changed(text, Some(replaced)),
                Chained::Changed { text, .. } => changed(text, Some(replaced)),
            }
            .inspect(|_| tracing::debug!(ours, "an entry of portmap stood beside ours"))
        }
        (None, Some(portmap)) => {
            let span = list.plugins[portmap].span.clone();
            let replaced = text[span.clone()].to_owned();
            check_portmap(&replaced)?;
            changed(splice(text, span, entry), Some(replaced))
        }
        (None, None) => {
            // The list has one plugin at least.
            let last = list.plugins.last().map(|plugin| plugin.span.clone()).unwrap_or_default();
            let lead = &text[text[..last.start].rfind(['[', ',', '}']).map_or(0, |at| at + 1)..last.start];
            let separator = if lead.contains('\n') { lead } else { " " };
            changed(splice(text, last.end..last.end, &format!(",{separator}{entry}")), None)
        }
    }
}

/// Takes our entry out, and puts `replaced` in its place. `None` when it is not there, or nothing else would be left.
pub(crate) fn unchain(text: &str, replaced: Option<&str>) -> Option<String> {
    let list = List::read(text).ok()??;
    let ours = list.position(TYPE)?;
    match replaced {
        Some(entry) if list.position(PORTMAP).is_none() => {
            Some(splice(text, list.plugins[ours].span.clone(), entry))
        }
        _ if list.plugins.len() > 1 => Some(without(text, &list, ours)),
        _ => None,
    }
}

/// The text without a plugin and the comma that goes with it.
fn without(text: &str, list: &List, index: usize) -> String {
    let span = &list.plugins[index].span;
    let (start, end) = match index.checked_sub(1) {
        Some(before) => (list.plugins[before].span.end, span.end),
        None => (span.start, list.plugins.get(1).map_or(span.end, |next| next.span.start)),
    };
    splice(text, start..end, "")
}

/// Options by which portmap would do something else than we do: see `portolan-cni`, `portmap`.
fn check_portmap(entry: &str) -> Result<(), ConflistError> {
    let entry: Value = serde_json::from_str(entry)?;
    let set = |key: &str| {
        entry
            .get(key)
            .is_some_and(|value| !value.is_null() && *value != false && *value != Value::Array(vec![]))
    };
    match ["masqAll", "conditionsV4", "conditionsV6"].into_iter().find(|key| set(key)) {
        Some(key) => Err(ConflistError::Portmap { key }),
        None => Ok(()),
    }
}

/// A list of a single plugin and ours.
fn list_of(plugin: &str, entry: &str) -> Result<String, ConflistError> {
    let object: Object<'_> = serde_json::from_str(plugin)?;
    let mut text = "{\n".to_owned();
    for key in ["cniVersion", "cniVersions", "name", "disableCheck", "disableGC"] {
        if let Some(value) = object.get(key) {
            text += &format!("  \"{key}\": {},\n", value.get());
        }
    }
    let plugin = plugin.trim();
    text += &format!("  \"plugins\": [\n    {},\n    {entry}\n  ]\n}}\n", plugin.replace('\n', "\n    "));
    Ok(text)
}

fn splice(text: &str, span: Range<usize>, new: &str) -> String {
    [&text[..span.start], new, &text[span.end..]].concat()
}

/// Where `part`, which was borrowed from `text`, is in it.
fn span(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

fn kind(plugin: &str) -> Option<String> {
    serde_json::from_str::<Object<'_>>(plugin)
        .ok()?
        .get("type")
        .and_then(|kind| serde_json::from_str(kind.get()).ok())
}

/// An object whose values are left as they are written.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Object(entries))
            }
        }
        from.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests;
