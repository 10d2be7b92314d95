//! `portolan serve`: the dynamic-port server of the dynamic-ports tutorial. It listens on a port that the kernel chose,
//! tells a registry where that is, and answers with a page.
//!
//! In the order of its life: sockets ([`listen`]), the address to tell ([`address`]), what it says of itself ([`about`]),
//! answers ([`http`] with its [`page`], [`echo`]), the registration ([`register`]), and the end: leave the registry
//! first, then stop listening, then finish what is being answered.

mod about;
mod access_log;
mod address;
mod echo;
mod http;
mod inherited;
mod listen;
mod page;
mod register;
mod tutorial;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use portolan_cli::{Global, ServeArgs};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{about::About, access_log::Log};

/// How long answers that are under way may take once the server was told to end. Kubernetes' default grace period is
/// 30 s, so this leaves room for what comes before and after.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the registry may take to be left: it forgets the instance by itself when its lease runs out.
const LEAVE: Duration = Duration::from_secs(3);

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn main(global: Global, args: ServeArgs) -> anyhow::Result<ExitCode> {
    // From the first moment on: a signal during the start ends it in good order as well.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let told = signal(SignalKind::user_defined1()).context("cannot listen to SIGUSR1")?;

    let log = Log::to_stdout();
    log.line("Starting dynamic port server...");
    let sockets = listen::open(args.udp_echo)?;
    log.line(format!("Listening on 0.0.0.0:{}", sockets.port));
    if sockets.dual_stack {
        log.line(format!("Listening on [::]:{}", sockets.port));
    }
    if let Some(udp) = &sockets.udp {
        log.line(format!("Echoing UDP on port {}", udp.local_addr()?.port()));
    }
    let about = Arc::new(tokio::select! {
        about = About::learn(&args, &sockets) => about?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    });

    let stop_registration = CancellationToken::new();
    let registration = register::spawn(&global, &args, &about, &log, stop_registration.clone())?;
    let stop_listening = CancellationToken::new();
    let app = http::app(about.clone(), log.clone());
    let serving = tokio::spawn(
        axum::serve(sockets.tcp, app.into_make_service_with_connect_info::<SocketAddr>())
            .with_graceful_shutdown(stop_listening.clone().cancelled_owned())
            .into_future(),
    );
    if let Some(udp) = sockets.udp {
        tokio::spawn(echo::run(udp));
    }
    let toggling = tokio::spawn(toggle(about.clone(), told, args.unhealthy_after));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    log.line("Stopping");
    toggling.abort();
    about.end();
    stop_registration.cancel();
    let end = async {
        if let Some(registration) = registration
            && tokio::time::timeout(LEAVE, registration).await.is_err()
        {
            tracing::warn!("the registry did not answer: it will forget this instance when its lease ends");
        }
        stop_listening.cancel();
        match tokio::time::timeout(DRAIN, serving).await {
            Ok(served) => served?.context("the server ended with an error"),
            Err(_) => {
                tracing::warn!("clients still had requests open after {}", humantime::format_duration(DRAIN));
                Ok(())
            }
        }
    };
    // A second signal means: now.
    let ended = tokio::select! {
        ended = end => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    log.finish();
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// Turns health over at each SIGUSR1, and off after the time that `--unhealthy-after` says.
async fn toggle(about: Arc<About>, mut told: Signal, unhealthy_after: Option<Duration>) {
    let mut timer = unhealthy_after.map(|after| Box::pin(tokio::time::sleep(after)));
    loop {
        let due = async {
            match &mut timer {
                Some(timer) => timer.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(()) = told.recv() => about.toggle_health(),
            () = due => {
                timer = None;
                about.turn_unhealthy();
            }
        }
    }
}
