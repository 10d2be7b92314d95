//! Running other programs, with errors that say what they said.

use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail};

/// Takes from a command's environment what `cargo run` has put into ours, of the package of this program: a cargo that is
/// started with it would build anew what asks for it (ring), and all that stands above.
pub fn without_package(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "CARGO" || text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Runs to the end and gives what was written to the standard output; fails with what was written to the standard error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!("{}: {}: {}", shown(command), output.status, said(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to the end, whatever the end is.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))
}

/// The last words of a program that failed.
pub(crate) fn said(output: &Output) -> String {
    let all = [output.stderr.as_slice(), output.stdout.as_slice()].concat();
    let all = String::from_utf8_lossy(&all);
    let lines: Vec<&str> = all.trim().lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A command line for people.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let mut line = words.join(" ");
    if line.chars().count() > 200 {
        line = line.chars().take(200).chain(['…']).collect();
    }
    line
}

/// `ip` with these words.
pub(crate) fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split_whitespace()))
}
