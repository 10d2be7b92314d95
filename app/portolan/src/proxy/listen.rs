//! HTTP listeners of the proxy: an address that is taken is tried again, unless the proxy is to end then.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// How long to wait before an address is tried again, as kube-proxy.
const AGAIN: Duration = Duration::from_secs(5);

/// Serves `router` at `address` until `stop`. Returns an error only with `hard_fail`.
pub(crate) async fn serve(
    what: &'static str,
    address: SocketAddr,
    router: Router,
    hard_fail: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while !stop.is_cancelled() {
        let served = async {
            let listener = TcpListener::bind(address).await?;
            tracing::debug!(%address, "serving {what}");
            axum::serve(listener, router.clone()).with_graceful_shutdown(stop.clone().cancelled_owned()).await
        };
        match served.await {
            Ok(()) => break,
            Err(error) if hard_fail => {
                return Err(error).with_context(|| format!("listening on {address} for {what}"));
            }
            Err(error) => tracing::error!(%address, %error, "cannot serve {what}; trying again"),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}
