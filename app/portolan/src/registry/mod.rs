//! `portolan registry`: the catalog alone, as one Pod of a cluster or beside servers that register themselves.
//!
//! It is served by two listeners, because they are reached by different people. The page, the reading API and metrics
//! may be behind a load balancer, which hides who asks. Servers register at the other one, and only there
//! `--allow-anonymous-from` counts.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use axum::{Router, http::header, routing::get};
use portolan_cli::{Global, RegistryArgs};
use portolan_dns::Listener;
use portolan_registry::{Anonymous, RegistryConfig, api};
use portolan_telemetry::metrics::{CONTENT_TYPE, Metrics};

use crate::{
    catalog::{Catalog, has_address, listeners},
    ending::Ending,
    output::problem::mendable,
    up::lock::DataFolder,
};

/// Runs until SIGTERM or Ctrl-C, then drains.
pub(crate) async fn main(global: Global, args: RegistryArgs) -> anyhow::Result<ExitCode> {
    let mut ending = Ending::listen()?;
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")));
    let config = config(&global, &args, &metrics)?;
    let writers = writers(&config);

    let folder = DataFolder::lock(&global.data_dir()).map_err(mendable)?;
    let public = listeners::tcp(args.listen, "the page and the API", "--listen").map_err(mendable)?;
    let register =
        listeners::tcp(args.register_listen, "registrations", "--register-listen").map_err(mendable)?;
    if let Some(dns) = args.dns_listen {
        listeners::probe(dns, "DNS", "--dns-listen").map_err(mendable)?;
    }

    let mut catalog = Catalog::open(&global.data_dir(), config).await?;
    if let Some(dns) = args.dns_listen {
        catalog.resolve(&args.zone, Listener::new(dns), &metrics)?;
        tracing::info!("DNS for {} on {dns}", args.zone);
    }
    let registry = catalog.registry.clone();
    let pages = Router::new()
        .merge(portolan_web::router(registry.clone()))
        .route(
            "/metrics",
            get(move || async move { ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()) }),
        )
        .merge(api::router(registry.clone()));
    catalog.serve_tcp(public, pages)?;
    catalog.serve_tcp(register, api::anonymous(api::registration(registry)))?;
    tracing::info!("page on http://{}/", args.listen);
    tracing::info!("API on http://{}/v1/instances", args.listen);
    tracing::info!("registrations on http://{}/register, by {writers}", args.register_listen);

    ending.asked().await;
    tracing::info!("ending; a second signal ends at once");
    let code = tokio::select! {
        () = catalog.stop() => ExitCode::SUCCESS,
        () = ending.asked() => ExitCode::FAILURE,
    };
    drop(folder);
    Ok(code)
}

fn config(global: &Global, args: &RegistryArgs, metrics: &Arc<Metrics>) -> anyhow::Result<RegistryConfig> {
    Ok(RegistryConfig {
        node: args.node_name.clone().unwrap_or_else(host_name),
        ttl: args.ttl,
        remove_after: args.remove_after,
        token: global.read_token().context("the API's token")?,
        anonymous: Anonymous {
            from: args.allow_anonymous_from.clone(),
            addresses: args.anonymous_addresses.clone().into(),
        },
        is_local: Arc::new(has_address),
        metrics: Arc::clone(metrics),
        ..RegistryConfig::default()
    })
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Who may register, said at the start: nobody should have to find out by a 401.
fn writers(config: &RegistryConfig) -> String {
    let mut who = vec!["this machine".to_owned()];
    if config.token.is_some() {
        who.push("those with the token".to_owned());
    }
    who.extend(config.anonymous.from.iter().map(|net| format!("{net} without a token")));
    who.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_register_is_said() {
        let mut config = RegistryConfig::default();
        assert_eq!(writers(&config), "this machine");
        config.token = Some("t".to_owned());
        config.anonymous.from = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(writers(&config), "this machine, those with the token, 10.0.0.0/8 without a token");
    }
}
