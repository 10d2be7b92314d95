//! `cargo xtask conformance`: Kubernetes' own end-to-end tests against a cluster.
//!
//! Starts a cluster, runs `e2e.test` in the control plane's namespace, prints what passed and what failed, and takes
//! the cluster down again. `--without-portmap --hook COMMAND` puts another plugin in portmap's place before the tests.

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use portolan_cluster::{Cluster, Options, Tools, down};

use crate::cluster::say;

mod report;

use report::{Report, read};

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
    /// How many nodes; as many as the tests want without it.
    #[arg(long)]
    nodes: Option<usize>,
    /// How many tests run at once.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
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
    /// Services: what a service proxy does, as far as it is Conformance.
    Services,
    /// Everything about Services, their traffic and their connections that needs no cloud; wants six nodes and zones.
    AllServices,
}

impl Which {
    /// A regular expression over the names of the tests.
    fn focus(self) -> &'static str {
        match self {
            Self::Hostport => r"\[sig-network\] HostPort",
            Self::Services => r"\[sig-network\] Services.*\[Conformance\]",
            Self::AllServices => {
                r"\[sig-network\] (Services |Networking Granular Checks|\[Feature:IPv6DualStack\] Granular Checks|Conntrack |Traffic Distribution |Topology Hints |HostPort |EndpointSlice should support a Service|KubeProxy should set|Networking should (check kube-proxy|allow creating a Pod with an SCTP)|NoSNAT |Service CIDRs |Connectivity Pod Lifecycle|Service endpoints latency|API Server )"
            }
        }
    }

    /// Tests that can say nothing here: a part of their names, and the reason.
    fn skips(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Hostport | Self::Services => &[],
            Self::AllServices => &[
                ("[Feature:SCTPConnectivity]", "they want SCTP sockets of the kernel (CONFIG_IP_SCTP)"),
                (
                    "[Disruptive]",
                    "they restart Pods named kube-proxy and kube-apiserver, or log in to nodes by ssh",
                ),
            ],
        }
    }

    /// How many nodes it wants, and whether in zones.
    fn nodes(self) -> (usize, bool) {
        match self {
            Self::Hostport | Self::Services => (2, false),
            // Traffic distribution is tested with two nodes in each of three zones.
            Self::AllServices => (6, true),
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
    tools.build(&["kube", "node", "cni", "dns", "agnhost", "regression", "e2e"], &say)?;
    let found = Cluster::find(&words.name);
    let ours = found.is_none();
    let cluster = match found {
        Some(cluster) => cluster,
        None => {
            let options = Options {
                nodes: words.nodes.unwrap_or(words.which.nodes().0),
                zones: words.which.nodes().1,
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
    let suite =
        Suite { cluster, program: tools.program("e2e.test")?, kubectl: tools.program("kubectl")?, folder };
    let started = Instant::now();
    let focus = words.focus.as_deref().unwrap_or(words.which.focus());
    let skips = if words.focus.is_none() { words.which.skips() } else { &[] };
    let why = |name: &String| skips.iter().find(|(part, _)| name.contains(part)).map(|(_, why)| *why);
    let all = suite.names(focus, words.skip.as_deref())?;
    let (left_out, names): (Vec<_>, Vec<_>) = all.into_iter().partition(|name| why(name).is_some());
    if names.is_empty() {
        bail!("no test has such a name");
    }
    // Those that want the cluster for themselves come after the others.
    let (alone, beside): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.contains("[Serial]"));
    let reason = |name: String| why(&name).map(|why| (name, why));
    let mut report =
        Report { left_out: left_out.into_iter().filter_map(reason).collect(), ..Report::default() };
    say(&format!(
        "{} tests run, {} at once; they write to {}",
        beside.len() + alone.len(),
        words.jobs,
        suite.folder.display()
    ));
    let jobs = words.jobs.clamp(1, beside.len().max(1));
    let parts: Vec<Vec<&String>> =
        (0..jobs).map(|job| beside.iter().skip(job).step_by(jobs).collect()).collect();
    std::thread::scope(|scope| -> Result<()> {
        let suite = &suite;
        let running: Vec<_> = parts
            .iter()
            .enumerate()
            .map(|(job, part)| scope.spawn(move || suite.run(&format!("e2e-{job}"), part)))
            .collect();
        for job in running {
            report.add(job.join().unwrap_or_else(|_| bail!("a thread that tests panicked"))?);
        }
        Ok(())
    })?;
    report.add(suite.run("e2e-alone", &alone.iter().collect::<Vec<_>>())?);
    report.print(started);
    Ok(ExitCode::from(u8::from(!report.failed.is_empty())))
}

/// The program with Kubernetes' own tests, and a cluster for it.
struct Suite<'a> {
    cluster: &'a Cluster,
    program: String,
    kubectl: String,
    folder: PathBuf,
}

impl Suite<'_> {
    /// The names of the tests that would run.
    fn names(&self, focus: &str, skip: Option<&str>) -> Result<Vec<String>> {
        let mut more = vec![format!("--ginkgo.focus={focus}"), "--ginkgo.dry-run".to_owned()];
        more.extend(skip.map(|skip| format!("--ginkgo.skip={skip}")));
        Ok(self.e2e("names", &more)?.passed)
    }

    /// Runs these tests one after the other.
    fn run(&self, log: &str, names: &[&String]) -> Result<Report> {
        if names.is_empty() {
            return Ok(Report::default());
        }
        let exact: Vec<String> = names.iter().map(|name| escaped(name)).collect();
        // The suite's own name comes in front of a test's.
        let mut report = self.e2e(log, &[format!("--ginkgo.focus= ({})$", exact.join("|"))])?;
        let lost = names
            .iter()
            .filter(|name| !report.knows(name))
            .map(|name| ((*name).clone(), "it did not run".to_owned()));
        let lost: Vec<_> = lost.collect();
        report.failed.extend(lost);
        Ok(report)
    }

    fn e2e(&self, log: &str, more: &[String]) -> Result<Report> {
        let report = self.folder.join(format!("{log}.json"));
        let _ = std::fs::remove_file(&report);
        let log = self.folder.join(format!("{log}.log"));
        let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.cluster.control();
        command
            .arg(&self.program)
            .args(["--provider=skeleton", "--ginkgo.no-color", "--disable-log-dump", "--num-nodes=-1"])
            .arg(format!("--kubeconfig={}", self.cluster.inside_kubeconfig().display()))
            .arg(format!("--kubectl-path={}", self.kubectl))
            .arg("--ginkgo.timeout=3h")
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .args(more);
        let status = command
            .current_dir(&self.folder)
            .stdout(file.try_clone().context("cannot share a log")?)
            .stderr(file)
            .status()
            .context("cannot start nsenter")?;
        let mut read =
            read(&report).with_context(|| format!("e2e.test ended with {status}: see {}", log.display()))?;
        if !status.success() && read.failed.is_empty() {
            read.failed.push((format!("e2e.test ended with {status}"), format!("see {}", log.display())));
        }
        Ok(read)
    }
}

/// A regular expression that is the text.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        if r"\.+*?()|[]{}^$".contains(letter) {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}
