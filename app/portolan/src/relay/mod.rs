//! `portolan relay`: Services in user space, without privileges.
//!
//! Files are read as by `up -f` ([`crate::services`]); which endpoints a client may be sent to is decided as in the
//! kernel's rules (`packet/services`), and [`plan`] makes frontends of it; `packet/relay` serves them.

mod plan;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, http::header, response::IntoResponse, routing::get};
use portolan_cli::{Global, ProxyVersion, RelayArgs};
use portolan_relay::service::{ListenError, Options, ProxyProtocol, Relays};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::plan::Plan;
use crate::{
    catalog::listeners,
    ending::Ending,
    output::problem::mendable,
    services::files::{Files, Looked},
};

/// How often files are looked at, and ports that could not be had are tried again.
const LOOK: Duration = Duration::from_millis(500);
/// Descriptors beside those of clients.
const SPARE: u64 = 256;

/// Runs until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn main(_: Global, args: RelayArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let plan = Plan::new(&args);
    let mut files = Files::new(args.services.clone());
    let mut looked = files.look();
    if let Some(error) = looked.errors.pop() {
        return Err(error.into());
    }
    let metrics = match args.metrics_listen {
        Some(address) => Some(listeners::tcp(address, "metrics", "--metrics-listen").map_err(mendable)?),
        None => None,
    };
    let relays = Arc::new(Relays::new(options(&args)));
    if let Some(listener) = metrics {
        let listener = tokio::net::TcpListener::from_std(listener).context("the listener for metrics")?;
        let router = router(Arc::clone(&relays));
        tokio::spawn(async move { axum::serve(listener, router).await });
    }
    let mut serving = Serving { plan, relays: Arc::clone(&relays), told: Vec::new() };
    serving.follow(&files, &looked);
    for one in relays.stats() {
        tracing::info!("{} on {}", one.service, one.key);
    }
    if relays.stats().is_empty() {
        tracing::warn!(
            "nothing is served yet: a Service needs a nodePort or a --listen, and an EndpointSlice with a ready endpoint"
        );
    }
    let mut interval = tokio::time::interval(LOOK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = ending.asked() => break,
            _ = interval.tick() => {}
        }
        (files, looked) = tokio::task::spawn_blocking(move || {
            let looked = files.look();
            (files, looked)
        })
        .await?;
        serving.follow(&files, &looked);
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

/// What is served, and what was told about what is not.
struct Serving {
    plan: Plan,
    relays: Arc<Relays>,
    told: Vec<ListenError>,
}

impl Serving {
    /// Serves what the files say now. Ports that could not be had are tried again each time.
    fn follow(&mut self, files: &Files, looked: &Looked) {
        for warning in &looked.warnings {
            tracing::warn!("{warning}");
        }
        for error in &looked.errors {
            tracing::error!("{error}; what the file said before still holds");
        }
        if !looked.changed && self.told.is_empty() {
            return;
        }
        let (frontends, problems) = self.plan.frontends(files);
        for problem in problems.iter().filter(|_| looked.changed) {
            tracing::error!("{problem}");
        }
        let problems = self.relays.set(frontends);
        for problem in problems.iter().filter(|problem| !self.told.contains(problem)) {
            tracing::error!("{problem}; trying again");
        }
        self.told = problems;
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

fn router(relays: Arc<Relays>) -> Router {
    let metrics = async move || {
        let text = plan::metrics(&relays.stats());
        ([(header::CONTENT_TYPE, portolan_telemetry::metrics::CONTENT_TYPE)], text).into_response()
    };
    Router::new().route("/healthz", get(async || "ok\n")).route("/metrics", get(metrics))
}
