//! The HTTPS server that API servers call.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, State},
    routing::{get, post},
};
use hyper::{StatusCode, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    certificates::Certificates,
    mutate::Mutate,
    review::{Answer, Review},
};

/// Connections at the same time: each API server keeps a few.
const CONNECTIONS: usize = 512;
/// The API server's own limit for a request is 3 MiB, and a review holds the object once or twice.
const BODY_BYTES: usize = 8 << 20;
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may wait for the head of its next request.
const IDLE: Duration = Duration::from_secs(90);
/// How long answers that have begun may take after the stop.
const LINGER: Duration = Duration::from_secs(5);

/// Serves `POST /mutate` over TLS until `stop`, and `GET /healthz`. Fails only when TLS cannot be set up.
pub async fn serve_webhook(
    listener: TcpListener,
    certificates: Certificates,
    mutate: Mutate,
    stop: CancellationToken,
) -> Result<(), rustls::Error> {
    let acceptor = TlsAcceptor::from(Arc::new(certificates.server_config()?));
    let router = Router::new()
        .route("/mutate", post(review))
        .route("/healthz", get(|| async { "ok\n" }))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(mutate);
    let (connections, free) = (TaskTracker::new(), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let accept = async {
            // Never closed, so this only waits; the kernel's queue holds who comes meanwhile.
            let permit = free.clone().acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = stop.run_until_cancelled(accept).await else { break };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(stream, acceptor.clone(), router.clone(), stop.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, mostly: others must close first.
                tracing::warn!(%error, "a connection to the webhook was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(LINGER, connections.wait()).await.is_err() {
        tracing::debug!("connections to the webhook are cut off");
    }
    Ok(())
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, stop: CancellationToken) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE);
    let serving = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the webhook ended early");
    }
}

async fn review(
    State(mutate): State<Mutate>,
    Json(review): Json<Review>,
) -> Result<Json<Answer>, StatusCode> {
    let request = review.request.ok_or(StatusCode::BAD_REQUEST)?;
    let verdict = mutate.review(&request).await;
    if let Some(denied) = &verdict.denied {
        tracing::info!(namespace = request.namespace, reason = denied.message, "a Pod was refused");
    }
    Ok(Json(Answer::new(request.uid, verdict)))
}
