//! The CNI plugin and a real agent that goes away and comes back, as it does at each upgrade.

use std::{path::PathBuf, time::Duration};

use portolan_testkit::{Background, binary, echo::Echo, eventually, eventually_ok, need_root};
use portolan_tests::cni::{Answer, Container, Host};
use rustix::process::Signal;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn socket(host: &Host) -> PathBuf {
    host.folder().join("agent.sock")
}

/// Starts an agent that needs no cluster and waits until it serves.
fn agent(host: &Host) -> Background {
    let mut command = host.node.command(&binary().to_string_lossy());
    command.args(["agent", "--standalone", "--no-nri", "--no-self-address", "--node-name=node1"]);
    command.args(["--advertise=192.0.2.1", "--quarantine=0s"]);
    command.arg("--socket").arg(socket(host)).arg("--data").arg(host.folder().join("data"));
    let agent = Background::start(&mut command);
    let serves = || {
        let status = host.plugin(&[("CNI_COMMAND", "STATUS")], &config(host, json!([])).to_string());
        if status.success { Ok(()) } else { Err(status) }
    };
    if let Err(status) = eventually_ok(PATIENCE, serves) {
        panic!("{status:?}\n{}", agent.transcript());
    }
    agent
}

fn kill(mut agent: Background) {
    agent.signal(Signal::KILL);
    agent.wait(PATIENCE);
}

fn config(host: &Host, mappings: Value) -> Value {
    let mut config = host.config(mappings);
    config["standalone"] = json!(false);
    config["agentSocket"] = json!(socket(host));
    config
}

fn one(host: &Host) -> Value {
    config(host, json!([{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]))
}

/// DEL as it comes when nothing but the container's ID is left.
fn bare_del(host: &Host, container: &Container) -> Answer {
    let variables =
        [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", container.id.as_str()), ("CNI_IFNAME", "eth0")];
    host.plugin(&variables, &one(host).to_string())
}

#[test]
fn ports_work_while_it_is_away_and_afterwards() {
    need_root!();
    let host = Host::new();
    let running = agent(&host);
    let container = host.container();
    let _echo = Echo::tcp(&container.namespace, "it", "[::]:80");
    host.call("ADD", &container, &one(&host)).ok();
    host.call("CHECK", &container, &one(&host)).ok();
    kill(running);
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("it"));
    assert_eq!(host.call("CHECK", &container, &one(&host)).error().0, 11);
    let _again = agent(&host);
    host.call("CHECK", &container, &one(&host)).ok();
    host.call("ADD", &container, &one(&host)).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("it"));
    host.call("DEL", &container, &one(&host)).ok();
    assert_eq!(host.from_world(Host::V4, 18080), None);
}

#[test]
fn a_release_while_it_is_away_is_done_when_it_is_back_though_the_namespace_stays() {
    need_root!();
    let host = Host::new();
    let running = agent(&host);
    let (leaves, comes) = (host.container(), host.container());
    let _echo = Echo::tcp(&comes.namespace, "comes", "[::]:80");
    host.call("ADD", &leaves, &one(&host)).ok();
    kill(running);
    bare_del(&host, &leaves).ok();
    let _again = agent(&host);
    eventually(PATIENCE, || !host.rules().contains("10.86.1.2"));
    host.call("ADD", &comes, &one(&host)).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("comes"));
    bare_del(&host, &leaves).ok();
    assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("comes"));
}

#[test]
fn the_old_container_with_the_same_address_takes_nothing_from_the_new_one() {
    need_root!();
    let host = Host::new();
    let _running = agent(&host);
    let old = host.container_at(5, "old");
    host.call("ADD", &old, &one(&host)).ok();
    let variables = [("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "old"), ("CNI_IFNAME", "eth0")];
    drop(old);
    let new = host.container_at(5, "new");
    let _echo = Echo::tcp(&new.namespace, "new", "[::]:80");
    host.call("ADD", &new, &one(&host)).ok();
    for _ in 0..2 {
        host.plugin(&variables, &one(&host).to_string()).ok();
        assert_eq!(host.from_world(Host::V4, 18080).as_deref(), Some("new"));
    }
}

#[test]
fn what_it_refuses_says_who_has_the_port() {
    need_root!();
    let host = Host::new();
    let _running = agent(&host);
    let (has, wants) = (host.container(), host.container());
    host.call("ADD", &has, &one(&host)).ok();
    let (code, text) = host.call("ADD", &wants, &one(&host)).error();
    assert!(text.contains("18080") && text.contains(&has.id), "{code} {text}");
    let gc = |valid: Value| {
        let mut gc = one(&host);
        gc["cni.dev/valid-attachments"] = valid;
        host.plugin(&[("CNI_COMMAND", "GC")], &gc.to_string()).ok();
    };
    gc(json!([{"containerID": has.id, "ifname": "eth0"}]));
    assert!(host.rules().contains("10.86.1.2"));
    gc(json!([]));
    assert!(!host.rules().contains("10.86.1.2"));
    host.call("ADD", &wants, &one(&host)).ok();
}
