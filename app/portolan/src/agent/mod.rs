//! `portolan agent`: ports for the Pods of a Kubernetes node.
//!
//! The way of a Pod: its runtime calls the CNI plugin ([`crate::cni`]), which asks at the socket of [`server`];
//! [`serve`] finds out what the Pod asks for ([`wanted`], [`asks`]) and whether it may ([`decide`]); the [`engine`]'s
//! thread gives it ports and rules ([`give`], [`portolan_attach`]); [`tell`] says so in annotations, a file and an Event,
//! [`nri`] in the containers' environment, [`self_address`] to whoever asks from inside, [`catalog`] in a registry.
//! [`reconcile`] compares it all with what should be, at the start and from then on.
//!
//! Ended, by a signal or a crash, it leaves rules, holds and leases behind for the next one: no connection notices.
//! [`cleanup`] is what takes everything away.

mod asks;
mod catalog;
mod cleanup;
mod cluster;
mod config;
mod counters;
mod decide;
mod directory;
mod engine;
mod failure;
mod give;
mod http;
mod inject;
mod localhost;
mod nri;
mod overlaps;
mod plan;
mod pools;
mod probe;
mod reconcile;
mod self_address;
mod serve;
mod server;
mod start;
mod tell;
mod wanted;

use std::{
    net::IpAddr,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use portolan_cli::{AgentArgs, Global};
use portolan_telemetry::metrics::Metrics;
use tokio::sync::Notify;

pub(crate) use asks::count;
use cluster::Cluster;
use config::AgentConfig;
use directory::Directory;
use engine::Engine;
use localhost::Localhost;
use pools::NodePool;
pub(crate) use start::NRI_NAME;

/// What the parts of the agent share.
pub(crate) struct Agent {
    config: AgentConfig,
    cluster: Cluster,
    engine: Engine,
    directory: Directory,
    localhost: Localhost,
    metrics: Arc<Metrics>,
    /// The pools that count now.
    pools: ArcSwap<Vec<NodePool>>,
    /// What the engine was last told of them, in words.
    followed: Mutex<String>,
    /// The node's own addresses, for where nobody says any.
    own: Vec<IpAddr>,
    /// There is something to compare.
    wake: Notify,
}

impl Agent {
    /// Where clients reach this node, best first: as configured, else as the Node says, else as the machine has it.
    fn addresses(&self) -> Vec<IpAddr> {
        let known = [self.config.advertise.clone(), self.cluster.addresses(), self.own.clone()];
        known.into_iter().find(|addresses| !addresses.is_empty()).unwrap_or_default()
    }

    /// The pools that count.
    fn pools(&self) -> Arc<Vec<NodePool>> {
        self.pools.load_full()
    }

    /// Other pools from now on. Answers whether they are others for the engine.
    fn set_pools(&self, pools: Vec<NodePool>) -> bool {
        let words: Vec<String> = pools
            .iter()
            .map(|pool| format!("{} {} {} {:?}", pool.name, pool.ranges, pool.protocols, pool.quarantine))
            .collect();
        self.pools.store(Arc::new(pools));
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, now) = (std::mem::take(&mut *followed), words.join("\n"));
        followed.clone_from(&now);
        before != now
    }

    /// The engine was not told: the next round does.
    fn forget_pools(&self) {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// Serves until SIGTERM or SIGINT, or cleans up.
pub(crate) async fn main(global: Global, args: AgentArgs) -> anyhow::Result<ExitCode> {
    crate::memory::with_one_arena();
    if args.cleanup { cleanup::main(&global, &args).await } else { start::main(&global, &args).await }
}
