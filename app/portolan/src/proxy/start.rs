//! From the flags to a running proxy, and its end.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context;
use portolan_cli::ProxyArgs;
use portolan_kubernetes::{
    About, Connection, ConnectionConfig, EventKind, Publisher, ServiceWatch, ServiceWatchConfig,
};
use portolan_telemetry::service_proxy::ServiceProxyMetrics;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Proxy, addresses, api, cleanup,
    config::ProxyConfig,
    drive::Driver,
    health::{self, Health},
    http, listen,
    locals::Locals,
    sysctls,
};
use crate::ending::Ending;

/// How long requests and a write that were begun may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT. The table stays for the next proxy.
pub(crate) async fn main(args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let (config, told) = ProxyConfig::new(args)?;
    for line in &told {
        tracing::warn!("{line}");
    }
    tracing::info!(
        node = %config.node, table = %config.table,
        services = %config.proxy_name.as_deref().map_or("all".to_owned(), |name| format!("those of {name}")),
        "version {}", env!("CARGO_PKG_VERSION")
    );
    settings(&config, args.init_only);
    if args.init_only {
        return Ok(ExitCode::SUCCESS);
    }
    let socket = api::bind(&config.socket)?;
    let connection = connection(&config).await?;
    let stop = CancellationToken::new();
    // Who leaves this function by an error ends everything that it has begun.
    let _stopping = stop.clone().drop_guard();
    let local = addresses::follow(stop.clone())?;
    let publisher = Publisher::start(&connection, &config.node);
    let watch = ServiceWatchConfig { node: config.node.clone(), proxy_name: config.proxy_name.clone() };
    let watch = ServiceWatch::start(&connection, &watch);
    let metrics = Arc::new(ServiceProxyMetrics::new());
    let proxy = Arc::new(Proxy {
        flags: std::env::args().skip(1).collect(),
        health: Health::new(2 * config.sync_period, Arc::clone(&metrics)),
        config,
        metrics,
        locals: Locals::default(),
        watches: watch.health_of(),
        plane: Mutex::default(),
        started: SystemTime::now(),
    });
    let mut servers = serve(&proxy, &stop);
    if let Some(socket) = socket {
        servers.spawn(api::serve(Arc::clone(&proxy), socket, stop.clone()));
    }
    let node = About::Node(proxy.config.node.clone());
    publisher.event(&node, EventKind::Normal, "Starting", "StartServiceProxy", "the service proxy starts");

    let (takes_over, table) = (args.cleanup_kube_proxy, proxy.config.table.clone());
    let work = async {
        let driver = Driver::start(Arc::clone(&proxy), watch, publisher.clone(), local, &stop).await?;
        let Some(driver) = driver else { return anyhow::Ok(()) };
        if takes_over {
            tokio::task::spawn_blocking(move || cleanup::kube_proxy(&table)).await??;
        }
        driver.run(stop.clone()).await;
        Ok(())
    };
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => done,
        Some(failed) = first_failure(&mut servers) => {
            let message = format!("{failed:#}");
            publisher.event(&node, EventKind::Warning, "FailedToStartProxierHealthcheck", "StartServiceProxy", &message);
            Err(failed)
        }
        () = ending.asked() => {
            tracing::info!("ending: the rules stay for the next proxy");
            stop.cancel();
            tokio::time::timeout(GRACE, work).await.unwrap_or(Ok(()))
        }
    };
    stop.cancel();
    let plane = proxy.plane.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(plane) = plane {
        tokio::task::spawn_blocking(move || plane.leave()).await?;
    }
    publisher.idle(Duration::from_secs(2)).await;
    let _ = tokio::time::timeout(GRACE, async { while servers.join_next().await.is_some() {} }).await;
    done.map(|()| ExitCode::SUCCESS)
}

/// The two HTTP listeners.
fn serve(proxy: &Arc<Proxy>, stop: &CancellationToken) -> JoinSet<anyhow::Result<()>> {
    let (config, mut servers) = (&proxy.config, JoinSet::new());
    if let Some(address) = config.healthz {
        let router = health::router(proxy.health.clone());
        servers.spawn(listen::serve("health", address, router, config.hard_fail, stop.clone()));
    }
    if let Some(address) = config.metrics {
        let router = http::router(Arc::clone(proxy));
        servers.spawn(listen::serve("metrics", address, router, config.hard_fail, stop.clone()));
    }
    servers
}

/// The first of them that ends with an error; `None` never, so that others are waited for.
async fn first_failure(servers: &mut JoinSet<anyhow::Result<()>>) -> Option<anyhow::Error> {
    while let Some(ended) = servers.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(error),
            Err(error) => return Some(error.into()),
        }
    }
    std::future::pending().await
}

/// The kernel's settings. None is needed for Services to work.
fn settings(config: &ProxyConfig, only: bool) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut failed = sysctls::apply(&config.conntrack, cores);
    failed.extend(sysctls::oom_score(config.oom_score));
    for line in failed {
        if only {
            tracing::warn!("{line}");
        } else {
            tracing::info!("going on without: {line}");
        }
    }
}

async fn connection(config: &ProxyConfig) -> anyhow::Result<Connection> {
    let wanted = ConnectionConfig {
        kubeconfig: config.kubeconfig.clone(),
        context: None,
        component: "proxy".to_owned(),
    };
    let connection = Connection::open_at(&wanted, config.master.as_deref()).await;
    connection.context("reaching the API server: run in a Pod with a service account, or say --kubeconfig")
}
