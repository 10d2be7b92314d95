//! How long the first packet of a connection takes to a mapped port, and how that grows with the mappings.
//!
//! Only a connection's first packet is looked up in the rules; the others follow connection tracking. So the time of
//! a TCP connect, and of one UDP question and answer from a fresh port, is where a slow ruleset shows. The floor is
//! the same way through the same node to the instance's own address, with no rule in the kernel.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portolan_model::{PortRange, Protocol, Protocols};

use crate::{
    Options,
    network::{CONTAINER_PORT, INSTANCE, MEASURED, NODE, Network, existing, measured},
    ours::Ours,
    portmap::{Backend, Portmap},
    stats::{Samples, ratio},
    table::{Table, thousands},
};

/// Connections, and as many datagrams, in each turn.
const SAMPLES: usize = 50;
/// Turns in each round of the options: short ones, because where the scheduler puts a server's thread stays for a
/// while and is worth more than the rules are.
const TURNS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);

/// A way to the instance, and what it took.
struct Way {
    name: String,
    network: Network,
    target: SocketAddr,
    tcp: Samples,
    udp: Samples,
}

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let mut table =
        Table::new(&["existing", "", "TCP connect", "against the floor", "UDP answer", "against the floor"]);
    for &count in options.counts() {
        eprintln!("[first-packet: {count} existing]");
        compare(options, count, &mut table)?;
    }
    Ok(format!(
        "## The first packet\n\n\
         From a client to the node and on to the instance: a TCP connect, and a UDP question until its answer, each\n\
         from a fresh port. The mapping that is measured is the last of those that exist. The floor goes the same\n\
         way to the instance's own address, with no rule in the kernel. A UDP answer takes some 30 µs or\n\
         some 130, by whether the server must be woken on the other core: compare the lowest of the rounds there.\n\n{}",
        table.markdown()
    ))
}

fn compare(options: Options, count: u16, table: &mut Table) -> Result<()> {
    let published = SocketAddr::from((NODE, MEASURED));
    let both = Protocols::TCP.with(Protocol::Udp);
    let host = PortRange::single(MEASURED)?;
    let mut ways = vec![Way::new("no mapping (the floor)".to_owned(), (INSTANCE, CONTAINER_PORT).into())];

    let mine = Way::new("Portolan".to_owned(), published);
    let ours = Ours::start(&mine.network, existing(count))?;
    ours.add(&measured(Protocol::Tcp, host))?;
    ours.add(&measured(Protocol::Udp, host))?;
    ways.push(mine);

    for backend in [Backend::Iptables, Backend::Nftables] {
        let portmap = match Portmap::new(backend) {
            Ok(portmap) => portmap,
            Err(reason) => {
                eprintln!("[{reason:#}]");
                continue;
            }
        };
        let way = Way::new(portmap.heading(), published);
        way.network.node.run(|| -> Result<()> {
            portmap.add(&way.network, "first", PortRange::single(MEASURED + 1)?, both)?;
            portmap.preload(count)?;
            portmap.add(&way.network, "measured", host, both)
        })?;
        ways.push(way);
    }

    let servers: Vec<_> = ways.iter().map(|way| way.network.serve()).collect();
    for _ in 0..options.rounds() * TURNS {
        for way in &mut ways {
            way.round()?;
        }
    }
    drop(servers);
    ours.stop()?;
    let (floor_tcp, floor_udp) = (ways[0].tcp.clone(), ways[0].udp.clone());
    for way in &ways {
        table.row([
            thousands(count.into()),
            way.name.clone(),
            way.tcp.median_and_spread(),
            ratio(&floor_tcp, &way.tcp),
            way.udp.median_and_spread(),
            ratio(&floor_udp, &way.udp),
        ]);
    }
    Ok(())
}

impl Way {
    fn new(name: String, target: SocketAddr) -> Self {
        Self { name, network: Network::new(), target, tcp: Samples::default(), udp: Samples::default() }
    }

    fn round(&mut self) -> Result<()> {
        let (target, name) = (self.target, self.name.as_str());
        let (tcp, udp) = (&mut self.tcp, &mut self.udp);
        tcp.begin_round();
        udp.begin_round();
        self.network.client.run(|| -> Result<()> {
            // The first ones fill the neighbour caches.
            for _ in 0..3 {
                connect(target)
                    .and_then(|_| ask(target))
                    .with_context(|| format!("{name} does not answer"))?;
            }
            for _ in 0..SAMPLES {
                tcp.add(connect(target).with_context(|| format!("{name}, TCP"))?);
                udp.add(ask(target).with_context(|| format!("{name}, UDP"))?);
            }
            Ok(())
        })
    }
}

fn connect(target: SocketAddr) -> Result<Duration> {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    let time = start.elapsed();
    let _ = stream.write_all(b"\n");
    Ok(time)
}

fn ask(target: SocketAddr) -> Result<Duration> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut answer = [0; 256];
    let start = Instant::now();
    socket.send(b"?")?;
    socket.recv(&mut answer)?;
    Ok(start.elapsed())
}
