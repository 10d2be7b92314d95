//! The same answers for programs: JSON and YAML.

use std::io::{self, Write};

use anyhow::Context;
use serde::Serialize;

/// Indented JSON and a line end.
pub(crate) fn json(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?;
    Ok(line(&text)?)
}

/// JSON on one line, for streams.
pub(crate) fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string(value).context("cannot write the answer as JSON")?;
    Ok(line(&text)?)
}

/// A YAML document.
pub(crate) fn yaml(value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_saphyr::to_string(value).context("cannot write the answer as YAML")?;
    Ok(line(text.trim_end())?)
}

fn line(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}
