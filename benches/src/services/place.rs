//! The network of one contender: a client, the node that the contender works on, and all endpoints.
//!
//! ```text
//! client 192.0.2.2 ── 192.0.2.1 node 10.243.0.1 ── 10.243.0.2 endpoints: every address of 10.244.0.0/14
//! ```

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use portolan_testkit::net::{End, Namespace, link};

use super::objects::{PODS, PORT, TARGET, cluster_address};

/// Between two tries of something that is not there yet.
const PAUSE: Duration = Duration::from_micros(400);
/// A SYN that nobody answers is not waited for; an answer takes a tenth of this.
const SILENT: Duration = Duration::from_millis(1);
/// The first of 65,536 addresses that the client has besides.
pub(crate) const CLIENTS: Ipv4Addr = Ipv4Addr::new(10, 250, 0, 0);

/// Three namespaces, and a server for all endpoints.
pub(crate) struct Place {
    pub(crate) client: Namespace,
    pub(crate) node: Namespace,
    endpoints: Namespace,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let (client, node, endpoints) = (Namespace::new(), Namespace::new(), Namespace::new());
        link(End::new(&client, "eth0", &["192.0.2.2/24"]), End::new(&node, "client0", &["192.0.2.1/24"]));
        link(End::new(&node, "pods0", &["10.243.0.1/30"]), End::new(&endpoints, "eth0", &["10.243.0.2/30"]));
        node.forward();
        client.route("default via 192.0.2.1");
        endpoints.route("default via 10.243.0.1");
        endpoints.ip(&format!("route add local {PODS} dev lo"));
        node.route(&format!("{PODS} via 10.243.0.2"));
        client.ip(&format!("route add local {CLIENTS}/16 dev lo"));
        node.route(&format!("{CLIENTS}/16 via 192.0.2.2"));
        // Each connection is a new flow; what has been closed must not fill the table.
        for namespace in [&client, &node, &endpoints] {
            namespace.sysctl("net/ipv4/tcp_fin_timeout", "1");
            namespace.sysctl("net/ipv4/ip_local_port_range", "1024 65535");
        }
        let stop = Arc::new(AtomicBool::new(false));
        let listener = endpoints.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET)));
        let server = listener.ok().map(|listener| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    drop(stream);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            })
        });
        Self { client, node, endpoints, stop, server }
    }

    /// Tries from the client until a connection to Service `n` is there; `None` when it is not within `patience`.
    pub(crate) fn reach(&self, n: u32, patience: Duration) -> Option<Duration> {
        self.reach_at(cluster_address(n), patience)
    }

    /// Waits until Service `n` is not served any more; `false` when it is after `patience`.
    pub(crate) fn unreachable(&self, n: u32, patience: Duration) -> bool {
        let start = Instant::now();
        let target = SocketAddr::new(IpAddr::V4(cluster_address(n)), PORT);
        self.client.run(|| {
            while start.elapsed() < patience {
                if TcpStream::connect_timeout(&target, Duration::from_millis(100)).is_err() {
                    return true;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            false
        })
    }

    /// The page of metrics of the proxy, which is where kube-proxy has it.
    pub(crate) fn metrics(&self) -> Option<String> {
        self.node.run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, 10_249)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: node\r\n\r\n").ok()?;
            let mut page = Vec::new();
            stream.read_to_end(&mut page).ok()?;
            Some(String::from_utf8_lossy(&page).into_owned())
        })
    }

    fn reach_at(&self, address: Ipv4Addr, patience: Duration) -> Option<Duration> {
        let start = Instant::now();
        let target = SocketAddr::new(IpAddr::V4(address), PORT);
        self.client.run(|| {
            while start.elapsed() < patience {
                if TcpStream::connect_timeout(&target, SILENT).is_ok() {
                    return Some(start.elapsed());
                }
                std::thread::sleep(PAUSE);
            }
            None
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let last = self.endpoints.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, TARGET)));
        drop(last);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
    }
}
