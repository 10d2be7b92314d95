//! The health-check node ports of Services whose external policy is Local: by them a load balancer learns which nodes
//! have endpoints (`pkg/proxy/healthcheck/service_health.go`).
//!
//! Any path is answered: 200 while this node has a ready endpoint and the proxy is healthy, else 503. Endpoints that
//! only terminate do not count, although they still serve: the load balancer is to turn away in time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use portolan_kubernetes::{About, EventKind, Publisher};
use portolan_model::ObjectName;
use portolan_services::NodePortAddresses;
use serde_json::json;
use socket2::{Domain, Socket, Type};
use tokio::{net::TcpListener, task::JoinHandle};

use super::health::{self, Health};

/// A Service that asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// The node port.
    pub(crate) port: u16,
    /// `metadata.uid`, for Events.
    pub(crate) uid: String,
    /// How many ready endpoints this node has.
    pub(crate) local: usize,
}

/// Whether the rules are as they should be.
type Healthy = Arc<dyn Fn() -> bool + Send + Sync>;
/// Whom to tell of a port that cannot be opened.
type Tell = Box<dyn Fn(&ObjectName, &Check, &std::io::Error) + Send + Sync>;

/// All that are open.
pub(crate) struct Checks {
    healthy: Healthy,
    tell: Tell,
    open: BTreeMap<ObjectName, Open>,
    addresses: BTreeSet<IpAddr>,
    /// Those that could not be opened, by the port that was told.
    failed: BTreeMap<ObjectName, u16>,
}

struct Open {
    port: u16,
    local: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<()>>,
}

impl Open {
    /// The sockets are closed when this returns, so that another Service can have the port.
    async fn close(self) {
        for task in self.tasks {
            task.abort();
            // An abortion is what was asked for.
            let _ = task.await;
        }
    }
}

impl Checks {
    /// Of a node of a cluster: a port that cannot be opened is an Event on its Service.
    pub(crate) fn new(node: &str, health: Health, publisher: Publisher) -> Self {
        let node = node.to_owned();
        let tell = move |name: &ObjectName, want: &Check, error: &std::io::Error| {
            let port = want.port;
            let message =
                format!("node {node} failed to start healthcheck \"{name}\" on port {port}: {error}");
            tracing::error!(service = %name, port, %error, "cannot open the health-check node port; trying again");
            let about = About::Service(name.namespace.clone(), name.name.clone(), want.uid.clone());
            let reason = "FailedToStartServiceHealthcheck";
            publisher.event(&about, EventKind::Warning, reason, "Listen", &message);
        };
        Self::with(move || health.is_healthy(), tell)
    }

    /// Of anybody who serves Services.
    pub(crate) fn with(
        healthy: impl Fn() -> bool + Send + Sync + 'static,
        tell: impl Fn(&ObjectName, &Check, &std::io::Error) + Send + Sync + 'static,
    ) -> Self {
        Self {
            healthy: Arc::new(healthy),
            tell: Box::new(tell),
            open: BTreeMap::new(),
            addresses: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// Whether a port could not be opened and should be tried again.
    pub(crate) fn is_missing_one(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Serves exactly these, on the addresses of node ports.
    pub(crate) async fn set(&mut self, wanted: &BTreeMap<ObjectName, Check>, on: &NodePortAddresses) {
        let addresses = match on {
            NodePortAddresses::All => {
                [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].into()
            }
            NodePortAddresses::Only(addresses) => addresses.clone(),
        };
        let moved = self.addresses != addresses;
        self.addresses = addresses;
        let over: Vec<ObjectName> = self
            .open
            .iter()
            .filter(|(name, open)| moved || wanted.get(name).is_none_or(|want| want.port != open.port))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            let Some(open) = self.open.remove(&name) else { continue };
            tracing::debug!(service = %name, port = open.port, "the health-check node port is closed");
            open.close().await;
        }
        self.failed.retain(|name, _| wanted.contains_key(name));
        for (name, want) in wanted {
            if let Some(open) = self.open.get(name) {
                open.local.store(want.local, Ordering::Relaxed);
                continue;
            }
            match self.listen(name, want) {
                Ok(open) => {
                    tracing::debug!(service = %name, port = want.port, "the health-check node port is open");
                    self.failed.remove(name);
                    self.open.insert(name.clone(), open);
                }
                Err(error) => self.fail(name, want, &error),
            }
        }
    }

    fn listen(&self, name: &ObjectName, want: &Check) -> std::io::Result<Open> {
        let local = Arc::new(AtomicUsize::new(want.local));
        let mut listeners = Vec::new();
        for address in &self.addresses {
            match bind(SocketAddr::new(*address, want.port)) {
                Ok(listener) => listeners.push(listener),
                // A kernel without IPv6.
                Err(error) if address.is_ipv6() && error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => return Err(error),
            }
        }
        let answering =
            Answering { name: name.clone(), local: Arc::clone(&local), healthy: Arc::clone(&self.healthy) };
        let router = Router::new().fallback(answer).with_state(answering);
        let tasks = listeners.into_iter().map(|listener| {
            let router = router.clone();
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "a health-check node port is not served any more");
                }
            })
        });
        Ok(Open { port: want.port, local, tasks: tasks.collect() })
    }

    fn fail(&mut self, name: &ObjectName, want: &Check, error: &std::io::Error) {
        if self.failed.insert(name.clone(), want.port) == Some(want.port) {
            return;
        }
        (self.tell)(name, want, error);
    }
}

/// For one family only, so that the unspecified addresses of both can be had.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(128)?;
    TcpListener::from_std(socket.into())
}

#[derive(Clone)]
struct Answering {
    name: ObjectName,
    local: Arc<AtomicUsize>,
    healthy: Healthy,
}

async fn answer(State(state): State<Answering>) -> Response {
    let (local, healthy) = (state.local.load(Ordering::Relaxed), (state.healthy)());
    let code = if local > 0 && healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "service": {"namespace": state.name.namespace, "name": state.name.name},
        "localEndpoints": local,
        "serviceProxyHealthy": healthy
    });
    let mut response = health::json(code, &body);
    let headers = response.headers_mut();
    headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(local));
    // A connection that is kept would be answered after the port was closed.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use portolan_kubernetes::{Connection, ConnectionConfig};
    use portolan_telemetry::service_proxy::ServiceProxyMetrics;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpStream,
    };

    use super::*;

    async fn checks() -> (Checks, Health) {
        // Nobody listens there: Events wait for an API server that never comes.
        let nowhere =
            Connection::open_at(&ConnectionConfig::default(), Some("http://127.0.0.1:1")).await.unwrap();
        let health = Health::new(Duration::ZERO, Arc::new(ServiceProxyMetrics::new()));
        (Checks::new("node", health.clone(), Publisher::start(&nowhere, "node")), health)
    }

    async fn ask(port: u16) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(b"GET /any/path HTTP/1.1\r\nHost: x\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    fn wanted(port: u16, local: usize) -> BTreeMap<ObjectName, Check> {
        [(ObjectName::new("ns", "web"), Check { port, uid: "u".to_owned(), local })].into()
    }

    /// F37.
    #[tokio::test]
    async fn a_load_balancer_is_told_whether_this_node_has_endpoints() {
        let (mut checks, health) = checks().await;
        let on = NodePortAddresses::Only([IpAddr::V4(Ipv4Addr::LOCALHOST)].into());
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        checks.set(&wanted(port, 0), &on).await;
        assert!(checks.is_missing_one(), "somebody else has the port");
        drop(taken);
        checks.set(&wanted(port, 0), &on).await;
        assert!(!checks.is_missing_one(), "it is tried again");
        let without = ask(port).await.unwrap();
        assert!(
            without.starts_with("HTTP/1.1 503 ") && without.contains("x-load-balancing-endpoint-weight: 0"),
            "{without}"
        );
        checks.set(&wanted(port, 2), &on).await;
        let with = ask(port).await.unwrap().to_lowercase();
        for expected in [
            "http/1.1 200 ",
            "x-load-balancing-endpoint-weight: 2",
            "content-type: application/json",
            "x-content-type-options: nosniff",
            r#""service":{"name":"web","namespace":"ns"}"#,
            r#""localendpoints":2"#,
            r#""serviceproxyhealthy":true"#,
        ] {
            assert!(with.contains(expected), "{expected}: {with}");
        }
        health.updated();
        health.queued();
        let late = ask(port).await.unwrap();
        assert!(
            late.starts_with("HTTP/1.1 503 ") && late.contains(r#""serviceProxyHealthy":false"#),
            "{late}"
        );
        checks.set(&BTreeMap::new(), &on).await;
        let closed = ask(port).await.unwrap_err();
        assert_eq!(closed.kind(), std::io::ErrorKind::ConnectionRefused, "the port is free for others");
    }
}
