//! What came of the tests: read from Ginkgo's report, and printed.

use std::{path::Path, time::Instant};

use anyhow::Result;
use serde_json::Value;

/// What came of the tests, by their names.
#[derive(Default)]
pub(super) struct Report {
    pub(super) passed: Vec<String>,
    /// With the reason.
    pub(super) failed: Vec<(String, String)>,
    /// Those that found that the cluster is not for them, with the reason.
    pub(super) skipped: Vec<(String, String)>,
    /// Those that were not run, with the reason.
    pub(super) left_out: Vec<(String, &'static str)>,
}

impl Report {
    pub(super) fn knows(&self, name: &str) -> bool {
        let others = self.failed.iter().chain(&self.skipped).map(|(name, _)| name);
        self.passed.iter().chain(others).any(|known| known == name)
    }

    pub(super) fn add(&mut self, other: Self) {
        self.passed.extend(other.passed);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
        self.left_out.extend(other.left_out);
    }

    pub(super) fn print(&self, started: Instant) {
        let indented = |text: &str| text.replace('\n', "\n         ");
        for name in &self.passed {
            println!("passed   {name}");
        }
        for (name, why) in &self.skipped {
            println!("skipped  {name}\n         {}", indented(why));
        }
        for (name, why) in &self.left_out {
            println!("left out {name}\n         {why}");
        }
        for (name, why) in &self.failed {
            println!("FAILED   {name}\n         {}", indented(why));
        }
        let [passed, failed] = [self.passed.len(), self.failed.len()];
        let [skipped, left_out] = [self.skipped.len(), self.left_out.len()];
        println!(
            "{passed} passed, {failed} failed, {skipped} skipped, {left_out} left out, {} s",
            started.elapsed().as_secs()
        );
    }
}

/// Reads the report that Ginkgo writes.
pub(super) fn read(report: &Path) -> Result<Report> {
    let report: Value = serde_json::from_slice(&std::fs::read(report)?)?;
    let mut found = Report::default();
    for spec in report[0]["SpecReports"].as_array().into_iter().flatten() {
        let mut name: Vec<&str> = spec["ContainerHierarchyTexts"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        name.extend(spec["LeafNodeText"].as_str());
        let name = name.join(" ");
        // What comes before and after all tests counts when it fails only.
        let test = spec["LeafNodeType"] == "It";
        match spec["State"].as_str().unwrap_or_default() {
            "passed" if test => found.passed.push(name),
            // Those that are not in focus have no message.
            "skipped" if test => {
                found.skipped.extend(spec["Failure"]["Message"].as_str().map(|why| (name, why.to_owned())))
            }
            "passed" | "skipped" | "pending" => {}
            state => {
                let why = spec["Failure"]["Message"].as_str().unwrap_or(state);
                found.failed.push((name, why.lines().take(10).collect::<Vec<_>>().join("\n")));
            }
        }
    }
    Ok(found)
}
