//! What the agent says to a container runtime: Pods on the node's network get ports, containers hear of theirs.
//!
//! The runtime is [`portolan_nri::fake`]; the real one is in the tests of that crate and of the cluster.

use std::{fs, net::TcpListener, path::PathBuf, time::Duration};

use portolan_nri::{
    Container, ContainerAdjustment, Event, Mount, PodSandbox,
    fake::{Connected, FakeError, Runtime},
};
use portolan_testkit::{Background, Portolan, need_root};
use rustix::process::Signal;
use serde_json::Value;

/// An agent without a cluster, on a machine of its own, with one pool of so many ports.
struct Agent {
    machine: Portolan,
    process: Background,
    pool: String,
}

impl Agent {
    fn start(ports: u16) -> Self {
        let machine = Portolan::new();
        let pool = format!("20000-{}", 19_999 + ports);
        let process = Self::run(&machine, &pool);
        Self { machine, process, pool }
    }

    fn run(machine: &Portolan, pool: &str) -> Background {
        let at = |name: &str| machine.folder().join(name).to_string_lossy().into_owned();
        let (socket, nri) = (at("agent.sock"), at("nri.sock"));
        machine.start(&[
            "agent",
            "--standalone",
            "--node-name=node1",
            "--advertise=203.0.113.7",
            "--quarantine=0s",
            "--pool",
            pool,
            "--socket",
            &socket,
            "--nri-socket",
            &nri,
        ])
    }

    fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.wait(Duration::from_secs(10));
    }

    fn start_again(&mut self) {
        self.process = Self::run(&self.machine, &self.pool);
    }

    /// The runtime, which may start before or after the agent.
    fn runtime(&self) -> Runtime {
        let socket = self.machine.folder().join("nri.sock");
        let _ = fs::remove_file(&socket);
        Runtime::listen(&socket).expect("a socket")
    }

    /// The agent as the runtime has it, with what exists.
    async fn connected(&self, runtime: &Runtime, pods: Vec<PodSandbox>) -> Connected {
        match runtime.accept(pods, vec![]).await {
            Ok(connected) => connected,
            Err(error) => panic!("{error}\n{}", self.process.transcript()),
        }
    }

    /// Whether a program of the machine could have the port now.
    fn is_free(&self, port: u16) -> bool {
        self.machine.namespace().run(|| TcpListener::bind(("0.0.0.0", port)).is_ok())
    }
}

/// A Pod on the node's network that asks for a port.
fn pod(name: &str, sandbox: &str) -> PodSandbox {
    PodSandbox {
        id: sandbox.to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
        namespace: "games".to_owned(),
        annotations: [("portolan.dev/ports".to_owned(), "http".to_owned())].into(),
        host_network: true,
        ..PodSandbox::default()
    }
}

fn container() -> Container {
    Container { id: "c1".to_owned(), name: "server".to_owned(), ..Container::default() }
}

fn variable<'a>(adjustment: &'a ContainerAdjustment, name: &str) -> Option<&'a str> {
    adjustment.env.iter().find_map(|(key, value)| (key == name).then_some(value.as_str()))
}

fn port(adjustment: &ContainerAdjustment) -> u16 {
    let port = variable(adjustment, "PORT").unwrap_or_else(|| panic!("no port: {adjustment:?}"));
    port.parse().expect("a number")
}

#[tokio::test]
async fn a_pod_on_the_nodes_network_has_its_port_held_until_it_starts() {
    need_root!();
    let agent = Agent::start(10);
    let connected = agent.connected(&agent.runtime(), vec![]).await;
    let web = pod("web", "s1");
    connected.pod(Event::RunPodSandbox, web.clone()).await.expect("ports");
    let adjustment = connected.create_container(web.clone(), container()).await.expect("an answer");
    let port = port(&adjustment);
    assert!((20000..20010).contains(&port));
    assert_eq!(variable(&adjustment, "PORTOLAN_PORT_HTTP"), Some(&*port.to_string()));
    assert_eq!(variable(&adjustment, "PORTOLAN_ADDR_HTTP"), Some(&*format!("203.0.113.7:{port}")));

    let [Mount { source, destination, options, .. }] = &adjustment.mounts[..] else {
        panic!("{adjustment:?}")
    };
    assert_eq!(destination, &PathBuf::from("/run/portolan"));
    assert!(options.contains(&"ro".to_owned()));
    let told = fs::read_to_string(source.join("ports.json")).expect("the file that is mounted");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    assert_eq!(told["node"], "node1");
    assert_eq!(told["ports"][0]["host"], port.to_string());

    assert!(!agent.is_free(port), "it is not held");
    connected.container(Event::StartContainer, web.clone(), container()).await.expect("an answer");
    assert!(agent.is_free(port), "its program cannot have it");
    connected.pod(Event::StopPodSandbox, web.clone()).await.expect("an answer");
    connected.pod(Event::RemovePodSandbox, web).await.expect("an answer");
    assert!(!source.exists(), "the folder of a Pod that is gone");
}

#[tokio::test]
async fn a_pod_that_cannot_have_ports_fails_with_the_reason_until_it_can() {
    need_root!();
    let agent = Agent::start(1);
    let connected = agent.connected(&agent.runtime(), vec![]).await;
    let (first, second) = (pod("first", "s1"), pod("second", "s2"));
    connected.pod(Event::RunPodSandbox, first.clone()).await.expect("the only port");
    let refused = connected.pod(Event::RunPodSandbox, second.clone()).await;
    let Err(FakeError::Refused(reason)) = refused else { panic!("{refused:?}") };
    assert!(reason.contains("default"), "{reason}");
    // As a runtime does with a sandbox that failed.
    connected.pod(Event::StopPodSandbox, second.clone()).await.expect("an answer");
    connected.pod(Event::RemovePodSandbox, second.clone()).await.expect("an answer");
    connected.pod(Event::RemovePodSandbox, first).await.expect("an answer");
    let again = PodSandbox { id: "s3".to_owned(), ..second };
    connected.pod(Event::RunPodSandbox, again).await.expect("the port that is free again");
}

#[tokio::test]
async fn a_new_sandbox_of_a_pod_keeps_its_port_and_the_end_of_the_old_one_changes_nothing() {
    need_root!();
    let agent = Agent::start(100);
    let connected = agent.connected(&agent.runtime(), vec![]).await;
    let (old, new) = (pod("web", "s1"), pod("web", "s2"));
    connected.pod(Event::RunPodSandbox, old.clone()).await.expect("ports");
    let before = port(&connected.create_container(old.clone(), container()).await.expect("an answer"));
    connected.pod(Event::RunPodSandbox, new.clone()).await.expect("ports");
    connected.pod(Event::RemovePodSandbox, old).await.expect("an answer");
    let after = port(&connected.create_container(new, container()).await.expect("an answer"));
    assert_eq!(before, after);
    assert!(!agent.is_free(after), "it is not held");
}

#[tokio::test]
async fn an_agent_that_was_killed_knows_the_pods_that_are_there_and_frees_those_of_others() {
    need_root!();
    let mut agent = Agent::start(2);
    let runtime = agent.runtime();
    let connected = agent.connected(&runtime, vec![]).await;
    let (stays, goes) = (pod("stays", "s1"), pod("goes", "s2"));
    for pod in [&stays, &goes] {
        connected.pod(Event::RunPodSandbox, pod.clone()).await.expect("ports");
    }
    let before = port(&connected.create_container(stays.clone(), container()).await.expect("an answer"));
    agent.kill();
    drop(connected);
    // Meanwhile a Pod goes, and another comes, of which nobody told the agent.
    agent.start_again();
    let comes = pod("comes", "s3");
    let connected = agent.connected(&runtime, vec![stays.clone(), comes.clone()]).await;
    let after = port(&connected.create_container(stays, container()).await.expect("an answer"));
    assert_eq!(before, after);
    let adjustment =
        connected.create_container(comes, container()).await.expect("the port of the Pod that went");
    assert_ne!(port(&adjustment), before);
}

#[tokio::test]
async fn pods_that_do_not_ask_and_pods_of_their_own_network_are_left_alone() {
    need_root!();
    let agent = Agent::start(1);
    let connected = agent.connected(&agent.runtime(), vec![]).await;
    let plain = PodSandbox { annotations: [].into(), ..pod("plain", "s1") };
    let own = PodSandbox {
        host_network: false,
        network_namespace: Some("/run/netns/x".into()),
        ..pod("own", "s2")
    };
    for pod in [plain, own] {
        connected.pod(Event::RunPodSandbox, pod.clone()).await.expect("an answer");
        let adjustment = connected.create_container(pod.clone(), container()).await.expect("an answer");
        assert!(adjustment.is_empty(), "{adjustment:?}");
        connected.pod(Event::RemovePodSandbox, pod).await.expect("an answer");
    }
    // The only port is still there.
    connected.pod(Event::RunPodSandbox, pod("web", "s3")).await.expect("ports");
}
