//! Examples in documents are run, and what they print is what the document shows.
//!
//! A block that begins with ```` ```console ```` is a session on a fresh machine; the blocks of one document follow
//! each other on the same machine. The rules:
//!
//! - `$ command` is run by `sh`; the lines below it, up to the next `$`, are what it prints on standard output and
//!   standard error.
//! - `$ command &` runs beside the rest, to the end of the document or until `$ kill %N`, with N counted from 1.
//! - A command whose output ends with `^C` runs until it has printed the lines above, then gets Ctrl-C, and must end.
//! - `cargo run --release --` is the binary under test, as `portolan` is.
//! - Digits stand for any digits, durations such as `3s` or `1m 20s` for any duration, and days and months of dates for any
//!   other, because ports, addresses and ages are never the same twice; runs of spaces and of table lines are of any length; `myhost` is the machine.
//! - A line `…` stands for any number of lines, and `…` within a line for any text.
//! - Any other command is tried again for some seconds until it prints what the document shows: what it waits for may
//!   still be starting.
//! - ```` ```console ignore ```` is shown only.

use std::{fmt::Write as _, fs::Permissions, os::unix::fs::PermissionsExt as _, time::Duration};

use portolan_testkit::{Background, Portolan, binary, eventually_ok};

mod pattern;

/// How long a command may take to print what the document shows.
const PATIENCE: Duration = Duration::from_secs(20);

/// `pkill` that reaches the processes of this machine only, which are those that have its folder in their environment:
/// a document's example must not end a process of whoever runs the tests.
const PKILL: &str = r#"#!/bin/sh
signal=-TERM
while [ $# -gt 1 ]; do
    case "$1" in -f) ;; *) signal="$1" ;; esac
    shift
done
# As slow as a person: a command that fails in the very second of its start is taken for a mistake, and not restarted.
sleep 1.2
for pid in $(pgrep -f -- "$1"); do
    [ "$pid" = $$ ] || ! grep -qzF "HOME=$HOME" "/proc/$pid/environ" 2>/dev/null || kill "$signal" "$pid"
done
"#;

/// One command of a session and what it prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The line of the document.
    pub line: usize,
    /// What `sh` runs, without the `&`.
    pub command: String,
    /// Whether it runs beside the rest.
    pub background: bool,
    /// Whether it is ended by Ctrl-C.
    pub interrupted: bool,
    /// The lines it prints.
    pub expected: Vec<String>,
}

/// The commands of all console blocks of a document.
pub fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    // Whether the lines are in a block, and whether that block is run.
    let (mut fence, mut runs) = (false, false);
    for (index, line) in document.lines().enumerate() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            fence = !fence;
            runs = fence && language.trim() == "console";
        } else if runs && let Some(command) = line.strip_prefix("$ ") {
            let (command, background) = match command.trim_end().strip_suffix(" &") {
                Some(command) => (command, true),
                None => (command.trim_end(), false),
            };
            steps.push(Step {
                line: index + 1,
                command: command.to_owned(),
                background,
                interrupted: false,
                expected: Vec::new(),
            });
        } else if runs && let Some(step) = steps.last_mut() {
            if line == "^C" {
                step.interrupted = true;
            } else {
                step.expected.push(line.to_owned());
            }
        }
    }
    steps
}

/// Where a document's commands are run.
pub trait Place {
    /// A shell there with this script.
    fn shell(&self, script: &str) -> std::process::Command;
}

impl Place for Portolan {
    fn shell(&self, script: &str) -> std::process::Command {
        shell(self, script)
    }
}

/// Runs a document's sessions on `machine`; panics with the line, what was shown and what came instead. Returns what
/// still runs beside: it ends with the value.
#[track_caller]
pub fn run(machine: &impl Place, name: &str, document: &str) -> Vec<Background> {
    let mut jobs: Vec<Option<Background>> = Vec::new();
    for step in steps(document) {
        let place = format!("{name}:{}: $ {}", step.line, step.command);
        if let Some(job) = step.command.strip_prefix("kill %") {
            let job = job.parse().ok().and_then(|number: usize| jobs.get_mut(number.checked_sub(1)?));
            match job.and_then(Option::take) {
                Some(mut job) => {
                    job.signal(rustix::process::Signal::TERM);
                    job.wait(PATIENCE);
                }
                None => panic!("{place}: there is no such job"),
            }
        } else if step.background || step.interrupted {
            let mut job = Background::start(&mut machine.shell(&script(&step.command)));
            let shown = job_shows(&mut job, &step.expected);
            if let Err(difference) = shown {
                panic!("{place}\n{difference}\n{}", job.transcript());
            }
            if step.interrupted {
                // As Ctrl-C in a terminal, which reaches its children too.
                job.signal_group(rustix::process::Signal::INT);
                job.wait(PATIENCE);
            } else {
                jobs.push(Some(job));
            }
        } else if let Err(difference) = eventually_ok(PATIENCE, || command_shows(machine, &step)) {
            let jobs: String = jobs.iter().flatten().fold(String::new(), |mut text, job| {
                let _ = writeln!(text, "{}", job.transcript());
                text
            });
            panic!("{place}\n{difference}\n{jobs}");
        }
    }
    jobs.into_iter().flatten().collect()
}

fn command_shows(machine: &impl Place, step: &Step) -> Result<(), String> {
    // Both streams in one, as in a terminal.
    let command = format!("{{ {}\n}} 2>&1", step.command);
    let output = portolan_testkit::programs::output(&mut machine.shell(&script(&command)));
    pattern::compare(&step.expected, &String::from_utf8_lossy(&output.stdout))
}

fn job_shows(job: &mut Background, expected: &[String]) -> Result<(), String> {
    if expected.is_empty() {
        return Ok(());
    }
    let open: Vec<String> = expected.iter().cloned().chain(["…".to_owned()]).collect();
    eventually_ok(PATIENCE, || {
        // A terminal shows both; which lines come first is not promised.
        let (stdout, stderr) = (job.stdout(), job.stderr());
        pattern::compare(&open, &stdout)
            .or_else(|_| pattern::compare(&open, &format!("{stderr}{stdout}")))
            .or_else(|_| pattern::compare(&open, &format!("{stdout}{stderr}")))
    })
}

/// A single command becomes the shell, so that a signal for it reaches it.
fn script(command: &str) -> String {
    let command = command.replace("cargo run --release --", "portolan");
    let simple = !command.contains(['|', '&', ';', '\n', '<', '>', '{']);
    if simple { format!("exec {command}") } else { command }
}

/// `sh` on the machine, with the binary under test as `portolan`.
fn shell(machine: &Portolan, script: &str) -> std::process::Command {
    let folder = machine.folder().join("bin");
    if !folder.exists() {
        let linked = std::fs::create_dir(&folder)
            .and_then(|()| std::os::unix::fs::symlink(binary(), folder.join("portolan")))
            .and_then(|()| std::fs::write(folder.join("pkill"), PKILL))
            .and_then(|()| std::fs::set_permissions(folder.join("pkill"), Permissions::from_mode(0o755)));
        if let Err(error) = linked {
            panic!("cannot prepare {}: {error}", folder.display());
        }
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = machine.program("sh");
    shell.arg("-c").arg(script).env("PATH", format!("{}:{path}", folder.display()));
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# Title\n```console\n$ portolan up &\n$ portolan list\nNAME\n…\n$ portolan watch\nweb-0\n^C\n```\n\
```sh\n$ not this\n```\n```console ignore\n$ nor this\n```\n";

    #[test]
    fn a_session_is_read_from_a_document() {
        let steps = steps(DOCUMENT);
        let commands: Vec<_> = steps.iter().map(|step| (step.command.as_str(), step.line)).collect();
        assert_eq!(commands, [("portolan up", 3), ("portolan list", 4), ("portolan watch", 7)]);
        assert!(steps[0].background && !steps[1].background);
        assert_eq!(steps[1].expected, ["NAME", "…"]);
        assert!(steps[2].interrupted);
        assert_eq!(steps[2].expected, ["web-0"]);
    }
}
