//! How many questions a second the server answers: a client with many questions on their way, over loopback.
//!
//! `cargo run --release -p portolan-dns --example load -- [COPIES] [SECONDS]`. Client and server share the machine's
//! processors, so what is printed is a lower bound for the server.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RecordType},
};
use portolan_dns::{Catalog, Dns, DnsConfig, Listener, View, Zone};
use portolan_model::Instance;

/// Questions that each client has on their way.
const WINDOW: usize = 64;

#[derive(Clone)]
struct Copies(Arc<[Arc<Instance>]>);

impl View for Copies {
    fn index(&self) -> u64 {
        1
    }
    fn instance(&self, name: &str) -> Option<&Arc<Instance>> {
        self.0.iter().find(|copy| copy.key.name.as_str() == name)
    }
    fn copies(&self, service: &str) -> &[Arc<Instance>] {
        if service == "s" { &self.0 } else { &[] }
    }
}

impl Catalog for Copies {
    type View = Self;
    fn now(&self) -> Option<Self> {
        Some(self.clone())
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<usize>().unwrap());
    let (copies, seconds) = (arguments.next().unwrap_or(3), arguments.next().unwrap_or(3));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let config = DnsConfig {
        zone: Zone::new("portolan.internal", 5).unwrap(),
        listeners: vec![Listener::new("127.0.0.1:0".parse().unwrap())],
        upstreams: Some(Vec::new()),
        resolv_conf: "/etc/resolv.conf".into(),
        metrics: Arc::default(),
    };
    let all = (0..copies).map(|i| Arc::new(copy(i))).collect();
    let dns = Dns::start(config, Arc::new(Copies(all))).unwrap();
    for (name, kind) in [("s", RecordType::A), ("_game._udp.s", RecordType::SRV), ("nobody", RecordType::A)] {
        let (answered, lost) = load(dns.addresses()[0], name, kind, Duration::from_secs(seconds as u64));
        println!(
            "{name}.portolan.internal {kind}, {copies} copies: {:.0} a second, {lost} unanswered",
            answered
        );
    }
}

fn copy(i: usize) -> Instance {
    serde_json::from_value(serde_json::json!({
        "name": format!("s-{i}"), "incarnation": "1", "service": "s", "node": "n", "state": "passing",
        "addresses": [format!("10.{}.{}.{}", i >> 16, i >> 8 & 255, i & 255)],
        "ports": [{ "name": "game", "protocols": ["udp"], "port": (20000 + i % 10000).to_string() }],
        "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

/// Answers a second, and questions that were not answered within a second.
fn load(server: std::net::SocketAddr, name: &str, kind: RecordType, time: Duration) -> (f64, u64) {
    let mut question = Message::query();
    let name = Name::from_ascii(format!("{name}.portolan.internal.")).unwrap();
    question.add_query(Query::query(name, kind));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    question.set_edns(edns);
    let packet = question.to_vec().unwrap();
    let (answers, lost, end) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(server).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
                let mut buffer = [0; 2048];
                (0..WINDOW).for_each(|_| drop(socket.send(&packet)));
                while !end.load(Ordering::Relaxed) {
                    match socket.recv(&mut buffer) {
                        Ok(_) => drop(answers.fetch_add(1, Ordering::Relaxed)),
                        Err(_) => drop(lost.fetch_add(1, Ordering::Relaxed)),
                    }
                    let _ = socket.send(&packet);
                }
            });
        }
        thread::sleep(time);
        end.store(true, Ordering::Relaxed);
    });
    (answers.load(Ordering::Relaxed) as f64 / begin.elapsed().as_secs_f64(), lost.load(Ordering::Relaxed))
}
