//! `cargo xtask conformance`: Kubernetes' own end-to-end tests against a cluster.
//!
//! Starts a cluster, runs `e2e.test` in the control plane's namespace, prints what passed and what failed, and takes
//! the cluster down again. `--without-portmap --hook COMMAND` puts another plugin in portmap's place before the tests.

use std::{path::Path, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use portolan_cluster::{Cluster, Options, Tools, down};
use serde_json::Value;

use crate::cluster::say;

/// Kubernetes' own end-to-end tests against a cluster of network namespaces.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask conformance", bin_name = "cargo xtask conformance")]
struct Words {
    /// Which tests.
    which: Which,
    /// Instead of those, the tests whose names match this.
    #[arg(long)]
    focus: Option<String>,
    /// Not those whose names match this.
    #[arg(long)]
    skip: Option<String>,
    /// The cluster's name; one that is up is used and left as it is.
    #[arg(long, default_value = "conformance")]
    name: String,
    /// How many nodes.
    #[arg(long, default_value_t = 2)]
    nodes: usize,
    /// No portmap plugin: another one serves hostPort.
    #[arg(long)]
    without_portmap: bool,
    /// No kube-proxy: somebody else serves Services.
    #[arg(long)]
    without_proxy: bool,
    /// A shell command that installs what is to be tested, with KUBECONFIG and PORTOLAN_CLUSTER set.
    #[arg(long, value_name = "COMMAND")]
    hook: Option<String>,
    /// Leave the cluster up.
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Which {
    /// hostPort: what a CNI plugin does.
    Hostport,
    /// Services: what a service proxy does.
    Services,
}

impl Which {
    /// A regular expression over the names of the tests.
    fn focus(self) -> &'static str {
        match self {
            Self::Hostport => r"\[sig-network\] HostPort",
            Self::Services => r"\[sig-network\] Services.*\[Conformance\]",
        }
    }
}

pub(crate) fn run(words: &[&str]) -> Result<ExitCode> {
    let words = match Words::try_parse_from(std::iter::once("conformance").chain(words.iter().copied())) {
        Ok(words) => words,
        Err(error) => {
            error.print()?;
            return Ok(ExitCode::from(if error.use_stderr() { 2 } else { 0 }));
        }
    };
    let tools = Tools::new()?;
    tools.build(&["kube", "node", "cni", "dns", "agnhost", "e2e"], &say)?;
    let found = Cluster::find(&words.name);
    let ours = found.is_none();
    let cluster = match found {
        Some(cluster) => cluster,
        None => {
            let options = Options {
                nodes: words.nodes,
                portmap: !words.without_portmap,
                proxy: (!words.without_proxy).then(|| "nftables".to_owned()),
                agnhost: true,
                hook: words.hook.clone(),
                ..Options::default()
            };
            Cluster::up(&words.name, options, &say)?
        }
    };
    let done = test(&cluster, &tools, &words);
    if ours && !words.keep {
        down(&words.name, &say)?;
    }
    done
}

fn test(cluster: &Cluster, tools: &Tools, words: &Words) -> Result<ExitCode> {
    let folder = cluster.folder().join("conformance");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let report = folder.join("report.json");
    let _ = std::fs::remove_file(&report);
    let log = folder.join("e2e.log");
    let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let started = Instant::now();
    say(&format!("e2e.test runs; it writes to {}", log.display()));
    let mut command = cluster.control();
    command
        .arg(tools.program("e2e.test")?)
        .args(["--provider=skeleton", "--ginkgo.no-color", "--disable-log-dump", "--num-nodes=-1"])
        .arg(format!("--kubeconfig={}", cluster.inside_kubeconfig().display()))
        .arg(format!("--kubectl-path={}", tools.program("kubectl")?))
        .arg(format!("--ginkgo.focus={}", words.focus.as_deref().unwrap_or(words.which.focus())))
        .arg(format!("--ginkgo.json-report={}", report.display()));
    if let Some(skip) = &words.skip {
        command.arg(format!("--ginkgo.skip={skip}"));
    }
    let status = command
        .current_dir(&folder)
        .stdout(file.try_clone().context("cannot share a log")?)
        .stderr(file)
        .status()
        .context("cannot start nsenter")?;
    let Report { passed, failed } =
        read(&report).with_context(|| format!("e2e.test ended with {status}: see {}", log.display()))?;
    for name in &passed {
        println!("passed  {name}");
    }
    for (name, why) in &failed {
        println!("FAILED  {name}\n        {}", why.replace('\n', "\n        "));
    }
    let seconds = started.elapsed().as_secs();
    println!("{} passed, {} failed, {seconds} s", passed.len(), failed.len());
    if passed.is_empty() && failed.is_empty() {
        bail!("no test has such a name");
    }
    Ok(ExitCode::from(u8::from(!failed.is_empty() || !status.success())))
}

/// What came of the tests, by their names.
struct Report {
    passed: Vec<String>,
    /// With the reason.
    failed: Vec<(String, String)>,
}

/// Reads the report that Ginkgo writes.
fn read(report: &Path) -> Result<Report> {
    let report: Value = serde_json::from_slice(&std::fs::read(report)?)?;
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
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
            "passed" if test => passed.push(name),
            "passed" | "skipped" | "pending" => {}
            state => {
                let why = spec["Failure"]["Message"].as_str().unwrap_or(state);
                failed.push((name, why.lines().take(10).collect::<Vec<_>>().join("\n")));
            }
        }
    }
    Ok(Report { passed, failed })
}
