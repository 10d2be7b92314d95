//! The user-space proxy beside what else moves bytes in user space, and beside nothing at all.
//!
//! Client, proxy and server share the machine's processors, so the numbers are ratios: the less a proxy needs, the more
//! is left for both ends.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use portolan_model::{ObjectName, Protocol};
use portolan_relay::service::{Backend, Frontend, Options as RelayOptions, Relays};
use portolan_testkit::{eventually, net::Namespace, programs};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use crate::{
    Options,
    table::{Table, thousands},
};

const CHUNK: usize = 256 << 10;
/// Of the larger datagrams of a game or a call.
const DATAGRAM: usize = 1_200;

/// One way from a client to the server.
struct Way {
    name: &'static str,
    to: SocketAddr,
    /// Ends with this.
    _process: Option<Process>,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The section of the document.
pub(crate) fn measure(options: Options) -> Result<String> {
    let namespace = Namespace::new();
    let runtime = namespace
        .run(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build())?;
    let relays = Relays::new(RelayOptions::default());
    let time = Duration::from_millis(if options.is_quick() { 500 } else { 2_000 });

    let sink = Sink::tcp(&namespace)?;
    let ways = tcp_ways(&namespace, &runtime, &relays, sink.at)?;
    let mut best: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for _ in 0..options.rounds() {
        for (way, rates) in ways.iter().zip(&mut best) {
            rates.push(namespace.run(|| stream(way.to, &sink, time)).with_context(|| way.name)?);
        }
    }
    let mut table = Table::new(&["one TCP stream", "GB/s", "against a bare splice loop"]);
    let bare = ways.iter().position(|way| way.name.starts_with("a bare splice")).unwrap_or(0);
    for (way, rates) in ways.iter().zip(&best) {
        let rate = median(rates);
        table.row([
            way.name.to_owned(),
            format!("{:.2}", rate / 1e9),
            format!("{:.2}", rate / median(&best[bare])),
        ]);
    }

    let udp = Sink::udp(&namespace)?;
    let ways = udp_ways(&namespace, &runtime, &relays, udp.at)?;
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
    for _ in 0..options.rounds() {
        for (way, rates) in ways.iter().zip(&mut rates) {
            rates.push(namespace.run(|| datagrams(way.to, &udp, time)).with_context(|| way.name)?);
        }
    }
    let mut datagrams = Table::new(&["one UDP client", "datagrams/s that arrive", "against none between"]);
    for (way, all) in ways.iter().zip(&rates) {
        let rate = median(all);
        datagrams.row([
            way.name.to_owned(),
            thousands(rate as u64),
            format!("{:.2}", rate / median(&rates[0])),
        ]);
    }
    drop(runtime);
    Ok(format!(
        "## Services in user space\n\n\
         One client sends as fast as it can for {} s through each proxy, in turns; what arrives at the server is counted.\n\
         Medians of {} rounds; datagrams of {DATAGRAM} bytes. A bare splice loop is two threads that do nothing else, for one\n\
         connection. HAProxy is there where it is installed.\n\n{}\n{}",
        time.as_secs_f64(),
        options.rounds(),
        table.markdown(),
        datagrams.markdown()
    ))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A server that counts what it gets.
struct Sink {
    at: SocketAddr,
    count: Arc<AtomicU64>,
    end: Arc<AtomicBool>,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

impl Sink {
    fn tcp(namespace: &Namespace) -> Result<Self> {
        let listener = namespace.run(|| TcpListener::bind("127.0.0.1:0"))?;
        let sink = Self { at: listener.local_addr()?, count: Arc::default(), end: Arc::default() };
        let count = Arc::clone(&sink.count);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let count = Arc::clone(&count);
                thread::spawn(move || {
                    let (mut stream, mut buffer) = (stream, vec![0; CHUNK]);
                    while let Ok(length @ 1..) = stream.read(&mut buffer) {
                        count.fetch_add(length as u64, Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(sink)
    }

    fn udp(namespace: &Namespace) -> Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind("127.0.0.1:0"))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let sink = Self { at: socket.local_addr()?, count: Arc::default(), end: Arc::default() };
        let (count, end) = (Arc::clone(&sink.count), Arc::clone(&sink.end));
        thread::spawn(move || {
            let mut buffer = [0; 2_048];
            while !end.load(Ordering::Relaxed) {
                if socket.recv(&mut buffer).is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(sink)
    }
}

/// Bytes per second that arrive.
fn stream(to: SocketAddr, sink: &Sink, time: Duration) -> Result<f64> {
    let mut client = TcpStream::connect(to)?;
    let chunk = vec![7; CHUNK];
    // Until the windows are open.
    client.write_all(&chunk)?;
    let (start, before) = (Instant::now(), sink.count.load(Ordering::Relaxed));
    while start.elapsed() < time {
        client.write_all(&chunk)?;
    }
    let arrived = sink.count.load(Ordering::Relaxed) - before;
    Ok(arrived as f64 / start.elapsed().as_secs_f64())
}

/// Datagrams per second that arrive.
fn datagrams(to: SocketAddr, sink: &Sink, time: Duration) -> Result<f64> {
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.connect(to)?;
    let datagram = [7; DATAGRAM];
    let (start, before) = (Instant::now(), sink.count.load(Ordering::Relaxed));
    while start.elapsed() < time {
        // Refused: what came before was not wanted, which the count shows.
        let _ = client.send(&datagram);
    }
    let arrived = sink.count.load(Ordering::Relaxed) - before;
    Ok(arrived as f64 / start.elapsed().as_secs_f64())
}

fn frontend(protocol: Protocol, port: u16, server: SocketAddr) -> Frontend {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Frontend::new(ObjectName::new("bench", "sink"), "", protocol, listen, vec![Backend::new(server)])
}

fn tcp_ways(
    namespace: &Namespace,
    runtime: &tokio::runtime::Runtime,
    relays: &Relays,
    server: SocketAddr,
) -> Result<Vec<Way>> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let way = |name, port| Way { name, to: at(port), _process: None };
    let mut ways = vec![Way { name: "none between", to: server, _process: None }];
    spliced(namespace, at(7001), server)?;
    ways.push(way("a bare splice loop", 7001));
    let problems = namespace.run(|| {
        let _inside = runtime.enter();
        relays.set(vec![frontend(Protocol::Tcp, 7002, server)])
    });
    anyhow::ensure!(problems.is_empty(), "{problems:?}");
    ways.push(way("`portolan relay`", 7002));
    let listener = namespace.run(|| TcpListener::bind(at(7003)))?;
    listener.set_nonblocking(true)?;
    runtime.spawn(copied(listener, server));
    ways.push(way("tokio's copy_bidirectional", 7003));
    let socat = ["TCP-LISTEN:7004,fork,reuseaddr,bind=127.0.0.1".to_owned(), format!("TCP:{server}")];
    ways.push(Way { name: "socat", to: at(7004), _process: Some(start(namespace, "socat", &socat)?) });
    if programs::find("haproxy").is_some() {
        let text = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n option splice-auto\n\
             listen sink\n bind 127.0.0.1:7005\n server sink {server}\n"
        );
        let file = tempfile::NamedTempFile::new()?.into_temp_path().keep()?;
        std::fs::write(&file, text)?;
        let words = ["-db".to_owned(), "-f".to_owned(), file.display().to_string()];
        ways.push(Way {
            name: "HAProxy",
            to: at(7005),
            _process: Some(start(namespace, "haproxy", &words)?),
        });
    }
    for way in &ways {
        namespace.run(|| eventually(Duration::from_secs(10), || TcpStream::connect(way.to).is_ok()));
    }
    Ok(ways)
}

fn udp_ways(
    namespace: &Namespace,
    runtime: &tokio::runtime::Runtime,
    relays: &Relays,
    server: SocketAddr,
) -> Result<Vec<Way>> {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let problems = namespace.run(|| {
        let _inside = runtime.enter();
        relays.set(vec![frontend(Protocol::Udp, 7002, server)])
    });
    anyhow::ensure!(problems.is_empty(), "{problems:?}");
    let socat = ["UDP-LISTEN:7004,fork,reuseaddr,bind=127.0.0.1".to_owned(), format!("UDP:{server}")];
    Ok(vec![
        Way { name: "none between", to: server, _process: None },
        Way { name: "`portolan relay`", to: at(7002), _process: None },
        Way { name: "socat", to: at(7004), _process: Some(start(namespace, "socat", &socat)?) },
    ])
}

fn start(namespace: &Namespace, program: &str, words: &[String]) -> Result<Process> {
    let mut command: Command = namespace.command(program);
    let command = command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Process(command.spawn().with_context(|| program.to_owned())?))
}

/// The floor: each connection has two threads, each of which moves what is there from one socket to the other.
fn spliced(namespace: &Namespace, at: SocketAddr, server: SocketAddr) -> Result<()> {
    let listener = namespace.run(|| TcpListener::bind(at))?;
    let name = namespace.path();
    thread::spawn(move || {
        let namespace =
            Namespace::existing(name.file_name().and_then(|name| name.to_str()).unwrap_or_default());
        for client in listener.incoming().flatten() {
            let Ok(backend) = namespace.run(|| TcpStream::connect(server)) else { continue };
            let (Ok(from), Ok(to)) = (client.try_clone(), backend.try_clone()) else { continue };
            thread::spawn(move || one_way(&client, &backend));
            thread::spawn(move || one_way(&to, &from));
        }
    });
    Ok(())
}

fn one_way(from: &TcpStream, to: &TcpStream) -> rustix::io::Result<()> {
    let (out, into) = pipe_with(PipeFlags::CLOEXEC)?;
    let _ = fcntl_setpipe_size(&into, 1 << 20);
    let all = |from: &dyn AsFdDyn, to: &dyn AsFdDyn, most| {
        splice(from.fd(), None, to.fd(), None, most, SpliceFlags::MOVE)
    };
    loop {
        let mut left = all(from, &into, 1 << 20)?;
        if left == 0 {
            let _ = to.shutdown(std::net::Shutdown::Write);
            return Ok(());
        }
        while left > 0 {
            left -= all(&out, to, left)?;
        }
    }
}

/// Sockets and pipes alike.
trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

/// What a proxy on tokio does when nobody thinks of splice.
async fn copied(listener: TcpListener, server: SocketAddr) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((mut client, _)) = listener.accept().await {
        tokio::spawn(async move {
            let Ok(mut backend) = tokio::net::TcpStream::connect(server).await else { return };
            let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
        });
    }
}
