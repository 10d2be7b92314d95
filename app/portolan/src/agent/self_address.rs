//! `http://169.254.86.80/v1/self/ports`: a Pod asks the node for its own ports, and is known by its source address.
//!
//! For software that cannot take them from the environment, and for Pods that were started while no agent was there.
//!
//! | path | answer |
//! | --- | --- |
//! | `/v1/self/ports` | the JSON of the annotation `portolan.dev/ports-status` |
//! | `/v1/self/env` | the variables of its containers, one `NAME=VALUE` a line |
//!
//! The address is on lo, so it means the node wherever it is asked, and link-local, so no router passes it on. Nothing
//! listens on port 80: a Pod may have that as a static host port on all addresses. The packets are mapped to another
//! one by a mapping that belongs to no lease.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::Context;
use axum::{
    Json, Router,
    extract::{ConnectInfo, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use ipnet::{IpNet, Ipv4Net};
use portolan_model::{Mapping, PortRange, Protocol};
use portolan_netlink::route::{NewAddress, Rtnl, Scope};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Agent, directory::Entry, tell};

/// The port that is asked.
const ASKED: u16 = 80;
/// The port that listens.
const LISTENS: u16 = 10086;

/// What brings packets from the one to the other.
pub(crate) fn mapping(address: Ipv4Addr) -> Option<Mapping> {
    Some(Mapping {
        protocol: Protocol::Tcp,
        address: Some(address.into()),
        host: PortRange::single(ASKED).ok()?,
        container: LISTENS,
        v4: Some(address),
        v6: None,
    })
}

/// Puts the address on lo, if it is not there, and listens.
pub(crate) async fn listen(address: Ipv4Addr) -> anyhow::Result<TcpListener> {
    let put = tokio::task::spawn_blocking(move || add(address)).await?;
    put.with_context(|| format!("adding {address} to lo"))?;
    let socket = SocketAddr::from((address, LISTENS));
    TcpListener::bind(socket).await.with_context(|| format!("listening on {socket}"))
}

fn add(address: Ipv4Addr) -> anyhow::Result<()> {
    let rtnl = Rtnl::open()?;
    let lo = rtnl.link("lo")?.context("this network namespace has no lo")?;
    if !lo.up {
        rtnl.set_up(lo.index)?;
    }
    let net = IpNet::V4(Ipv4Net::from(address));
    match rtnl.add_address(&NewAddress { index: lo.index, net, scope: Scope::Host }) {
        Err(error) if error.is_present() => Ok(()),
        added => Ok(added?),
    }
}

/// Takes the address off lo.
pub(crate) fn remove(address: Ipv4Addr) -> anyhow::Result<()> {
    let rtnl = Rtnl::open()?;
    if let Some(lo) = rtnl.link("lo")? {
        rtnl.delete_address(lo.index, IpNet::V4(Ipv4Net::from(address)))?;
    }
    Ok(())
}

/// Answers until `stop`.
pub(crate) async fn run(agent: Arc<Agent>, listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .route("/v1/self/ports", get(ports))
        .route("/v1/self/env", get(variables))
        .with_state(agent);
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the address for Pods does not answer any more");
    }
}

type Caller = ConnectInfo<SocketAddr>;

async fn ports(State(agent): State<Arc<Agent>>, ConnectInfo(caller): Caller) -> Response {
    answer(&agent, caller.ip(), |entry| Json(tell::status(&agent, entry)).into_response())
}

async fn variables(State(agent): State<Arc<Agent>>, ConnectInfo(caller): Caller) -> Response {
    answer(&agent, caller.ip(), |entry| {
        let lines =
            tell::variables(&agent, entry).into_iter().map(|(name, value)| format!("{name}={value}\n"));
        lines.collect::<String>().into_response()
    })
}

fn answer(agent: &Agent, caller: IpAddr, with: impl FnOnce(&Entry) -> Response) -> Response {
    match agent.directory.of_address(caller.to_canonical()) {
        Some(entry) => with(&entry),
        None => {
            let error = format!(
                "no Pod with ports has the address {caller}: ask from a Pod with the annotation portolan.dev/ports \
                 that is not on the host network"
            );
            (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response()
        }
    }
}
