//! The agent is killed at each step of ADD and DEL that leaves something else behind, one after the other, and the next one
//! puts it right: no port is lost, none is given twice, and the runtime's next call works, whichever it is.

use std::collections::BTreeMap;

use portolan_netlink::step::{STEPS, VARIABLE};
use portolan_testkit::{echo::Echo, eventually_ok, need_root};
use portolan_tests::{
    agent::Node,
    cni::{Container, Host},
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the next agent may take for what it does beside its start.
const SOON: Duration = Duration::from_secs(5);
/// As many ports as the two Pods of these tests ask for: one that is lost or given twice is one too few.
const POOL: &str = "--pool=20000-20004";

/// What the runtime was about to do when the agent died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// The Pod's first sandbox.
    Add,
    /// The Pod's next sandbox, before it has said that the last one is gone.
    AddNext,
    /// The end of the sandbox.
    Del,
}

/// The steps that a call comes by.
fn steps(call: Call) -> Vec<&'static str> {
    let other = |step: &str| match call {
        Call::Add => step == "ports.taken-over" || of_del(step),
        Call::AddNext => matches!(step, "ports.chosen" | "ports.held" | "ports.written") || of_del(step),
        Call::Del => !(of_del(step) || step.starts_with("rules.")),
    };
    STEPS.into_iter().filter(|step| !other(step)).collect()
}

fn of_del(step: &str) -> bool {
    step.starts_with("del.") || matches!(step, "ports.unmapped" | "ports.released" | "ports.let-go")
}

/// A node with a neighbour, which must never notice anything, and the Pod that it is about.
struct Scene {
    node: Node,
    neighbour: Container,
    _answers: Echo,
}

impl Scene {
    fn new() -> Self {
        let node = Node::with(&[POOL]);
        let neighbour = node.host.container();
        let answers = Echo::tcp(&neighbour.namespace, "neighbour", "[::]:8000");
        let config = node.config(&[("portolan.dev/ports", "a=:8000, b=:8001")], json!([]));
        node.call("ADD", "neighbour", &neighbour, &config).ok();
        Self { node, neighbour, _answers: answers }
    }

    fn config(&self) -> Value {
        self.node.config(&[("portolan.dev/ports", "a=:8000, b=:8001, c=:8002")], json!([]))
    }

    /// What the agent is to agree with, with the Pod or without.
    fn expect(&self, pod: Option<&Container>) -> BTreeMap<String, u16> {
        let pods = [("neighbour", Some(&self.neighbour)), ("pod", pod)];
        let there = pods.into_iter().filter_map(|(name, container)| Some((name, container?)));
        there.map(|(name, container)| (name.to_owned(), self.node.port(container))).collect()
    }

    /// That everything agrees with itself, soon.
    #[track_caller]
    fn agrees(&self, pod: Option<&Container>, when: &str) {
        let agreed = eventually_ok(SOON, || {
            let why = self.node.disagreement(&self.expect(pod));
            why.map_or(Ok(()), Err)
        });
        if let Err(why) = agreed {
            panic!("{when}: {why}\n{}", self.node.transcript());
        }
        let answer = self.node.host.from_world(Host::V4, self.node.port(&self.neighbour));
        assert_eq!(answer.as_deref(), Some("neighbour"), "{when}");
    }

    /// Has the agent die at `step` of this call, and starts the next one.
    fn dies(&mut self, step: &str, command: &str, container: &Container) {
        self.node.end(rustix::process::Signal::TERM);
        self.node.start_in(&[(VARIABLE, step)], &[]);
        let answer = self.node.call(command, "pod", container, &self.config());
        // DEL succeeds, and is kept for the next agent. ADD is to be tried again.
        if command == "ADD" {
            assert_eq!(answer.error().0, 11, "{step}: {answer:?}");
        } else {
            assert!(answer.stderr.contains("is kept"), "{step}: {answer:?}");
        }
        self.node.wait_for_end();
        self.node.start(&[]);
    }
}

/// Goes through the steps of `call`; afterwards the runtime tries `again`, or gives up and makes another sandbox.
fn at_every_step(call: Call, again: bool) {
    let mut scene = Scene::new();
    for step in steps(call) {
        let when = format!("{step} of {call:?}, again: {again}");
        let (last, next) = (scene.node.host.container(), scene.node.host.container());
        if call != Call::Add {
            scene.node.call("ADD", "pod", &last, &scene.config()).ok();
        }
        let (command, container) = match call {
            Call::Add => ("ADD", &last),
            Call::AddNext => ("ADD", &next),
            Call::Del => ("DEL", &last),
        };
        scene.dies(step, command, container);
        let call_of = |command: &str, container: &Container| {
            scene.node.call(command, "pod", container, &scene.config()).ok();
        };
        match (command, again) {
            ("ADD", true) => {
                call_of("ADD", container);
                scene.agrees(Some(container), &when);
                let _answers = Echo::tcp(&container.namespace, "pod", "[::]:8000");
                let port = scene.node.port(container);
                assert_eq!(scene.node.host.from_world(Host::V4, port).as_deref(), Some("pod"), "{when}");
                // That of the sandbox before may come late.
                call_of("DEL", if call == Call::Add { &next } else { &last });
                scene.agrees(Some(container), &when);
                call_of("DEL", container);
            }
            ("ADD", false) => {
                // As containerd does: what failed is undone, and the next sandbox has another ID.
                call_of("DEL", container);
                let third = scene.node.host.container();
                call_of("ADD", &third);
                call_of("DEL", &last);
                scene.agrees(Some(&third), &when);
                call_of("DEL", &third);
            }
            _ => {
                if again {
                    call_of("DEL", container);
                }
                scene.agrees(None, &when);
            }
        }
        scene.agrees(None, &when);
    }
}

#[test]
fn an_add_that_is_tried_again_is_whole_whenever_the_agent_died() {
    need_root!();
    at_every_step(Call::Add, true);
}

#[test]
fn an_add_that_is_given_up_leaves_nothing_whenever_the_agent_died() {
    need_root!();
    at_every_step(Call::Add, false);
}

#[test]
fn the_next_sandbox_of_a_pod_has_its_ports_whenever_the_agent_died() {
    need_root!();
    at_every_step(Call::AddNext, true);
    at_every_step(Call::AddNext, false);
}

#[test]
fn a_del_is_done_whenever_the_agent_died() {
    need_root!();
    at_every_step(Call::Del, true);
    at_every_step(Call::Del, false);
}
