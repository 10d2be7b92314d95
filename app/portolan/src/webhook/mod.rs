//! `portolan webhook`: the part of a cluster that is there once, not on each node.
//!
//! Every replica answers the API server: a Pod that asks for ports gets them as resources, so that the scheduler counts
//! them, or is refused with the reason. One replica at a time, by a Lease, writes the EndpointSlices of Services that ask
//! for it and the status of PortPools. What a Pod asks for is counted by [`crate::agent::count`], as the agents do it.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{Router, extract::State, http::StatusCode, routing::get};
use portolan_cli::{Global, WebhookArgs};
use portolan_kubernetes::{
    Certificates, CertificatesConfig, Connection, ConnectionConfig, Count, Leader, LeaderConfig, Mutate,
    Policy, remove_endpoints, run_endpoints, run_pool_status, serve_webhook,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{agent::NRI_NAME, ending::Ending};

/// github.com/containerd/nri, `plugins/validator/builtin`.
const REQUIRED_PLUGINS: &str = "required-plugins.noderesource.dev";

/// How long requests that were begun may take at the end.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn main(_global: Global, args: WebhookArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let connection = ConnectionConfig {
        kubeconfig: args.kubeconfig.clone(),
        context: None,
        component: "webhook".to_owned(),
    };
    let connection = Connection::open(&connection)
        .await
        .context("reaching the API server: run in a Pod with a service account, or say --kubeconfig")?;
    if args.cleanup {
        remove_endpoints(&connection)
            .await
            .context("removing the twins of Services and their EndpointSlices")?;
        return Ok(ExitCode::SUCCESS);
    }
    let listener = TcpListener::bind(args.listen).await;
    let listener = listener.with_context(|| format!("listening on {} for the API server", args.listen))?;
    let health = TcpListener::bind(args.health_listen).await;
    let health = health.with_context(|| format!("listening on {} for health", args.health_listen))?;

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let policy = Policy::start(&connection);
    tasks.spawn(serve_health(health, policy.clone(), stop.clone()));
    let certificates = CertificatesConfig {
        configurations: args.configurations.clone(),
        ..CertificatesConfig::for_service(&args.namespace, &args.service, &args.secret, "")
    };
    let count: Count = Arc::new(crate::agent::count);
    let mutate = Mutate::new(count).with_policy(policy).with_annotations(marks(&args));
    let serve = async {
        let certificates = Certificates::start(&connection, certificates, stop.clone()).await?;
        tracing::info!(listen = %args.listen, "answering the API server");
        serve_webhook(listener, certificates, mutate, stop.clone()).await?;
        anyhow::Ok(())
    };
    let identity = args
        .identity
        .clone()
        .unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let lease = LeaderConfig::new(&args.namespace, &args.lease, &identity);
    let work = async { tokio::join!(serve, control(&connection, lease, &stop)).0 };
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        () = ending.asked() => {
            stop.cancel();
            let late = || anyhow::anyhow!("something took too long and was left");
            tokio::time::timeout(GRACE, work).await.unwrap_or_else(|_| Err(late()))
        }
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    done.map(|()| ExitCode::SUCCESS)
}

/// What Pods that ask are marked with: a runtime that looks at it (`default_validator` of containerd's NRI) creates their
/// containers only while the agent's plugin is there to tell them their ports.
fn marks(args: &WebhookArgs) -> BTreeMap<String, String> {
    let needs_plugin = (REQUIRED_PLUGINS.to_owned(), format!("[\"{NRI_NAME}\"]"));
    if args.no_nri { BTreeMap::new() } else { BTreeMap::from([needs_plugin]) }
}

/// While this replica leads: endpoints, and the status of pools. When it no longer does, another one goes on.
async fn control(connection: &Connection, lease: LeaderConfig, stop: &CancellationToken) {
    let mut leader = Leader::start(connection, lease, stop.clone());
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => break,
            () = leader.lead() => {}
        }
        tracing::info!("this replica writes endpoints and the status of pools");
        let term = stop.child_token();
        let work = async {
            tokio::join!(run_endpoints(connection, term.clone()), run_pool_status(connection, term.clone()),);
        };
        let until = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = leader.lost() => tracing::warn!("another replica leads now"),
            }
            term.cancel();
        };
        tokio::join!(work, until);
    }
    leader.ended().await;
}

/// `/healthz` and `/readyz`: kubelet's, without TLS.
async fn serve_health(listener: TcpListener, policy: Policy, stop: CancellationToken) {
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(policy);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "health is not served any more");
    }
}

async fn ready(State(policy): State<Policy>) -> (StatusCode, &'static str) {
    match policy.is_synced() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "namespaces and pools are not known yet\n"),
    }
}
