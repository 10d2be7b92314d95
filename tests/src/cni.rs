//! A container runtime in small: a machine, containers on it, and calls of CNI plugins as a runtime makes them.
//!
//! ```text
//! world 192.0.2.2 ---- 192.0.2.1 machine 10.86.N.1 ---- 10.86.N.2 container N
//!       fd02::2        fd02::1           fd86:N::1      fd86:N::2
//! ```

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use portolan_testkit::{
    ask, eventually,
    net::{End, Namespace, link},
    plugin, programs,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The versions in which a plugin can be chained.
pub const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A namespace whose IPv6 addresses work at once.
#[track_caller]
fn namespace() -> Namespace {
    let namespace = Namespace::new();
    namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
    namespace.sysctl("net/ipv6/conf/default/dad_transmits", "0");
    namespace
}

/// Has `from` find its neighbour, which takes IPv6 a good part of a second on a new link (RFC 4861, section 7.2.2): a test
/// asks once, and has no such patience.
pub fn acquaint(from: &Namespace, neighbour: IpAddr) {
    let closed = SocketAddr::new(neighbour, 9);
    let _ = from.run(|| std::net::TcpStream::connect_timeout(&closed, std::time::Duration::from_secs(5)));
}

/// The name in the answer of an echo server; `None` when there was no answer.
pub fn who(answer: std::io::Result<String>) -> Option<String> {
    answer.ok()?.split_whitespace().next().map(str::to_owned)
}

/// A machine of a runtime, linked to the rest of the world.
#[derive(Debug)]
pub struct Host {
    /// The rest of the world.
    pub world: Namespace,
    /// The machine.
    pub node: Namespace,
    folder: TempDir,
    next: AtomicU8,
}

impl Host {
    /// The machine's address on its link to the world.
    pub const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    /// See [`Host::V4`].
    pub const V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd02, 0, 0, 0, 0, 0, 0, 1));

    /// A machine without containers, that forwards.
    #[track_caller]
    pub fn new() -> Self {
        let (world, node) = (namespace(), namespace());
        link(
            End::new(&world, "eth0", &["192.0.2.2/24", "fd02::2/64"]),
            End::new(&node, "eth0", &["192.0.2.1/24", "fd02::1/64"]),
        );
        node.route("default via 192.0.2.2");
        node.route("default via fd02::2");
        node.forward();
        acquaint(&world, Self::V6);
        let folder =
            TempDir::with_prefix("portolan-cni-").unwrap_or_else(|error| panic!("a folder: {error}"));
        Self { world, node, folder, next: AtomicU8::new(1) }
    }

    /// A folder for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the plugin alone keeps its state.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("cni")
    }

    /// A container with a link and an address of each family.
    #[track_caller]
    pub fn container(&self) -> Container {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.container_at(number, &format!("container-{number}"))
    }

    /// A container with the addresses of number `number`; the link of another one that had them must be gone.
    #[track_caller]
    pub fn container_at(&self, number: u8, id: &str) -> Container {
        let namespace = namespace();
        let interface = format!("veth{number}");
        let gateways = [format!("10.86.{number}.1/24"), format!("fd86:{number:x}::1/64")];
        let addresses = [format!("10.86.{number}.2/24"), format!("fd86:{number:x}::2/64")];
        // A namespace is taken apart by the kernel some time after its last reference is gone, and our end with it.
        eventually(Duration::from_secs(10), || {
            !self.node.ip("-brief link").contains(&format!("{interface}@"))
        });
        link(
            End::new(&self.node, &interface, &[&gateways[0], &gateways[1]]),
            End::new(&namespace, "eth0", &[&addresses[0], &addresses[1]]),
        );
        namespace.route(&format!("default via 10.86.{number}.1"));
        namespace.route(&format!("default via fd86:{number:x}::1"));
        let container = Container { id: id.to_owned(), number, namespace, addresses };
        acquaint(&self.node, container.v6());
        container
    }

    /// The configuration of our plugin with these port mappings, in the newest version, working alone.
    pub fn config(&self, mappings: Value) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "testnet",
            "type": "portolan",
            "standalone": true,
            "dataDir": self.data(),
            "runtimeConfig": { "portMappings": mappings },
        })
    }

    /// Calls our plugin for a container, with its result of the plugins before us where the command has one.
    #[track_caller]
    pub fn call(&self, command: &str, container: &Container, config: &Value) -> Answer {
        let mut config = config.clone();
        if config.get("prevResult").is_none() {
            config["prevResult"] = container.result(config["cniVersion"].as_str().unwrap_or_default());
        }
        self.plugin(
            &[
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", &container.id),
                ("CNI_NETNS", &container.namespace.path().to_string_lossy()),
                ("CNI_IFNAME", "eth0"),
                ("CNI_PATH", "/opt/cni/bin"),
            ],
            &config.to_string(),
        )
    }

    /// Calls our plugin on this machine with these variables and this standard input.
    #[track_caller]
    pub fn plugin(&self, variables: &[(&str, &str)], stdin: &str) -> Answer {
        let mut command = self.node.command(&plugin().to_string_lossy());
        command.env_clear().envs(variables.iter().copied());
        Answer::of(&mut command, stdin)
    }

    /// Which TCP server the world reaches behind this port of the machine; `None` when there is none.
    pub fn from_world(&self, address: IpAddr, port: u16) -> Option<String> {
        who(self.world.run(|| ask::tcp(SocketAddr::new(address, port))))
    }

    /// The host ports that the plugin alone has given to a container, by its own word.
    #[track_caller]
    pub fn published(&self, container: &Container) -> Vec<u16> {
        let file = self.data().join(format!("ports/{}@eth0.json", container.id));
        let Ok(text) = std::fs::read_to_string(file) else { return Vec::new() };
        let ports: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let numbers =
            ports.as_array().into_iter().flatten().filter_map(|port| port["host"].as_str()?.parse().ok());
        numbers.collect()
    }

    /// The ruleset of the machine, as `nft` shows it.
    #[track_caller]
    pub fn rules(&self) -> String {
        programs::run(self.node.command("nft").args(["list", "ruleset"]))
    }

    /// The ports that something on the machine has bound.
    #[track_caller]
    pub fn bound(&self) -> String {
        programs::run(self.node.command("ss").args(["-Hantu", "state", "all"]))
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The process that holds ports for the plugin outlives its calls.
        let pids = programs::output(&mut programs::command("ip", ["netns", "pids", self.node.name()]));
        for pid in String::from_utf8_lossy(&pids.stdout).split_whitespace() {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }
}

/// A container: a namespace with a link to the machine.
#[derive(Debug)]
pub struct Container {
    /// `CNI_CONTAINERID`.
    pub id: String,
    /// Its number, which its addresses have.
    pub number: u8,
    /// Its network.
    pub namespace: Namespace,
    addresses: [String; 2],
}

impl Container {
    /// Its IPv4 address.
    pub const fn v4(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(10, 86, self.number, 2))
    }

    /// Its IPv6 address.
    pub const fn v6(&self) -> IpAddr {
        IpAddr::V6(Ipv6Addr::new(0xfd86, self.number as u16, 0, 0, 0, 0, 0, 2))
    }

    /// The result of the plugin that made its interface, in a version of the specification, with keys that nobody
    /// knows.
    pub fn result(&self, version: &str) -> Value {
        let [v4, v6] = &self.addresses;
        if matches!(version, "" | "0.1.0" | "0.2.0") {
            return json!({ "cniVersion": version, "ip4": {"ip": v4}, "ip6": {"ip": v6}, "dns": {} });
        }
        let mut ips = json!([{"address": v4, "interface": 1}, {"address": v6, "interface": 1}]);
        if version.starts_with('0') {
            ips[0]["version"] = json!("4");
            ips[1]["version"] = json!("6");
        }
        json!({
            "cniVersion": version,
            "interfaces": [
                {"name": format!("veth{}", self.number), "mac": "02:00:00:00:00:01"},
                {"name": "eth0", "sandbox": self.namespace.path(), "mac": "02:00:00:00:00:02"},
            ],
            "ips": ips,
            "routes": [{"dst": "0.0.0.0/0", "gw": format!("10.86.{}.1", self.number)}],
            "dns": {"nameservers": ["192.0.2.53"]},
            "nobody-knows": {"this": [1.0, 2, null]},
        })
    }
}

/// What a plugin answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Whether it ended with 0.
    pub success: bool,
    /// Standard output as JSON; null where it is empty or no JSON.
    pub json: Value,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Answer {
    /// Runs `command` with this standard input.
    #[track_caller]
    pub fn of(command: &mut Command, stdin: &str) -> Self {
        use std::io::Write as _;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        if let Some(mut pipe) = child.stdin.take() {
            // A program that does not read to the end has its reasons.
            let _ = pipe.write_all(stdin.as_bytes());
        }
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        Self {
            success: output.status.success(),
            json: serde_json::from_str(&stdout).unwrap_or_default(),
            stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same when it is a success; panics otherwise.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert!(self.success, "it failed: {self:?}");
        self
    }

    /// The code and the text of the error; panics when there is none.
    #[track_caller]
    pub fn error(&self) -> (u64, String) {
        let code = self.json["code"].as_u64().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert!(!self.success, "an error with exit status 0: {self:?}");
        let text = |key: &str| self.json[key].as_str().unwrap_or_default().to_owned();
        (code, format!("{}; {}", text("msg"), text("details")))
    }
}
