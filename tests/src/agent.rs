//! A node with an agent and without a cluster: the real agent, the real plugin, the real kernel.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use portolan_testkit::{Background, binary, eventually_ok, programs};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cni::{Answer, Container, Host};

/// How long an agent may take until it serves.
const START: Duration = Duration::from_secs(20);

/// A node with an agent.
#[derive(Debug)]
pub struct Node {
    /// Its machine, and what is around it.
    pub host: Host,
    agent: Option<Background>,
    more: Vec<String>,
}

impl Node {
    /// A node whose agent serves.
    #[track_caller]
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with more flags, which its next agents have too.
    #[track_caller]
    pub fn with(more: &[&str]) -> Self {
        let mut node =
            Self { host: Host::new(), agent: None, more: more.iter().map(|&flag| flag.to_owned()).collect() };
        node.start(&[]);
        node
    }

    /// A file of the node's folder.
    pub fn at(&self, name: &str) -> PathBuf {
        self.host.folder().join(name)
    }

    /// The flags of its agents.
    pub fn arguments(&self) -> Vec<String> {
        let at = |name: &str| self.at(name).to_string_lossy().into_owned();
        let mut flags = vec![
            "agent".to_owned(),
            "--standalone".to_owned(),
            "--no-nri".to_owned(),
            "--node-name=node1".to_owned(),
            "--advertise=192.0.2.1".to_owned(),
            "--quarantine=0s".to_owned(),
            format!("--data={}", at("data")),
            format!("--socket={}", at("agent.sock")),
        ];
        flags.extend(self.more.iter().cloned());
        flags
    }

    /// Starts an agent and waits until it serves.
    #[track_caller]
    pub fn start(&mut self, more: &[&str]) {
        self.start_in(&[], more);
    }

    /// The same with these variables in its environment.
    #[track_caller]
    pub fn start_in(&mut self, environment: &[(&str, &str)], more: &[&str]) {
        self.spawn(environment, more);
        let served =
            eventually_ok(START, || if self.host_status().success { Ok(()) } else { Err("not yet") });
        assert!(served.is_ok(), "{}", self.transcript());
    }

    fn spawn(&mut self, environment: &[(&str, &str)], more: &[&str]) {
        let mut command = self.host.node.command(&binary().to_string_lossy());
        command.args(self.arguments()).args(more).envs(environment.iter().copied());
        self.agent = Some(Background::start(&mut command));
    }

    fn host_status(&self) -> Answer {
        self.host.plugin(
            &[("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/opt")],
            &self.config(&[], json!([])).to_string(),
        )
    }

    /// What the agent has said.
    pub fn transcript(&self) -> String {
        self.agent.as_ref().map(Background::transcript).unwrap_or_default()
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().map_or(0, Background::pid)
    }

    /// Waits until the agent has ended by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.wait(START);
        }
    }

    /// Ends the agent by a signal and waits until it has ended.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) {
        if let Some(mut agent) = self.agent.take() {
            agent.signal(signal);
            agent.wait(Duration::from_secs(15));
        }
    }

    /// The plugin's configuration for a Pod with these annotations and static mappings.
    pub fn config(&self, annotations: &[(&str, &str)], mappings: Value) -> Value {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        json!({
            "cniVersion": "1.1.0",
            "name": "testnet",
            "type": "portolan",
            "agentSocket": self.at("agent.sock"),
            "runtimeConfig": {
                "portMappings": mappings,
                "io.kubernetes.cri.pod-annotations": annotations,
            },
        })
    }

    /// Calls the plugin as containerd does for a Pod of this name, with the container's result unless `config` has one.
    #[track_caller]
    pub fn call(&self, command: &str, pod: &str, container: &Container, config: &Value) -> Answer {
        self.call_on(command, pod, container, "eth0", config)
    }

    /// The same for one of the container's interfaces.
    #[track_caller]
    pub fn call_on(
        &self,
        command: &str,
        pod: &str,
        container: &Container,
        interface: &str,
        config: &Value,
    ) -> Answer {
        let mut config = config.clone();
        if config.get("prevResult").is_none() {
            config["prevResult"] = container.result("1.1.0");
        }
        let arguments =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME={pod};K8S_POD_UID=uid-{pod}");
        self.host.plugin(
            &[
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", &container.id),
                ("CNI_NETNS", &container.namespace.path().to_string_lossy()),
                ("CNI_IFNAME", interface),
                ("CNI_ARGS", &arguments),
                ("CNI_PATH", "/opt/cni/bin"),
            ],
            &config.to_string(),
        )
    }

    /// Whether no program of the node could have the port now. `ss` does not show sockets that only hold one.
    pub fn is_held(&self, port: u16) -> bool {
        self.host.node.run(|| std::net::TcpListener::bind(("0.0.0.0", port)).is_err())
    }

    /// What the file says that the Pod's containers would have mounted.
    #[track_caller]
    pub fn told(&self, container: &Container) -> Option<Value> {
        let file = self.at("data").join("pods").join(&container.id).join("ports.json");
        serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
    }

    /// The first of the ports that a Pod was told.
    #[track_caller]
    pub fn port(&self, container: &Container) -> u16 {
        let told = self.told(container).unwrap_or_else(|| panic!("told nothing: {}", self.transcript()));
        let text = told["ports"][0]["host"].as_str().unwrap_or_default().to_owned();
        text.split('-').next().and_then(|first| first.parse().ok()).unwrap_or_else(|| panic!("{told}"))
    }

    /// The leases, by the agent's own word.
    #[track_caller]
    pub fn leases(&self) -> BTreeMap<String, Vec<String>> {
        use std::io::{BufRead as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(self.at("agent.sock"))
            .unwrap_or_else(|error| panic!("the agent: {error}"));
        stream.write_all(b"\"ports\"\n").unwrap_or_else(|error| panic!("a question: {error}"));
        let mut line = String::new();
        std::io::BufReader::new(stream)
            .read_line(&mut line)
            .unwrap_or_else(|error| panic!("an answer: {error}"));
        let reply: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let leases = reply["ports"]["leases"].as_array().cloned().unwrap_or_else(|| panic!("{line}"));
        let ports = |lease: &Value| {
            let ports = lease["ports"].as_array().cloned().unwrap_or_default();
            ports.iter().map(|port| port["host"].as_str().unwrap_or_default().to_owned()).collect()
        };
        let name = |lease: &Value| lease["instance"].as_str().unwrap_or_default().to_owned();
        leases.iter().map(|lease| (name(lease), ports(lease))).collect()
    }

    /// Whether leases, rules and holds are one and the same, for these Pods and no others.
    #[track_caller]
    pub fn disagreement(&self, pods: &BTreeMap<String, u16>) -> Option<String> {
        let leases = self.leases();
        let expected: Vec<String> = pods.keys().map(|pod| format!("games/{pod}")).collect();
        if leases.keys().collect::<Vec<_>>() != expected.iter().collect::<Vec<_>>() {
            return Some(format!("leases {leases:?}, and not of {expected:?}"));
        }
        let mut nft = self.host.node.command("nft");
        // Without what has been counted.
        let rules = programs::run(nft.args(["-s", "list", "map", "inet", "portolan", "host_v4"]));
        let rules = rules.replace(" counter :", " :");
        for (lease, ports) in &leases {
            for port in ports {
                if !rules.contains(&format!(" {port} : ")) {
                    return Some(format!("no rule for {port} of {lease}: {rules}"));
                }
                if !self.is_held(port.parse().unwrap_or_default()) {
                    return Some(format!("{port} of {lease} is not held"));
                }
            }
        }
        let all: Vec<&String> = leases.values().flatten().collect();
        let mapped = rules.matches(". 2").count();
        if mapped != all.len() {
            return Some(format!("{mapped} mappings for {} ports: {rules}", all.len()));
        }
        None
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}
