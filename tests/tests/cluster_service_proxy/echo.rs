//! A Service that is asked all the time.

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use portolan_cluster::Cluster;
use portolan_testkit::net::Namespace;
use portolan_tests::cluster::{Asking, Line, Space, client, namespace, on};

use crate::SOON;

/// A Pod on the second node that gives back what it is given, behind a Service with a node port.
pub struct Echo {
    cluster: &'static Cluster,
    address: IpAddr,
    node_port: u16,
}

impl Echo {
    #[track_caller]
    pub fn start(space: &Space) -> Self {
        let script = "exec socat TCP-LISTEN:7000,fork,reuseaddr,backlog=128 EXEC:cat";
        Asking::script("echo", "", script).silent().on(&space.cluster().node(2)).start(space);
        space.kubectl(&["expose", "pod", "echo", "--type=NodePort", "--port=80", "--target-port=7000"]);
        let spec = space.get("service/echo")["spec"].clone();
        let address = spec["clusterIP"].as_str().and_then(|address| address.parse().ok());
        let node_port = spec["ports"][0]["nodePort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let (Some(address), Some(node_port)) = (address, node_port) else { panic!("{spec}") };
        Self { cluster: space.cluster(), address, node_port }
    }

    pub fn cluster_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, 80)
    }

    /// A connection from outside to the node port of the node where the Pod is not.
    #[track_caller]
    pub fn outside(&self) -> Line {
        let server = SocketAddr::new(self.cluster.node(1).address().into(), self.node_port);
        Line::soon(SOON, || client(self.cluster).run(|| Line::to(server)))
    }

    /// A connection from a node to the cluster address.
    #[track_caller]
    pub fn inside(&self) -> Line {
        Line::soon(SOON, || on(&self.cluster.node(1), || Line::to(self.cluster_address())))
    }

    /// New connections all the time while `work` is done: why some failed.
    pub fn while_asked(&self, work: impl FnOnce()) -> Vec<String> {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let server = SocketAddr::new(self.cluster.node(1).address().into(), self.node_port);
            let askers =
                [(client(self.cluster), server), (namespace(&self.cluster.node(1)), self.cluster_address())];
            let askers = askers.map(|(namespace, server)| {
                let ended = &ended;
                scope.spawn(move || asked_until(ended, &namespace, server))
            });
            // Also when it panics: the others would never end.
            let _ending = Ending(&ended);
            work();
            drop(_ending);
            askers.into_iter().flat_map(|asker| asker.join().unwrap_or_default()).collect()
        })
    }
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn asked_until(ended: &AtomicBool, namespace: &Namespace, server: SocketAddr) -> Vec<String> {
    let (mut tries, mut failed) = (0, Vec::new());
    while !ended.load(Ordering::Relaxed) {
        tries += 1;
        if let Err(error) = namespace.run(|| Line::to(server)?.ask("anew")) {
            failed.push(format!("try {tries} of {server}: {error}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if tries < 20 {
        failed.push(format!("{server} was asked {tries} times only"));
    }
    failed
}
