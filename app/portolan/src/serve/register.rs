//! Tells a registry where this server is, again and again, and takes leave at the end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use portolan_cli::{Global, ServeArgs};
use portolan_client::{Client, Endpoint, Keeper};
use portolan_model::{CheckKind, CheckSpec, Name, Registration};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{
    about::About,
    access_log::Log,
    tutorial::{self, Kind},
};

/// The original's rhythm.
const AGAIN: Duration = Duration::from_secs(30);
/// How soon a registry that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(2);

/// Starts it; `None` when `portolan run` registers this server already. The task ends soon after `stop`.
pub(crate) fn spawn(
    global: &Global,
    args: &ServeArgs,
    about: &Arc<About>,
    log: &Log,
    stop: CancellationToken,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    if about.under_run {
        return Ok(None);
    }
    log.line(format!("Registering endpoint [{}]", about.endpoint()));
    let token = global.read_token()?;
    let local = args.service_registry.as_deref().map_or_else(|| global.server_is_local(), is_local);
    let registration = registration(args, about, !local);
    let Some(authority) = args.service_registry.clone() else {
        let client = Client::new(global.server.parse::<Endpoint>()?, token);
        return Ok(Some(tokio::spawn(keep(client, registration, stop))));
    };
    let about = about.clone();
    Ok(Some(tokio::spawn(async move {
        match stop.run_until_cancelled(find_kind(&authority)).await {
            None => {}
            Some(Kind::Portolan) => match format!("http://{authority}").parse::<Endpoint>() {
                Ok(endpoint) => keep(Client::new(endpoint, token), registration, stop).await,
                Err(error) => tracing::error!(%error, "not registered"),
            },
            Some(Kind::Tutorial) => {
                // Cancelling is all: this API has no way to deregister.
                let _ = stop.run_until_cancelled(repeat(&authority, &about)).await;
            }
        }
    })))
}

/// Registers, renews, and leaves at `stop`.
async fn keep(client: Client, registration: Registration, stop: CancellationToken) {
    let keeper = Keeper::start(client, registration);
    stop.cancelled().await;
    keeper.leave().await;
}

/// Asks until somebody answers.
async fn find_kind(authority: &str) -> Kind {
    let mut told = false;
    loop {
        match tutorial::kind(authority).await {
            Ok(kind) => {
                tracing::debug!(registry = authority, ?kind, "found the registry");
                return kind;
            }
            Err(error) if !told => {
                tracing::warn!("not registered yet: {error:#}");
                told = true;
            }
            Err(error) => tracing::debug!("not registered yet: {error:#}"),
        }
        tokio::time::sleep(jitter(RETRY)).await;
    }
}

/// Registers every 30 s: that is how the tutorial's registry hears that a server is still meant to be there.
async fn repeat(authority: &str, about: &About) {
    let mut registered = None;
    loop {
        let outcome = tutorial::register(authority, &about.name, &about.endpoint()).await;
        match &outcome {
            Ok(()) if registered != Some(true) => tracing::info!(registry = authority, "registered"),
            Err(error) if registered != Some(false) => tracing::warn!("not registered: {error:#}"),
            _ => {}
        }
        registered = Some(outcome.is_ok());
        tokio::time::sleep(jitter(if outcome.is_ok() { AGAIN } else { RETRY })).await;
    }
}

/// 10 % more or less, so that servers which started together do not ask together for ever.
fn jitter(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..=1.1))
}

/// Whether a registry at `HOST:PORT` is on this machine, as far as that tells without asking DNS.
fn is_local(authority: &str) -> bool {
    authority.starts_with("localhost:")
        || authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
}

fn registration(args: &ServeArgs, about: &About, elsewhere: bool) -> Registration {
    let wanted = Name::new(about.name.clone());
    let name = wanted.ok().or_else(|| Name::sanitized(&about.name));
    let name = name.unwrap_or_else(|| args.service.clone());
    if name.as_str() != about.name {
        tracing::warn!(wanted = about.name, %name, "the name is no DNS label and was changed");
    }
    let check = CheckSpec {
        port: about.ports.first().map(|port| port.name.clone()),
        ..CheckSpec::new(CheckKind::Http { path: "/healthz".to_owned() })
    };
    Registration {
        service: Some(args.service.clone()),
        // A registry on this machine knows the machine's name best: it may have been given another.
        node: elsewhere.then(|| about.node.clone()),
        addresses: about.addresses.clone(),
        ports: about.ports.clone(),
        labels: args.labels.iter().map(|label| (label.key.clone(), label.value.clone())).collect(),
        check: Some(check),
        ..Registration::new(name)
    }
}
