//! A machine with containers that somebody else has made, and a client outside.
//!
//! ```text
//! outside 192.0.2.9 ── eth0 192.0.2.1, .2 [host] vethN ── 10.88.0.N+2 pod N
//! ```

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use portolan_ports::{Lease, holder::ServeOptions, owner};
use portolan_testkit::{
    ask as client,
    echo::Echo,
    net::{End, Namespace, link},
    programs,
};

use super::*;

pub(super) struct Site {
    pub(super) host: Namespace,
    outside: Namespace,
    pods: Mutex<Vec<Option<Arc<Namespace>>>>,
    pub(super) folder: tempfile::TempDir,
}

impl Site {
    fn new(pods: u8) -> Self {
        let (host, outside) = (Namespace::new(), Namespace::new());
        host.forward();
        let quiet = |namespace: &Namespace| {
            namespace.sysctl("net/ipv6/conf/all/accept_dad", "0");
            namespace.sysctl("net/ipv6/conf/default/accept_dad", "0");
        };
        quiet(&host);
        quiet(&outside);
        link(
            End::new(&host, "eth0", &["192.0.2.1/24", "192.0.2.2/24", "2001:db8:1::1/64"]),
            End::new(&outside, "eth0", &["192.0.2.9/24", "2001:db8:1::9/64"]),
        );
        outside.route("default via 192.0.2.1");
        outside.route("default via 2001:db8:1::1");
        let pod = |number: u8| {
            let pod = Namespace::new();
            quiet(&pod);
            let interface = format!("veth{number}");
            let (v4, v6) = (format!("{}/32", v4(number)), format!("{}/128", v6(number)));
            link(
                End::new(&host, &interface, &["10.88.0.1/32", "fd00:88::1/128"]),
                End::new(&pod, "eth0", &[&v4, &v6]),
            );
            for (own, via) in [(&v4, "10.88.0.1"), (&v6, "fd00:88::1")] {
                host.route(&format!("{own} dev {interface}"));
                pod.route(&format!("{via} dev eth0"));
                pod.route(&format!("default via {via}"));
            }
            Some(Arc::new(pod))
        };
        let pods = Mutex::new((0..pods).map(pod).collect());
        Self { host, outside, pods, folder: tempfile::tempdir().unwrap() }
    }

    /// Opens the ports of this machine, as the agent does or as the plugin alone.
    pub(super) fn open(&self, plane: Plane) -> (Attach, Recovered) {
        Attach::open(self.config(plane)).unwrap()
    }

    pub(super) fn config(&self, plane: Plane) -> AttachConfig {
        config(self.folder.path(), plane)
    }

    /// What the pod `number` asks for; its specs as in [`PortRequest`].
    pub(super) fn wish(&self, number: u8, instance: &str, life: &str, specs: &[&str]) -> Wish {
        wish(&self.pod(number).path(), number, instance, life, specs)
    }

    pub(super) fn pod(&self, number: u8) -> Arc<Namespace> {
        self.pods.lock().unwrap()[usize::from(number)].clone().unwrap()
    }

    /// The pod's namespace is gone, as after its machine's reboot or a crash of its runtime.
    pub(super) fn remove(&self, number: u8) {
        self.pods.lock().unwrap()[usize::from(number)] = None;
    }

    /// Servers of both families and protocols in a pod, named after it.
    pub(super) fn serve(&self, number: u8, ports: &[u16]) -> Vec<Echo> {
        let name = format!("pod-{number}");
        let at = |address: IpAddr, port| SocketAddr::new(address, port).to_string();
        let all = ports.iter().flat_map(|&port| [at(v4(number).into(), port), at(v6(number).into(), port)]);
        all.flat_map(|address| {
            [Echo::tcp(&self.pod(number), &name, &address), Echo::udp(&self.pod(number), &name, &address)]
        })
        .collect()
    }

    /// Who answers at this address of the machine.
    pub(super) fn ask_at(&self, address: &str, protocol: Protocol, port: u16) -> Result<String, String> {
        let to = (address.parse::<IpAddr>().unwrap(), port);
        let patience = Duration::from_millis(500);
        let answer = self.outside.run(|| match protocol {
            Protocol::Tcp => client::tcp_within(to, patience),
            _ => client::udp_within(to, patience),
        });
        answer.map(|text| text.split(' ').next().unwrap().to_owned()).map_err(|error| error.to_string())
    }

    /// A connection from outside.
    pub(super) fn connect(&self, port: u16) -> std::net::TcpStream {
        self.outside.run(|| std::net::TcpStream::connect(("192.0.2.1", port)).unwrap())
    }

    pub(super) fn nft(&self, words: &str) -> String {
        let mut nft = self.host.command("nft");
        programs::run(nft.args(words.split(' ')))
    }

    pub(super) fn rules(&self) -> String {
        self.nft("list ruleset")
    }

    pub(super) fn reserved(&self) -> String {
        self.host.read_sysctl("net/ipv4/ip_local_reserved_ports")
    }

    /// The ports that somebody has bound on this machine, by the kernel's own list.
    pub(super) fn held(&self) -> Vec<(Protocol, u16)> {
        self.host.run(|| {
            let of = |protocol| {
                let sockets = portolan_netlink::sockdiag::all(protocol).unwrap();
                sockets.into_iter().map(move |socket| (protocol, socket.local.port()))
            };
            let all: BTreeSet<_> = [Protocol::Tcp, Protocol::Udp].into_iter().flat_map(of).collect();
            all.into_iter().collect()
        })
    }
}

/// Does `work` on a machine with so many pods: on a thread of its network namespace, as an agent would.
pub(super) fn on_host<T: Send>(pods: u8, work: impl FnOnce(&Site) -> T + Send) -> T {
    let site = Site::new(pods);
    site.host.run(|| work(&site))
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = portolan_ports::holder::HolderClient::end_all(&self.folder.path().join("holder.sock"));
    }
}

/// What [`Site::held`] is to say.
pub(super) fn held_for(attach: &Attach) -> Vec<(Protocol, u16)> {
    let holds = attach.leases().flat_map(Lease::holds);
    let all: BTreeSet<_> =
        holds.flat_map(|hold| hold.ports.iter().map(move |port| (hold.protocol, port))).collect();
    all.into_iter().collect()
}

/// Who answers at the machine's first address.
pub(super) fn ask(site: &Site, protocol: Protocol, port: u16) -> Result<String, String> {
    site.ask_at("192.0.2.1", protocol, port)
}

pub(super) fn names(attach: &Attach) -> Vec<&str> {
    attach.leases().map(|lease| lease.request.instance.as_str()).collect()
}

pub(super) fn config(folder: &Path, plane: Plane) -> AttachConfig {
    AttachConfig {
        folder: folder.to_owned(),
        pools: Pools::default(),
        holder: holder(),
        holder_socket: None,
        reserved_ports: Some(portolan_ports::reserve::PATH.into()),
        patience: Duration::from_secs(30),
        plan: PlanConfig::any(),
        fixed: Vec::new(),
        plane,
    }
}

pub(super) fn wish(namespace: &Path, number: u8, instance: &str, life: &str, specs: &[&str]) -> Wish {
    Wish {
        instance: instance.parse().unwrap(),
        incarnation: life.parse().unwrap(),
        owner: owner::namespace(namespace).unwrap(),
        requests: specs.iter().map(|spec| spec.parse().unwrap()).collect(),
        network: Network::Own,
        v4: Some(v4(number)),
        v6: Some(v6(number)),
        local: vec!["10.88.0.0/24".parse().unwrap(), "fd00:88::/64".parse().unwrap()],
        attachment: Some(Attachment {
            container: life.to_owned(),
            interface: "eth0".to_owned(),
            network: "test".to_owned(),
        }),
    }
}

fn v4(number: u8) -> std::net::Ipv4Addr {
    [10, 88, 0, number + 2].into()
}

fn v6(number: u8) -> std::net::Ipv6Addr {
    format!("fd00:88::{:x}", u16::from(number) + 2).parse().unwrap()
}

/// Says to a copy of this test program that it is a holder, or a process that is to be killed.
pub(super) const ROLE: &str = "PORTOLAN_TEST_ROLE";

/// This test program as another process: the test `name`, alone and unconfined, in that role.
pub(super) fn this_program(name: &str, role: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    let test = format!("{}::{name}", module_path!().split_once("::").unwrap().1.rsplit_once("::").unwrap().0);
    let words = [&format!("{ROLE}={role}"), &program, "--quiet", "--nocapture", "--exact", &test];
    words.map(|word| word.to_string()).to_vec()
}

/// What comes after the arguments, `--socket PATH`, libtest would not know.
fn holder() -> HolderMode {
    let words = this_program("site::the_holder", "holder").join(" ");
    let script = format!("exec env PORTOLAN_TEST_SOCKET=\"$2\" {words}");
    let args = ["-c", &script, "holder"].map(std::ffi::OsString::from).to_vec();
    HolderMode::Spawn { program: PathBuf::from("/bin/sh"), args }
}

/// Not a test by itself: a holder for the others.
#[test]
fn the_holder() {
    if std::env::var(ROLE).as_deref() == Ok("holder") {
        let socket = std::env::var_os("PORTOLAN_TEST_SOCKET").unwrap().into();
        let minutes = Some(Duration::from_secs(120));
        let options = ServeOptions { socket, idle: minutes, abandoned: minutes, limit: None };
        portolan_ports::holder::serve(&options).unwrap();
    }
}
