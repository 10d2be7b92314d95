//! A case: Services, and questions with the answers that the behaviour of Kubernetes 1.36 asks for.

use std::{fmt, net::IpAddr, time::Duration};

use portolan_testkit::eventually_ok;

use super::{
    api::Api,
    probe::{probe, probe_times},
    program::Running,
    service::{Service, Target},
    world::{Place, World},
};

/// What a case has in its hands while it runs.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// The API server.
    pub api: &'a Api,
    /// The namespaces.
    pub world: &'a World,
    /// The proxies, node 1's first.
    pub proxies: &'a [Running],
}

/// How long an answer may take to become right: kube-proxy programs a change after a second of others, and sweeps
/// conntrack after that.
const PATIENCE: Duration = Duration::from_secs(12);

type Look = Box<dyn Fn(Scene<'_>) -> String + Send + Sync>;
type Act = Box<dyn Fn(Scene<'_>) + Send + Sync>;

/// What happens in a case, one after the other.
enum Step {
    Ask { from: Place, target: Target, tries: Option<usize>, expected: String },
    Look { what: String, look: Look, expected: String },
    Act(Act),
}

/// One named question.
pub struct Case {
    /// Its name: the line of the facts, and what it is about.
    pub name: String,
    /// Whether it belongs to the short set.
    pub short: bool,
    /// How many nodes it needs.
    pub nodes: u8,
    /// What it puts into the cluster.
    pub services: Vec<Service>,
    steps: Vec<Step>,
}

impl fmt::Debug for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What came of a case: one part for each question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What was seen.
    pub seen: Vec<String>,
    /// What was to be seen.
    pub expected: Vec<String>,
}

impl Outcome {
    /// Whether it is what was to be seen.
    pub fn good(&self) -> bool {
        self.seen == self.expected
    }

    /// What was seen, in one line: parts that say the same are said once.
    pub fn line(&self) -> String {
        joined(&self.seen)
    }
}

/// One line of many parts.
pub fn joined(parts: &[String]) -> String {
    let mut parts = parts.to_vec();
    parts.dedup();
    parts.join(" | ")
}

impl Case {
    /// A case about these Services.
    pub fn new(name: impl Into<String>, services: &[&Service]) -> Self {
        let services = services.iter().map(|service| (*service).clone()).collect();
        Self { name: name.into(), short: false, nodes: 2, services, steps: Vec::new() }
    }

    /// In the short set when `condition` holds.
    pub fn short_if(mut self, condition: bool) -> Self {
        self.short = condition;
        self
    }

    /// Needs this node.
    pub fn on(mut self, node: u8) -> Self {
        self.nodes = self.nodes.max(node);
        self
    }

    /// Asks from somewhere; every endpoint of `expected` must answer, and no other.
    pub fn ask(mut self, from: Place, target: Target, expected: &str) -> Self {
        self = self.on(from.node());
        self.steps.push(Step::Ask { from, target, tries: None, expected: expected.to_owned() });
        self
    }

    /// Asks this often.
    pub fn ask_times(mut self, tries: usize, from: Place, target: Target, expected: &str) -> Self {
        self = self.on(from.node());
        self.steps.push(Step::Ask { from, target, tries: Some(tries), expected: expected.to_owned() });
        self
    }

    /// Asks for the node port at several addresses.
    pub fn ask_nodes(
        mut self,
        from: Place,
        service: &Service,
        protocol: super::service::Protocol,
        addresses: &[IpAddr],
        expected: &str,
    ) -> Self {
        for address in addresses {
            self = self.ask(from, service.at_node(*address, protocol), expected);
        }
        self
    }

    /// Looks at something else.
    pub fn look(
        mut self,
        what: &str,
        look: impl Fn(Scene<'_>) -> String + Send + Sync + 'static,
        expected: &str,
    ) -> Self {
        self.steps.push(Step::Look {
            what: what.to_owned(),
            look: Box::new(look),
            expected: expected.to_owned(),
        });
        self
    }

    /// Changes something.
    pub fn then(mut self, act: impl Fn(Scene<'_>) + Send + Sync + 'static) -> Self {
        self.steps.push(Step::Act(Box::new(act)));
        self
    }

    /// Runs it: each question is asked again until its answer is the expected one, or patience ends.
    pub fn run(&self, scene: Scene<'_>) -> Outcome {
        let (mut seen, mut expected) = (Vec::new(), Vec::new());
        for step in &self.steps {
            match step {
                Step::Act(act) => act(scene),
                Step::Ask { from, target, tries, expected: wanted } => {
                    let once = || match tries {
                        Some(tries) => probe_times(scene.world, *from, *target, *tries),
                        None => probe(scene.world, *from, *target),
                    };
                    seen.push(settled(once, wanted));
                    expected.push(wanted.clone());
                }
                Step::Look { what, look, expected: wanted } => {
                    seen.push(format!("{what}: {}", settled(|| look(scene), wanted)));
                    expected.push(format!("{what}: {wanted}"));
                }
            }
        }
        Outcome { seen, expected }
    }
}

fn settled(once: impl Fn() -> String, wanted: &str) -> String {
    let answer = eventually_ok(PATIENCE, || {
        let seen = once();
        if seen == wanted { Ok(seen) } else { Err(seen) }
    });
    answer.unwrap_or_else(|seen| seen)
}
