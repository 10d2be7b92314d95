//! The CNI plugin behind bridge and host-local, called by libcni: what portmap's own integration test looks at.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use portolan_cluster::Tools;
use portolan_testkit::{ask, echo::Echo, need_root, net::Namespace, plugin, skip};
use portolan_tests::cni::{Answer, Host, VERSIONS, who};
use serde_json::{Value, json};

/// A network of the plugins bridge, host-local and ours on a machine.
struct Network {
    host: Host,
    cnitool: PathBuf,
    plugins: PathBuf,
}

impl Network {
    /// `None`, with a printed reason, where the plugins cannot be built.
    fn new(version: &str, ours: &str) -> Option<Self> {
        let tools = Tools::new().and_then(|tools| {
            tools.build(&["cni"], &|_| {})?;
            Ok((tools.program("cnitool")?, tools.program("bridge")?))
        });
        let (cnitool, bridge) = match tools {
            Ok(found) => found,
            Err(error) => {
                skip(&format!("no CNI plugins: {error:#}"));
                return None;
            }
        };
        let host = Host::new();
        let folder = host.folder().to_owned();
        for name in ["net.d", "bin", "var"] {
            std::fs::create_dir(folder.join(name)).expect("a folder");
        }
        std::os::unix::fs::symlink(plugin(), folder.join("bin").join(ours)).expect("the plugin");
        let config = json!({
            "cniVersion": version,
            "name": "testnet",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    // Without it a bridge sends nothing back where it came from: no container reaches itself.
                    "hairpinMode": true,
                    "ipam": {
                        "type": "host-local",
                        "dataDir": folder.join("ipam"),
                        "ranges": [[{"subnet": "10.88.0.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {
                    "type": ours,
                    "capabilities": {"portMappings": true},
                    "standalone": true,
                    "dataDir": host.data(),
                    "snat": true,
                    "backend": "nftables",
                },
            ],
        });
        std::fs::write(folder.join("net.d/10-test.conflist"), config.to_string()).expect("a configuration");
        let plugins = Path::new(&bridge).parent().expect("a folder").to_owned();
        Some(Self { host, cnitool: cnitool.into(), plugins })
    }

    /// Runs cnitool on the machine, with its cache of results in the test's folder.
    fn run(&self, command: &str, container: &Namespace, mappings: &Value) -> Answer {
        let folder = self.host.folder();
        // cnitool knows no other place than /var/lib/cni.
        let script = r#"mount --bind "$1" /var/lib && shift && exec "$@""#;
        let mut process = self.host.node.command("unshare");
        process
            .args(["--mount", "sh", "-c", script, "sh"])
            .arg(folder.join("var"))
            .arg(&self.cnitool)
            .args([command, "testnet"])
            .arg(container.path())
            .env("NETCONFPATH", folder.join("net.d"))
            .env("CNI_PATH", format!("{}:{}", folder.join("bin").display(), self.plugins.display()))
            .env("CAP_ARGS", json!({"portMappings": mappings}).to_string());
        Answer::of(&mut process, "")
    }
}

/// The container's first IPv4 address in the result of any version.
fn address(result: &Value) -> IpAddr {
    let text = result["ips"][0]["address"].as_str().or(result["ip4"]["ip"].as_str());
    let address = text.and_then(|text| text.split('/').next()?.parse().ok());
    address.unwrap_or_else(|| panic!("no address in {result:#}"))
}

fn mapping(protocol: &str) -> Value {
    json!([{"hostPort": 18080, "containerPort": 8080, "protocol": protocol}])
}

#[test]
fn a_tcp_port_is_forwarded_in_every_version() {
    need_root!();
    for version in VERSIONS {
        let Some(network) = Network::new(version, "portolan") else { return };
        let (host, container, neighbour) = (&network.host, Namespace::new(), Namespace::new());
        let added = network.run("add", &container, &mapping("tcp")).ok();
        network.run("add", &neighbour, &json!([])).ok();
        let inside = address(&added.json);
        let _echo = Echo::tcp(&container, "it", "0.0.0.0:8080");

        let direct = who(host.node.run(|| ask::tcp(SocketAddr::new(inside, 8080))));
        assert_eq!(direct.as_deref(), Some("it"), "{version}: sanity");
        let to = SocketAddr::new(Host::V4, 18080);
        let gateway = SocketAddr::from(([10, 88, 0, 1], 18080));
        for (from, namespace) in [
            ("the world", &host.world),
            ("the machine", &host.node),
            ("itself: hairpin", &container),
            ("a neighbour on the bridge", &neighbour),
        ] {
            assert_eq!(who(namespace.run(|| ask::tcp(to))).as_deref(), Some("it"), "{version}: from {from}");
        }
        for namespace in [&container, &neighbour] {
            let answer = who(namespace.run(|| ask::tcp(gateway)));
            assert_eq!(answer.as_deref(), Some("it"), "{version}: by the bridge's address");
        }
        if version >= "0.4.0" {
            network.run("check", &container, &mapping("tcp")).ok();
        }
        network.run("del", &container, &mapping("tcp")).ok();
        assert!(!host.rules().contains("18080"), "{version}: {}", host.rules());
        assert_eq!(host.from_world(Host::V4, 18080), None);
        network.run("del", &neighbour, &json!([])).ok();
    }
}

#[test]
fn a_udp_port_works_for_a_second_container_with_the_same_host_port() {
    need_root!();
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let Some(network) = Network::new(version, "portolan") else { return };
        let host = &network.host;
        let socket = host.world.run(|| UdpSocket::bind("192.0.2.2:0")).expect("a socket");
        let to = SocketAddr::new(Host::V4, 18080);
        for name in ["first", "second"] {
            let container = Namespace::new();
            network.run("add", &container, &mapping("udp")).ok();
            let _echo = Echo::udp(&container, name, "0.0.0.0:8080");
            let answer = ask::udp_on(&socket, to, Duration::from_secs(5));
            assert_eq!(who(answer).as_deref(), Some(name), "{version}");
            network.run("del", &container, &mapping("udp")).ok();
        }
    }
}

#[test]
fn the_plugin_can_have_the_name_portmap() {
    need_root!();
    let Some(network) = Network::new("1.0.0", "portmap") else { return };
    let container = Namespace::new();
    network.run("add", &container, &mapping("tcp")).ok();
    let _echo = Echo::tcp(&container, "it", "0.0.0.0:8080");
    assert_eq!(network.host.from_world(Host::V4, 18080).as_deref(), Some("it"));
    network.run("del", &container, &mapping("tcp")).ok();
}

#[test]
fn libcni_may_collect_garbage_and_ask_for_the_status() {
    need_root!();
    let Some(network) = Network::new("1.1.0", "portolan") else { return };
    let container = Namespace::new();
    network.run("status", &container, &json!([])).ok();
    network.run("add", &container, &mapping("tcp")).ok();
    assert!(network.host.rules().contains("18080"));
    // cnitool knows of no valid attachment: libcni deletes what is in its cache, and says nothing to plugins.
    network.run("gc", &container, &json!([])).ok();
    assert!(!network.host.rules().contains("18080"));
}

#[test]
fn a_refused_port_undoes_the_whole_container() {
    need_root!();
    let Some(network) = Network::new("1.1.0", "portolan") else { return };
    let (one, other) = (Namespace::new(), Namespace::new());
    network.run("add", &one, &mapping("tcp")).ok();
    let refused = network.run("add", &other, &mapping("tcp"));
    assert!(!refused.success && refused.stderr.contains("18080"), "{refused:?}");
    // As a runtime does after a failed ADD.
    network.run("del", &other, &mapping("tcp")).ok();
    network.run("check", &one, &mapping("tcp")).ok();
}
