//! The measurements of docs/benchmarks.md: `make bench`, or `make bench BENCH="mappings --quick"`.
//! `BENCH=--write` writes the document, `BENCH="cni --write"` one section of it.
//!
//! Each file is one question. The answers are ratios: in one run, on one machine, the contenders take turns at the
//! same work (`stats.rs`), each in a network of its own (`network.rs`). Beside what people use today (`portmap.rs`)
//! stands the floor: what the kernel alone needs.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{
    fmt::Write as _,
    path::Path,
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

mod cni;
mod first_packet;
mod mappings;
mod memory;
mod network;
mod ours;
mod pods;
mod portmap;
mod relay;
mod repair;
mod run;
mod services;
mod stats;
mod table;

/// What the command line asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// Fewer counts, rounds and samples: to see that it works.
    quick: bool,
}

impl Options {
    /// How many mappings exist already while the work is measured.
    pub(crate) fn counts(self) -> &'static [u16] {
        // 28,000 is as many as fit between the pools' usual start and the kernel's ephemeral ports.
        if self.quick { &[0, 1_000] } else { &[0, 1_000, 10_000, 28_000] }
    }

    /// Whether it is only to be seen that it works.
    pub(crate) fn is_quick(self) -> bool {
        self.quick
    }

    /// How often the contenders take turns.
    pub(crate) fn rounds(self) -> usize {
        if self.quick { 2 } else { 5 }
    }
}

type Bench = fn(Options) -> Result<String>;

/// Each question, in the order of the document.
const BENCHES: &[(&str, Bench)] = &[
    ("mappings", mappings::measure),
    ("cni", cni::measure),
    ("first-packet", first_packet::measure),
    ("repair", repair::measure),
    ("memory", memory::measure),
    ("run", run::measure),
    ("pods", pods::measure),
    ("services", services::measure),
    ("relay", relay::measure),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match words.split_first() {
        Some((first, rest)) if first == services::child::WORD => services::child::run(rest),
        _ => measure(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<()> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let mut flag = |name: &str| {
        let before = words.len();
        words.retain(|word| word != name);
        before != words.len()
    };
    let (quick, write) = (flag("--quick"), flag("--write"));
    if let Some(unknown) = words.iter().find(|word| !BENCHES.iter().any(|(name, _)| name == word)) {
        let names: Vec<_> = BENCHES.iter().map(|(name, _)| *name).collect();
        bail!("{unknown:?} is no benchmark: name some of {names:?}, and --quick or --write");
    }
    if write && quick {
        bail!("--write is not for --quick: the document shows what was measured properly");
    }
    if let Some(problem) = portolan_testkit::root_problem() {
        bail!("the benchmarks make network namespaces, which {problem}");
    }
    // Built before anything is timed.
    portolan_testkit::binary();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
    let mut document = preface();
    println!("{document}");
    for (name, bench) in
        BENCHES.iter().filter(|(name, _)| words.is_empty() || words.iter().any(|w| w == name))
    {
        let start = Instant::now();
        let section = bench(Options { quick }).with_context(|| format!("benchmark {name}"))?;
        println!("{section}");
        eprintln!("[{name} took {:.0} s]", start.elapsed().as_secs_f64());
        if write && !words.is_empty() {
            // At once: a later one that fails takes nothing of this with it.
            let known = std::fs::read_to_string(&path).unwrap_or_else(|_| document.clone());
            save(&path, &with_section(&known, &section))?;
        }
        let _ = write!(document, "\n{section}");
    }
    if write && words.is_empty() { save(&path, &document) } else { Ok(()) }
}

fn save(path: &Path, document: &str) -> Result<()> {
    std::fs::write(path, document.trim_end().to_owned() + "\n")
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The document with this section in the place of the one of the same title, or at the end.
fn with_section(document: &str, section: &str) -> String {
    let title = section.lines().next().unwrap_or_default();
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = document;
    while let Some(at) = rest.get(1..).and_then(|behind| behind.find("\n## ")) {
        let (part, next) = rest.split_at(at + 2);
        parts.push(part.trim_end());
        rest = next;
    }
    parts.push(rest.trim_end());
    match parts.iter_mut().find(|part| part.lines().next() == Some(title)) {
        Some(part) => *part = section.trim_end(),
        None => parts.push(section.trim_end()),
    }
    parts.join("\n\n") + "\n"
}

/// What was measured on what, and how to read it.
fn preface() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let processor = processor.trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "# Benchmarks\n\n\
         Printed by `make bench BENCH=--write`, as root. This run:\n{cores} cores of {}, Linux {}, {}, {}.\n\n\
         The contenders take turns at the same work, each in a network namespace of its own with the same links and\n\
         routes. A time is the median of all samples; in brackets are the lowest and the highest of the rounds'\n\
         medians. Read the ratios: another machine has other times.\n",
        if processor.is_empty() { "an unnamed processor" } else { processor },
        kernel.trim(),
        version("nft"),
        version("iptables"),
    )
}

fn version(program: &str) -> String {
    let said = Command::new(program).arg("--version").output();
    let said = said.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let words: Vec<_> = said.split_whitespace().take(2).collect();
    if words.is_empty() { format!("no {program}") } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_the_one_with_its_title() {
        let document = "# A\n\nwords\n\n## One\n\n1\n\n## Two\n\n2\n";
        assert_eq!(
            with_section(document, "## One\n\nnew\n\n"),
            "# A\n\nwords\n\n## One\n\nnew\n\n## Two\n\n2\n"
        );
        assert_eq!(with_section(document, "## Two\n\nnew"), "# A\n\nwords\n\n## One\n\n1\n\n## Two\n\nnew\n");
        assert_eq!(with_section(document, "## New\n\n3\n"), format!("{document}\n## New\n\n3\n"));
    }
}
