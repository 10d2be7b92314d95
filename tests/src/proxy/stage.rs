//! Two nodes without a proxy yet, for tests that start and stop proxies themselves.

use std::time::Duration;

use portolan_testkit::eventually_ok;

use super::{
    api::Api,
    bench::fence,
    echo::Servers,
    probe::{ask, probe},
    program::{CLUSTER, Program, Running},
    service::Target,
    world::{Place, World, write_nodes},
};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// An API server, two nodes, and servers in their Pods.
#[derive(Debug)]
pub struct Stage {
    /// Ends first: nobody is to be asked by servers that are gone.
    _servers: Servers,
    /// The namespaces.
    pub world: World,
    /// The API server.
    pub api: Api,
}

impl Stage {
    /// Makes it; `None`, with a printed reason, where there are no programs.
    #[track_caller]
    pub fn new(about: &str) -> Option<Self> {
        let api = Api::start(about)?;
        write_nodes(&api, 2);
        let world = World::new(api.cluster(), 2);
        Some(Self { _servers: Servers::start(&world), world, api })
    }

    /// Starts a proxy on a node, as most are configured, with more flags.
    #[track_caller]
    pub fn start(&self, program: Program, node: u8, more: &[&str]) -> Running {
        let mut flags = vec![CLUSTER];
        flags.extend(more);
        Running::start(program, &self.api, &self.world, node, &flags)
    }

    /// Waits until these proxies have programmed what there is.
    #[track_caller]
    pub fn fence(&self, proxies: &mut [Running]) {
        fence(&self.api, &self.world, proxies);
    }

    /// Waits until the answer from somewhere is this.
    #[track_caller]
    pub fn expect(&self, from: Place, target: Target, wanted: &str) {
        self.expect_within(PATIENCE, from, target, wanted);
    }

    /// Waits no longer than this.
    #[track_caller]
    pub fn expect_within(&self, patience: Duration, from: Place, target: Target, wanted: &str) {
        let seen = eventually_ok(patience, || {
            let seen = probe(&self.world, from, target);
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
        if let Err(seen) = seen {
            panic!("{seen} instead of {wanted}: {from:?} to {target:?}, within {patience:?}");
        }
    }

    /// Waits until anybody answers, no longer than this.
    #[track_caller]
    pub fn answered_within(&self, patience: Duration, from: Place, target: Target) {
        if let Err(error) = eventually_ok(patience, || ask(&self.world, from, target)) {
            panic!("{error}: {from:?} to {target:?}, within {patience:?}");
        }
    }

    /// Runs a program on a node; gives what it prints.
    #[track_caller]
    pub fn on_node(&self, node: u8, program: &str, words: &[&str]) -> String {
        portolan_testkit::programs::run(self.world.at(Place::Node(node)).command(program).args(words))
    }
}
