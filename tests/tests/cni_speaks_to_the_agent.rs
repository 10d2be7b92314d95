//! The plugin between a runtime and the agent: what it asks, what it answers, and what it does without an answer.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use portolan_testkit::need_root;
use portolan_tests::cni::{Answer, Host};
use serde_json::{Value, json};

/// Somebody who answers at the agent's socket and remembers what was asked. It ends with the test's process.
struct Agent {
    socket: PathBuf,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Agent {
    /// Answers everything with this line; nothing at all when it is empty.
    fn start(socket: &Path, reply: &str) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).expect("a socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, reply) = (Arc::clone(&asked), reply.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                log.lock().expect("a log").push(serde_json::from_str(&line).unwrap_or_default());
                if !reply.is_empty() {
                    let _ = writeln!(&stream, "{reply}");
                }
            }
        });
        Self { socket: socket.to_owned(), asked }
    }

    fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("a log").clone()
    }
}

const DONE: &str = r#"{"done":{"ports":[]}}"#;
const POD: &str = "IgnoreUnknown=1;K8S_POD_NAMESPACE=games;K8S_POD_NAME=lobby-0;K8S_POD_UID=1-2-3";

/// Calls the plugin for container 1 as containerd does for a Pod.
fn call(host: &Host, command: &str, netns: &str, config: &Value) -> Answer {
    let variables = [
        ("CNI_COMMAND", command),
        ("CNI_CONTAINERID", "abc"),
        ("CNI_NETNS", netns),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", POD),
        ("CNI_PATH", "/opt/cni/bin"),
    ];
    host.plugin(&variables, &config.to_string())
}

fn config(socket: &Path) -> Value {
    json!({
        "cniVersion": "1.1.0",
        "name": "testnet",
        "type": "portolan",
        "agentSocket": socket,
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
                {"hostPort": 0, "containerPort": 81, "protocol": "TCP"},
            ],
            "io.kubernetes.cri.pod-annotations": {"portolan.dev/ports": "http"},
        },
    })
}

/// A host, a container's namespace and result in a configuration, and where the agent's socket will be.
fn scene() -> (Host, portolan_tests::cni::Container, Value, PathBuf) {
    let host = Host::new();
    let container = host.container();
    let socket = host.folder().join("agent.sock");
    let mut config = config(&socket);
    config["prevResult"] = container.result("1.1.0");
    (host, container, config, socket)
}

#[test]
fn the_agent_is_asked_everything_and_the_result_is_passed_on() {
    need_root!();
    let (host, container, config, socket) = scene();
    let agent = Agent::start(&socket, DONE);
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let answer = call(&host, "ADD", &netns, &config).ok();
    assert_eq!(answer.json, config["prevResult"]);
    call(&host, "CHECK", &netns, &config).ok();
    call(&host, "DEL", "", &config).ok();
    let mut gc = config.clone();
    gc["cni.dev/valid-attachments"] = json!([{"containerID": "abc", "ifname": "eth0"}]);
    assert_eq!(call(&host, "GC", "", &gc).ok().stdout, "");
    assert_eq!(call(&host, "STATUS", "", &config).ok().stdout, "");

    let attachment = json!({"container": "abc", "interface": "eth0", "network": "testnet"});
    let pod = json!({"namespace": "games", "name": "lobby-0", "uid": "1-2-3"});
    let add = json!({
        "attachment": attachment,
        "netns": netns,
        "pod": pod,
        "addresses": ["10.86.1.2/24", "fd86:1::2/64"],
        "ports": [{"host_port": 8080, "container_port": 80, "protocol": "tcp"}],
        "annotations": {"portolan.dev/ports": "http"},
    });
    let expected = [
        json!({"add": add}),
        json!({"check": add}),
        json!({"del": {"attachment": attachment, "pod": pod}}),
        json!({"gc": {"network": "testnet", "valid": [attachment]}}),
        json!("status"),
    ];
    assert_eq!(agent.asked(), expected);
    assert!(!agent.socket.with_file_name("released").exists());
}

#[test]
fn what_the_agent_refuses_the_runtime_hears_word_by_word() {
    need_root!();
    let (host, container, config, socket) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let reply = r#"{"error":{"code":100,"message":"the pool is full","details":"ask for less"}}"#;
    let _agent = Agent::start(&socket, reply);
    for command in ["ADD", "CHECK", "DEL"] {
        let answer = call(&host, command, &netns, &config);
        assert_eq!(answer.error(), (100, "the pool is full; ask for less".to_owned()), "{command}");
        assert_eq!(answer.json["cniVersion"], "1.1.0");
    }
    // The code of STATUS is the specification's.
    assert_eq!(call(&host, "STATUS", "", &config).error().0, 50);
}

#[test]
fn without_an_agent_an_add_is_to_be_tried_again_and_status_says_not_available() {
    need_root!();
    let (host, container, config, _) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let (code, text) = call(&host, "ADD", &netns, &config).error();
    assert!(code == 11 && text.contains("agent.sock"), "{code} {text}");
    assert_eq!(call(&host, "STATUS", "", &config).error().0, 50);
}

#[test]
fn an_agent_that_is_being_started_again_is_waited_for() {
    need_root!();
    let (host, container, config, socket) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let answer = thread::scope(|scope| {
        let call = scope.spawn(|| call(&host, "ADD", &netns, &config));
        // Well within the plugin's patience, and long after its first try.
        thread::sleep(Duration::from_millis(300));
        let _agent = Agent::start(&socket, DONE);
        call.join().expect("a call")
    });
    answer.ok();
}

#[test]
fn an_agent_that_dies_over_a_request_is_to_be_asked_again() {
    need_root!();
    let (host, container, config, socket) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let _silent = Agent::start(&socket, "");
    assert_eq!(call(&host, "ADD", &netns, &config).error().0, 11);
    let _agent = Agent::start(&socket, "{\"something\": 1}");
    assert_eq!(call(&host, "ADD", &netns, &config).error().0, 102);
}

#[test]
fn a_pod_without_ports_starts_without_an_agent() {
    need_root!();
    let (host, container, mut config, _) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": {"a": "b"}});
    assert_eq!(call(&host, "ADD", &netns, &config).ok().json, config["prevResult"]);
    call(&host, "CHECK", &netns, &config).ok();
    config["runtimeConfig"]["io.kubernetes.cri.pod-annotations"] = json!(null);
    call(&host, "ADD", &netns, &config).ok();
    // Nobody but the agent knows the annotations then.
    config["runtimeConfig"] = json!({});
    assert_eq!(call(&host, "ADD", &netns, &config).error().0, 11);
    config["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": {"tkestack.io/portmapping": ""}});
    assert_eq!(call(&host, "ADD", &netns, &config).error().0, 11);
}

#[test]
fn a_release_while_the_agent_is_away_is_kept_for_it() {
    need_root!();
    let (host, container, config, socket) = scene();
    let netns = container.namespace.path().to_string_lossy().into_owned();
    let kept = host.folder().join("released/abc@eth0");
    for _ in 0..2 {
        let answer = call(&host, "DEL", &netns, &config).ok();
        assert!(answer.stderr.contains("is kept"), "{answer:?}");
    }
    let text = std::fs::read_to_string(&kept).expect("the release");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["del"]["attachment"]["container"], "abc");
    // The same attachment again: the release is of its former life.
    let _agent = Agent::start(&socket, DONE);
    call(&host, "ADD", &netns, &config).ok();
    assert!(!kept.exists());
    // One that took the request and died may not have done it.
    let _silent = Agent::start(&socket, "");
    call(&host, "DEL", &netns, &config).ok();
    assert!(kept.exists());
}

#[test]
fn where_no_agent_has_ever_been_there_is_nothing_to_release() {
    need_root!();
    let (host, _container, mut config, _) = scene();
    config["agentSocket"] = json!(host.folder().join("absent/agent.sock"));
    let answer = call(&host, "DEL", "", &config).ok();
    assert!(answer.stderr.contains("nothing to release"), "{answer:?}");
}

#[test]
fn the_namespace_of_the_plugin_itself_is_refused() {
    need_root!();
    let (host, _container, config, socket) = scene();
    let _agent = Agent::start(&socket, DONE);
    let own = host.node.path().to_string_lossy().into_owned();
    for (netns, said) in [(own.as_str(), "of the plugin itself"), ("/run/netns/absent", "No such file")] {
        let (code, text) = call(&host, "ADD", netns, &config).error();
        assert!(code == 4 && text.contains("CNI_NETNS") && text.contains(said), "{code} {text}");
    }
}

#[test]
fn versions_are_told_without_a_configuration() {
    need_root!();
    let host = Host::new();
    let answer = host.plugin(&[("CNI_COMMAND", "VERSION")], "").ok();
    assert_eq!(answer.json["cniVersion"], "1.1.0");
    assert_eq!(answer.json["supportedVersions"].as_array().map(Vec::len), Some(7));
    let answer = host.plugin(&[("CNI_COMMAND", "NONSENSE")], "");
    assert_eq!(answer.error().0, 4);
}
