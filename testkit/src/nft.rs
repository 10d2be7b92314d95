//! The independent reader of nftables: the `nft` program, in the namespace of the calling thread.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::programs;

/// Runs `nft` with these words and returns what it prints; panics when it fails.
#[track_caller]
pub fn nft(words: &str) -> String {
    programs::run(programs::command("nft", words.split_whitespace()).env_remove("LC_ALL"))
}

/// Loads a file of rules (`nft -f -`); panics with nft's own words when it is refused.
#[track_caller]
pub fn load(rules: &str) {
    let output = feed(programs::command("nft", ["-f", "-"]), rules);
    assert!(output.status.success(), "nft refused:\n{rules}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// `nft -j list …` as JSON: `list_json("ruleset")`, `list_json("table inet portolan")`.
#[track_caller]
pub fn list_json(what: &str) -> Value {
    let text = nft(&format!("-j list {what}"));
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("nft -j list {what} is no JSON: {error}\n{text}"))
}

/// The objects of one kind in `nft -j list …`: `objects(&list_json("ruleset"), "chain")`.
pub fn objects<'a>(listing: &'a Value, kind: &str) -> Vec<&'a Value> {
    let all = listing["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter_map(|object| object.get(kind)).collect()
}

/// The bytecode that `nft` makes of a file of rules, without loading it: the text of `--debug=netlink`.
///
/// Needs a network namespace where the tables it names may be read, which `--check` does not change.
#[track_caller]
pub fn debug(rules: &str) -> String {
    let output = feed(programs::command("nft", ["--check", "--debug=netlink", "-f", "-"]), rules);
    assert!(output.status.success(), "nft refused:\n{rules}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The bytecode of one rule, one expression per element: `["meta load l4proto => reg 1", …]`.
///
/// The rule is put into a chain of a table `inet oracle`; `declarations` are the sets and maps it names.
#[track_caller]
pub fn debug_rule(declarations: &str, chain: &str, rule: &str) -> Vec<String> {
    let text =
        debug(&format!("table inet oracle {{\n{declarations}\nchain subject {{\n{chain}\n{rule}\n}}\n}}\n"));
    // "inet oracle subject" begins a rule; its expressions follow, each in brackets on a line of its own.
    let mut lines = text.lines().skip_while(|line| !line.starts_with("inet oracle subject"));
    lines.next();
    lines
        .map(str::trim)
        .take_while(|line| line.starts_with('['))
        .map(|line| line.trim_start_matches('[').trim_end_matches(']').trim().to_owned())
        .collect()
}

#[track_caller]
fn feed(mut command: Command, input: &str) -> std::process::Output {
    let mut child = match command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    {
        Ok(child) => child,
        Err(error) => panic!("cannot start {command:?}: {error}"),
    };
    let mut stdin = child.stdin.take().expect("stdin is piped");
    std::thread::scope(|scope| {
        // On a thread of its own: nft may write before it has read everything.
        scope.spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        match child.wait_with_output() {
            Ok(output) => output,
            Err(error) => panic!("cannot read the answer of {command:?}: {error}"),
        }
    })
}
