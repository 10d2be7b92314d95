//! How long a container runtime waits for the CNI plugin, and what the agent that does the work needs.
//!
//! The work: one call of the plugin as a runtime makes it, from the start of the process to its end: static ports of one
//! protocol, IPv4. Ours with an agent beside, as on Kubernetes, and alone, as a drop-in for portmap: there the journal
//! on disk is the owner, and every process reads it. Ours holds each port by a bound socket and is on disk when it
//! answers; portmap does neither.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use portolan_model::{
    AddRequest, AgentReply, AgentRequest, Attachment, PortRange, Protocol, Protocols, StaticPort,
};
use portolan_testkit::{Background, net::Namespace};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    Options,
    network::{CONTAINER_PORT, FIRST, INSTANCE, MEASURED, Network, other_instance},
    portmap::{Backend, Call, Portmap, feed, port_mappings},
    stats::{Samples, ratio, show},
    table::{Table, thousands},
};

mod floor;
mod networks;

/// Calls of ours in a round.
const OURS: usize = 40;
/// Calls of portmap in a round, if [`BUDGET`] allows.
const PEER: usize = 10;
/// How long a contender may take in a round; one sample is always taken.
const BUDGET: Duration = Duration::from_secs(3);
/// A peer whose calls take longer is not asked a second time.
const PATIENCE: Duration = Duration::from_secs(20);
/// Not among the ports that are mapped.
const LISTEN: &str = "--listen=127.0.0.1:1083";
/// From so many ports on a call is not followed by the next at once, whoever is measured: what a contender does after its
/// answer is not the next call's. 50 changes a second are what a node sees at most.
const PAUSE: Duration = Duration::from_millis(20);
/// Ports of each container that is there already.
const EACH: u16 = 20;

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let head = ["existing", "ports", "", "ADD", "p99", "DEL", "p99", "samples", "ADD, against ours", "DEL"];
    let mut table = Table::new(&head);
    let counts: &[u16] = if options.quick { &[0, 1_000] } else { &[0, 1_000, 10_000] };
    let mut needs = String::new();
    for &count in counts {
        let sizes: &[u16] = if options.quick { &[1, 1_000] } else { &[1, 20, 1_000] };
        eprintln!("[cni: {count} existing]");
        let agent = Ours::with_agent(count)?;
        let alone = Ours::alone(count)?;
        for &size in sizes {
            let ports = PortRange::new(MEASURED, MEASURED + size - 1)?;
            compare(options, count, ports, [&agent, &alone], &mut table)?;
        }
        if count == *counts.last().unwrap_or(&0) {
            needs = agent.needs(count)?;
        }
    }
    Ok(format!(
        "## A call of the CNI plugin\n\n\
         From the start of the plugin's process to its end, static TCP ports that keep their numbers; those that exist\n\
         already are led to another number, which makes each a mapping of its own. Ours is `portolan-cni` as the image has it,\n\
         a static program (`cargo xtask plugin`). A process that does nothing (`true`)\n\
         takes {} here. A dash: too few samples for a 99th percentile. portmap is left out where one call takes longer than {} s. A block of 1,000 ports is held by as many sockets, so\n\
         what a program takes that only binds them stands beside it; there a call comes {} ms after the end of the one before.\n\n{}\n{}\n{needs}",
        floor(options)?.median_and_spread(),
        PATIENCE.as_secs(),
        PAUSE.as_millis(),
        table.markdown(),
        networks::measure(options)?,
    ))
}

/// What a process costs that does nothing.
fn floor(options: Options) -> Result<Samples> {
    let (node, mut samples) = (Namespace::new(), Samples::default());
    for _ in 0..options.rounds() {
        samples.begin_round();
        for _ in 0..OURS {
            node.run(|| samples.time(|| feed(&mut Command::new("true"), "")))?;
        }
    }
    Ok(samples)
}

#[derive(Default)]
struct Times {
    add: Samples,
    del: Samples,
}

fn compare(
    options: Options,
    count: u16,
    ports: PortRange,
    ours: [&Ours; 2],
    table: &mut Table,
) -> Result<()> {
    let mut mine = [Times::default(), Times::default()];
    let mut theirs = [Times::default(), Times::default()];
    let mut floor = Times::default();
    // 1,000 ports are some 6,000 processes to its iptables back end.
    let asked = |backend| backend == Backend::Nftables || ports.count() <= EACH;
    let peers =
        [Backend::Iptables, Backend::Nftables].map(|backend| Peer::start(backend, count, asked(backend)));
    for _ in 0..options.rounds() {
        for (ours, times) in ours.iter().zip(&mut mine) {
            let call = |verb: &str, container: &str| ours.call(verb, container, &ours.config(ports));
            ours.node.run(|| round(times, OURS, ports, call))?;
        }
        if ports.count() >= floor::MANY {
            floor::round(&mut floor, OURS, &ours[0].node, ports)?;
        }
        for (peer, times) in peers.iter().zip(&mut theirs) {
            if let Ok(peer) = peer
                && times.add.percentile(100.0).is_none_or(|longest| longest < PATIENCE)
            {
                let call = |verb: &str, container: &str| {
                    peer.portmap.call(&peer.network, verb, container, ports, Protocols::TCP)
                };
                peer.network.node.run(|| round(times, PEER, ports, call))?;
            }
        }
    }
    let mut row = |name: &str, times: &Times| {
        let [add, del] = [&times.add, &times.del].map(Samples::median_and_spread);
        eprintln!("[{count} existing, {} ports, {name}: ADD {add}, DEL {del}]", ports.count());
        table.row([
            thousands(count.into()),
            thousands(ports.count().into()),
            name.to_owned(),
            times.add.median_and_spread(),
            times.add.p99(),
            times.del.median_and_spread(),
            times.del.p99(),
            times.add.count().to_string(),
            ratio(&mine[0].add, &times.add),
            ratio(&mine[0].del, &times.del),
        ]);
    };
    for (ours, times) in ours.iter().zip(&mine) {
        row(ours.heading, times);
    }
    if floor.add.count() > 0 {
        row(floor::NAME, &floor);
    }
    for (peer, times) in peers.iter().zip(&theirs) {
        match peer {
            Ok(peer) => row(&peer.portmap.heading(), times),
            Err(reason) => eprintln!("[{reason:#}]"),
        }
    }
    Ok(())
}

/// Calls in turns for some seconds, ADD and DEL of one container after the other.
fn round(
    times: &mut Times,
    samples: usize,
    ports: PortRange,
    call: impl Fn(&str, &str) -> Call,
) -> Result<()> {
    let pause = if ports.count() < floor::MANY { Duration::ZERO } else { PAUSE };
    times.add.begin_round();
    times.del.begin_round();
    let start = Instant::now();
    for index in 0..samples {
        let container = format!("measured-{index}");
        let (add, del) = (call("ADD", &container), call("DEL", &container));
        times.add.time(|| add.make())?;
        std::thread::sleep(pause);
        times.del.time(|| del.make())?;
        std::thread::sleep(pause);
        if start.elapsed() > BUDGET {
            break;
        }
    }
    Ok(())
}

/// Our plugin on a node of its own, with or without an agent.
struct Ours {
    heading: &'static str,
    node: Namespace,
    folder: TempDir,
    container: Namespace,
    agent: Option<Background>,
    plugin: PathBuf,
}

impl Ours {
    /// An agent that has `count` ports mapped already.
    fn with_agent(count: u16) -> Result<Self> {
        let mut this = Self::new("Portolan")?;
        let at = |name: &str| this.folder.path().join(name);
        let mut command = this.node.command(&portolan_testkit::binary().to_string_lossy());
        command
            .args([
                "agent",
                "--standalone",
                "--no-nri",
                "--no-self-address",
                "--quarantine=0s",
                "--node-name=node",
                LISTEN,
            ])
            .arg("--data")
            .arg(at("data"))
            .arg("--socket")
            .arg(at("agent.sock"))
            .stdin(Stdio::null());
        this.agent = Some(Background::start(&mut command));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !matches!(this.ask(&AgentRequest::Status), Ok(AgentReply::Done { .. })) {
            if Instant::now() > deadline {
                bail!("the agent did not begin to serve");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        for index in 0..count / EACH {
            let reply = this.ask(&AgentRequest::Add(this.existing(index)))?;
            if let AgentReply::Error { message, details, .. } = reply {
                bail!("container {index} of those that are there already: {message} {details}");
            }
        }
        Ok(this)
    }

    /// No agent; `count` ports mapped by as many calls as it takes.
    fn alone(count: u16) -> Result<Self> {
        let this = Self::new("Portolan alone, without an agent")?;
        for index in 0..count / EACH {
            let first = FIRST + index * EACH;
            let mut config = this.config(PortRange::new(first, first + EACH - 1)?);
            // To one port inside, as the agent's: each is a mapping of its own.
            for port in config["runtimeConfig"]["portMappings"].as_array_mut().into_iter().flatten() {
                port["containerPort"] = json!(CONTAINER_PORT);
            }
            let address = format!("{}/16", other_instance(index));
            config["prevResult"]["ips"][0]["address"] = json!(address);
            this.node.run(|| this.call("ADD", &format!("existing-{index}"), &config).make())?;
        }
        Ok(this)
    }

    fn new(heading: &'static str) -> Result<Self> {
        let folder = TempDir::with_prefix("portolan-bench-").context("making a folder")?;
        let plugin = folder.path().join("portolan-cni");
        std::fs::copy(shipped_plugin()?, &plugin).context("copying the plugin")?;
        Ok(Self { heading, node: Namespace::new(), folder, container: Namespace::new(), agent: None, plugin })
    }

    fn existing(&self, index: u16) -> AddRequest {
        let port = |number| StaticPort {
            host_port: FIRST + index * EACH + number,
            container_port: CONTAINER_PORT,
            protocol: Protocol::Tcp,
            host_address: None,
        };
        AddRequest {
            attachment: Attachment {
                container: format!("existing-{index}"),
                interface: "eth0".to_owned(),
                network: "bench".to_owned(),
            },
            netns: Some(self.container.path().display().to_string()),
            pod: None,
            addresses: ipnet::IpNet::new(other_instance(index).into(), 16).into_iter().collect(),
            ports: (0..EACH).map(port).collect(),
            annotations: None,
        }
    }

    fn ask(&self, request: &AgentRequest) -> Result<AgentReply> {
        let mut stream = UnixStream::connect(self.folder.path().join("agent.sock"))?;
        stream.write_all(format!("{}\n", serde_json::to_string(request)?).as_bytes())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("the agent answered {line:?}"))
    }

    fn call(&self, verb: &str, container: &str, config: &serde_json::Value) -> Call {
        let what = format!("{}: {verb} of {container}", self.heading);
        let command = cni(&self.plugin, &self.container, verb, container);
        Call { what, command, input: config.to_string() }
    }

    fn config(&self, host: PortRange) -> serde_json::Value {
        let owner = match &self.agent {
            Some(_) => ("agentSocket", self.folder.path().join("agent.sock")),
            None => ("dataDir", self.folder.path().join("cni")),
        };
        let mut config = config(&self.container, host);
        config["type"] = json!("portolan");
        config[owner.0] = json!(owner.1);
        config["standalone"] = json!(self.agent.is_none());
        config
    }

    /// Memory, and processor time when nothing happens and when much does.
    fn needs(&self, count: u16) -> Result<String> {
        let pid = self.agent.as_ref().context("there is an agent")?.pid();
        let (quiet, seconds) = (cpu(pid)?, 10);
        std::thread::sleep(Duration::from_secs(seconds));
        let quiet = cpu(pid)? - quiet;
        let (begin, busy) = (Instant::now(), cpu(pid)?);
        for change in 0..25 * seconds {
            let mut request = self.existing(0);
            request.attachment.container = format!("change-{change}");
            request.ports.truncate(1);
            request.ports[0].host_port = MEASURED;
            self.ask(&AgentRequest::Add(request.clone()))?;
            self.ask(&AgentRequest::Del { attachment: request.attachment, pod: None })?;
            let due = begin + Duration::from_millis(40 * (change + 1));
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let busy = (cpu(pid)? - busy).as_secs_f64() / begin.elapsed().as_secs_f64();
        let mut table = Table::new(&["the agent", "with"]);
        let mappings = format!("{} mappings", thousands(count.into()));
        table.row([format!("{:.1} MiB resident", memory(pid)? / f64::from(1 << 20)), mappings]);
        let percent = |share: f64| format!("{:.1} % of a core", 100.0 * share);
        table.row([percent(quiet.as_secs_f64() / seconds as f64), "nothing to do".to_owned()]);
        table.row([percent(busy), "50 changes a second".to_owned()]);
        Ok(table.markdown())
    }
}

/// The plugin as the image has it. `PORTOLAN_BIN` names another build.
fn shipped_plugin() -> Result<PathBuf> {
    let plugin = portolan_testkit::plugin();
    if std::env::var_os("PORTOLAN_BIN").is_none() {
        let mut command = portolan_testkit::cargo();
        command.args(["xtask", "plugin"]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let status = command.stdout(Stdio::null()).status().context("starting cargo")?;
        if !status.success() {
            bail!("the plugin cannot be built: cargo ended with {status}");
        }
    }
    Ok(plugin)
}

struct Peer {
    portmap: Portmap,
    network: Network,
}

impl Peer {
    fn start(backend: Backend, count: u16, asked: bool) -> Result<Self> {
        let portmap = Portmap::new(backend)?;
        if !asked {
            bail!("{} is not asked for so many ports", portmap.heading());
        }
        let network = Network::new();
        let host = PortRange::single(MEASURED)?;
        let start = Instant::now();
        network.node.run(|| -> Result<()> {
            portmap.add(&network, "first", host, Protocols::TCP)?;
            portmap.preload(count)?;
            portmap.del(&network, "first", host, Protocols::TCP)
        })?;
        match start.elapsed() {
            long if long > PATIENCE => bail!("{} with {count} existing: {}", portmap.heading(), show(long)),
            _ => Ok(Self { portmap, network }),
        }
    }
}

fn config(container: &Namespace, host: PortRange) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "bench",
        "capabilities": { "portMappings": true },
        "runtimeConfig": { "portMappings": port_mappings(host, Protocols::TCP) },
        "prevResult": {
            "cniVersion": "1.0.0",
            "interfaces": [{ "name": "eth0", "sandbox": container.path() }],
            "ips": [{ "address": format!("{INSTANCE}/24"), "gateway": "10.213.0.1", "interface": 0 }],
        },
    })
}

fn cni(plugin: &Path, container: &Namespace, verb: &str, name: &str) -> Command {
    let mut command = Command::new(plugin);
    command
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", name)
        .env("CNI_NETNS", container.path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", plugin.parent().unwrap_or(Path::new("/")));
    command
}

/// Resident memory in bytes.
fn memory(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Processor time used so far: fields 14 and 15 of `/proc/PID/stat`, in ticks of 10 ms (proc(5); USER_HZ is 100).
fn cpu(pid: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let behind_name = stat.rsplit_once(')').context("no name in stat")?.1;
    let ticks = behind_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(10 * ticks.sum::<Result<u64, _>>()?))
}
