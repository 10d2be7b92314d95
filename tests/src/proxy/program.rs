//! The service proxies: kube-proxy of the tools, and ours, with the same flags.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use portolan_cluster::{Tools, node_name};
use portolan_testkit::{Background, eventually_ok};

use super::{
    api::Api,
    world::{Place, World},
};

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// kube-proxy of Kubernetes 1.36.3 in its nftables mode.
    KubeProxy,
    /// `portolan proxy`.
    Portolan,
}

impl Program {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Portolan => "Portolan",
        }
    }
}

/// The networks of Pods in this world.
pub const CLUSTER: &str = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56";

/// How the proxy of each node is configured: what kube-proxy's flags can say about sources and node ports.
pub const NODES: [(&str, &[&str]); 7] = [
    ("the usual", &[CLUSTER]),
    ("the usual", &[CLUSTER]),
    ("masquerades all", &[CLUSTER, "--masquerade-all"]),
    ("knows no Pods", &[]),
    (
        "knows Pods by a prefix of interfaces, another mark, node ports everywhere",
        &[
            "--detect-local-mode=InterfaceNamePrefix",
            "--pod-interface-name-prefix=pod",
            "--iptables-masquerade-bit=13",
            "--nodeport-addresses=0.0.0.0/0,::/0",
        ],
    ),
    (
        "knows Pods by an interface, node ports in a network",
        &[
            "--detect-local-mode=BridgeInterface",
            "--pod-bridge-interface=podc",
            "--nodeport-addresses=198.51.6.0/24,2001:db8:6::/64",
        ],
    ),
    ("knows Pods by its Node", &["--detect-local-mode=NodeCIDR"]),
];

/// The proxy on one node; it ends with this value, and what it programmed stays.
#[derive(Debug)]
pub struct Running {
    /// Which.
    pub program: Program,
    /// The process.
    pub process: Background,
    node: u8,
}

impl Running {
    /// Starts a proxy on a node, with more flags than those that all have.
    #[track_caller]
    pub fn start(program: Program, api: &Api, world: &World, node: u8, more: &[&str]) -> Self {
        let path = match program {
            Program::KubeProxy => match Tools::new().and_then(|tools| tools.program("kube-proxy")) {
                Ok(path) => path,
                Err(error) => panic!("{error:#}"),
            },
            Program::Portolan => portolan_testkit::binary().to_string_lossy().into_owned(),
        };
        let mut command = world.at(Place::Node(node)).command(&path);
        if program == Program::Portolan {
            // All nodes share this machine's files, and each has a socket of its own.
            command.arg("proxy").arg(format!("--socket={}", api.file(&format!("node{node}.sock")).display()));
        } else {
            command.args(["--proxy-mode=nftables", "--oom-score-adj=0"]);
        }
        command
            .arg(format!("--kubeconfig={}", api.kubeconfig().display()))
            .arg(format!("--hostname-override={}", node_name(node.into())))
            .args(["--conntrack-max-per-core=0", "--conntrack-min=0", "--conntrack-tcp-be-liberal", "-v=2"])
            .args(more);
        Self { program, process: Background::start(&mut command), node }
    }

    /// Starts one on every node of [`NODES`].
    #[track_caller]
    pub fn everywhere(program: Program, api: &Api, world: &World) -> Vec<Self> {
        let configured = world.nodes().zip(NODES);
        configured.map(|(node, (_, flags))| Self::start(program, api, world, node, flags)).collect()
    }

    /// Its node.
    pub fn node(&self) -> u8 {
        self.node
    }

    /// What its health server says: status and body.
    pub fn health(&self, world: &World, path: &str) -> Result<(u16, String), String> {
        get(world, Place::Node(self.node), SocketAddr::from(([127, 0, 0, 1], 10256)), path)
    }

    /// Waits until its health server, on another port than the usual, says that it is healthy.
    #[track_caller]
    pub fn wait_healthy_at(&self, world: &World, patience: Duration, port: u16) {
        let server = SocketAddr::from(([127, 0, 0, 1], port));
        let healthy =
            eventually_ok(patience, || match get(world, Place::Node(self.node), server, "/healthz") {
                Ok((200, _)) => Ok(()),
                other => Err(other),
            });
        assert_eq!(healthy, Ok(()), "{}", self.log());
    }

    /// What its metrics server says.
    pub fn metrics(&self, world: &World, path: &str) -> Result<(u16, String), String> {
        get(world, Place::Node(self.node), SocketAddr::from(([127, 0, 0, 1], 10249)), path)
    }

    /// The last lines that it wrote.
    pub fn log(&self) -> String {
        let text = self.process.stderr();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Waits until it says that it is healthy.
    #[track_caller]
    pub fn wait_healthy(&mut self, world: &World, patience: Duration) {
        let healthy = eventually_ok(patience, || match self.health(world, "/healthz") {
            Ok((200, _)) => Ok(()),
            other if self.process.is_running() => Err(format!("{other:?}")),
            other => Err(format!("it has ended; {other:?}")),
        });
        if let Err(error) = healthy {
            panic!("{} on node {}: {error}\n{}", self.program.name(), self.node, self.process.transcript());
        }
    }
}

/// One GET from somewhere: status, and head with body.
pub fn get(world: &World, from: Place, server: SocketAddr, path: &str) -> Result<(u16, String), String> {
    use std::io::{Read as _, Write as _};
    world.at(from).run(|| {
        let told = |error: std::io::Error| error.to_string();
        let mut stream =
            std::net::TcpStream::connect_timeout(&server, Duration::from_secs(2)).map_err(told)?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(told)?;
        let host = match server.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n").map_err(told)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map_err(told)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or_else(|| answer.clone())?, answer))
    })
}
