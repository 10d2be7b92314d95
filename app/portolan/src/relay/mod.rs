//! `portolan relay`: Services in user space, without privileges.
//!
//! [`source`] says which Services there are: files as those of `up -f` ([`crate::services`]), or an API server. Which
//! endpoints a client may be sent to is decided as in the kernel's rules (`packet/services`), and [`plan`] makes frontends
//! of it; `packet/relay` serves them.

mod plan;
mod source;

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use portolan_cli::{Global, ProxyVersion, RelayArgs};
use portolan_relay::service::{FrontendStats, ListenError, Options, ProxyProtocol, Relays};
use portolan_telemetry::relay::RelayFrontend;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{plan::Plan, source::Source};
use crate::{catalog::listeners, ending::Ending, output::problem::mendable};

/// Descriptors beside those of clients.
const SPARE: u64 = 256;

/// Runs until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn main(_: Global, args: RelayArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let plan = Plan::new(&args);
    let mut source = Source::open(&args, plan.node()).await?;
    let metrics = match args.metrics_listen {
        Some(address) => Some(listeners::tcp(address, "metrics", "--metrics-listen").map_err(mendable)?),
        None => None,
    };
    let relays = Arc::new(Relays::new(options(&args)));
    let seen = Arc::new(Seen::default());
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).context("the listener for metrics")?;
        let router = router(Arc::clone(&relays), Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let mut serving = Serving { plan, relays: Arc::clone(&relays), seen, told: Vec::new(), begun: false };
    serving.follow(&source, true);
    loop {
        let changed = tokio::select! {
            () = ending.asked() => break,
            changed = source.next() => changed?,
        };
        serving.follow(&source, changed);
    }
    let grace = humantime::format_duration(args.drain_timeout);
    tracing::info!("taking nobody new; connections have {grace} to end, a second signal ends them at once");
    let left = tokio::select! {
        left = relays.drain(args.drain_timeout) => left,
        () = ending.asked() => relays.drain(Duration::ZERO).await,
    };
    if left > 0 {
        tracing::warn!(connections = left, "cut off");
    }
    Ok(ExitCode::SUCCESS)
}

/// For those who ask.
#[derive(Debug, Default)]
struct Seen {
    services: AtomicUsize,
    synced: AtomicBool,
}

/// What is served, and what was told about what is not.
struct Serving {
    plan: Plan,
    relays: Arc<Relays>,
    seen: Arc<Seen>,
    told: Vec<ListenError>,
    /// Whether anything could be served yet.
    begun: bool,
}

impl Serving {
    /// Serves what is known now. Ports that could not be had are tried again each time.
    fn follow(&mut self, source: &Source, changed: bool) {
        if !source.is_synced() || (!changed && self.told.is_empty()) {
            return;
        }
        let known = source.known();
        self.seen.services.store(known.services.len(), Ordering::Relaxed);
        self.seen.synced.store(true, Ordering::Relaxed);
        let (frontends, problems) = self.plan.frontends(&known);
        for problem in problems.iter().filter(|_| changed) {
            tracing::error!("{problem}");
        }
        let problems = self.relays.set(frontends);
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::error!("{problem}; trying again");
        }
        self.told = problems;
        if !std::mem::replace(&mut self.begun, true) {
            let served = self.relays.stats();
            for one in &served {
                tracing::info!("{} on {}", one.service, one.key);
            }
            if served.is_empty() {
                tracing::warn!(
                    "nothing is served yet: a Service needs a nodePort or a --listen, and an EndpointSlice with a ready endpoint"
                );
            }
        }
    }
}

/// As asked for, and no more than this process may have open files.
fn options(args: &RelayArgs) -> Options {
    let (mut connections, mut clients) = (args.max_connections as usize, args.max_clients as usize);
    // Two for a connection, and two more while something is on its way; one for a UDP client.
    let needed = 4 * connections as u64 + clients as u64 + SPARE;
    let allowed = raise_files(needed);
    if allowed < needed {
        let part = allowed.saturating_sub(SPARE) as f64 / (needed - SPARE) as f64;
        let share = |number: usize| ((number as f64 * part) as usize).max(1);
        (connections, clients) = (share(connections), share(clients));
        tracing::warn!(
            connections,
            clients,
            "this process may have {allowed} open files, so fewer are served at once than was asked for: raise it by \
             `ulimit -n {needed}`, or LimitNOFILE={needed} of its unit"
        );
    }
    Options {
        connections,
        clients,
        each_client: args.max_per_client.map(|most| most as usize),
        connect: args.connect_timeout,
        idle: args.idle_timeout,
        half_closed: args.half_closed_timeout,
        udp_idle: args.udp_timeout,
        ..Options::default()
    }
}

/// Takes as many open files as needed, as far as an unprivileged process may.
fn raise_files(needed: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= needed {
        return current;
    }
    let wanted = limit.maximum.map_or(needed, |most| most.min(needed));
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(_) => current,
    }
}

const fn version(version: ProxyVersion) -> ProxyProtocol {
    match version {
        ProxyVersion::V1 => ProxyProtocol::V1,
        ProxyVersion::V2 => ProxyProtocol::V2,
    }
}

fn router(relays: Arc<Relays>, seen: Arc<Seen>) -> Router {
    let counted = Arc::clone(&seen);
    let metrics = async move || {
        let frontends: Vec<RelayFrontend> = relays.stats().iter().map(counted_of).collect();
        let (services, synced) =
            (counted.services.load(Ordering::Relaxed), counted.synced.load(Ordering::Relaxed));
        let text = portolan_telemetry::relay::encode(&frontends, services, synced);
        ([(header::CONTENT_TYPE, portolan_telemetry::metrics::CONTENT_TYPE)], text).into_response()
    };
    let healthz = async move || match seen.synced.load(Ordering::Relaxed) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "the Services are not known yet\n"),
    };
    Router::new().route("/healthz", get(healthz)).route("/metrics", get(metrics))
}

fn counted_of(one: &FrontendStats) -> RelayFrontend {
    RelayFrontend {
        service: one.service.clone(),
        listen: one.key.listen.to_string(),
        protocol: one.key.protocol.to_string(),
        open: one.open,
        opened: one.opened,
        refused: one.refused,
        failed: one.failed,
        received: one.received,
        sent: one.sent,
    }
}
