//! A registry on real sockets, a store that can be looked into, targets that behave as told, and HTTP by hand.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use portolan_model::{Instance, Name, State};
use portolan_registry::{
    Registry, RegistryConfig, api,
    store::{Record, Store, StoreError, Stored, Write},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// A store whose contents a test sees, and that can be told to fail.
#[derive(Clone, Default)]
pub struct Disk {
    pub records: Arc<Mutex<BTreeMap<Name, Record>>>,
    pub index: Arc<Mutex<u64>>,
    pub full: Arc<AtomicBool>,
    pub writes: Arc<AtomicUsize>,
    /// Milliseconds that a write takes.
    pub slow: Arc<AtomicU64>,
}

impl Store for Disk {
    fn load_all(&mut self) -> Result<Stored, StoreError> {
        let records = self.records.lock().unwrap().values().cloned().collect();
        Ok(Stored { records, index: *self.index.lock().unwrap() })
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(StoreError::new("the disk is full"));
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(self.slow.load(Ordering::Relaxed)));
        for write in batch {
            match write {
                Write::Put(record) => {
                    let name = record.instance.key.name.clone();
                    self.records.lock().unwrap().insert(name, (**record).clone());
                }
                Write::Remove(name) => drop(self.records.lock().unwrap().remove(name)),
                Write::Index(index) => *self.index.lock().unwrap() = *index,
            }
        }
        Ok(())
    }
}

/// A disk that can be opened once at a time, as a file with a lock.
pub struct Locked {
    pub disk: Disk,
    pub open: Arc<AtomicBool>,
}

impl Store for Locked {
    fn load_all(&mut self) -> Result<Stored, StoreError> {
        assert!(!self.open.swap(true, Ordering::SeqCst), "opened twice");
        self.disk.load_all()
    }

    fn write(&mut self, batch: &[Write]) -> Result<(), StoreError> {
        self.disk.write(batch)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // A file takes a while to be closed.
        std::thread::sleep(Duration::from_millis(50));
        self.open.store(false, Ordering::SeqCst);
    }
}

/// A registry with both of its APIs on loopback ports of their own.
pub struct Running {
    pub registry: Registry,
    pub api: SocketAddr,
    pub tutorial: SocketAddr,
    pub disk: Disk,
    pub shutdown: CancellationToken,
    pub listeners: Vec<JoinHandle<()>>,
}

pub async fn start() -> Running {
    start_with(RegistryConfig::default(), Disk::default()).await
}

pub async fn start_with(config: RegistryConfig, disk: Disk) -> Running {
    let registry = Registry::start(config, Box::new(disk.clone())).await.unwrap();
    let shutdown = CancellationToken::new();
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for router in [api::router(registry.clone()), api::tutorial(registry.clone())] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        addresses.push(listener.local_addr().unwrap());
        listeners.push(tokio::spawn(api::serve(listener, router, shutdown.clone())));
    }
    Running { registry, api: addresses[0], tutorial: addresses[1], disk, shutdown, listeners }
}

impl Running {
    pub async fn call(&self, method: &str, path: &str, body: &str) -> Reply {
        call(self.api, method, path, &[], body).await
    }

    /// Registers a name with one TCP port on loopback, and a check if there is one.
    pub async fn put(&self, name: &str, port: u16, check: Option<&str>) -> Reply {
        let check = check.map_or(String::new(), |check| format!(r#","check":{check}"#));
        let body = format!(r#"{{"ports":[{{"name":"http","port":{port}}}]{check}}}"#);
        self.call("PUT", &format!("/v1/instances/{name}"), &body).await
    }

    pub fn instance(&self, name: &str) -> Option<Instance> {
        self.registry.snapshot().get(name).map(|instance| (**instance).clone())
    }

    pub fn state(&self, name: &str) -> Option<State> {
        self.instance(name).map(|instance| instance.state)
    }

    pub async fn until_state(&self, name: &str, state: State, within: Duration) {
        until(within, || self.state(name) == Some(state), || format!("{name} is {:?}", self.instance(name)))
            .await;
    }
}

/// Waits for a condition, looking each few milliseconds.
pub async fn until(within: Duration, mut condition: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}: {}", otherwise());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A reply, taken apart.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

pub async fn call(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let stream = TcpStream::connect(to).await.unwrap();
    exchange(stream, method, path, headers, body).await
}

pub async fn exchange(
    mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Reply {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: registry\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    );
    // A reply may come before the whole request was taken, and the connection may be closed then.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply).await;
    let reply = String::from_utf8(reply).unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no reply: {reply:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

/// What a target does with a connection.
#[derive(Clone, Debug)]
pub enum Act {
    /// Answers with these bytes and closes.
    Say(String),
    /// Takes the connection and says nothing.
    Hang,
    /// Closes without a word.
    Reset,
}

pub fn says(status: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok"))
}

/// A server that behaves as it was told last, and remembers what it was asked.
#[derive(Clone)]
pub struct Target {
    pub port: u16,
    act: Arc<Mutex<Box<dyn FnMut() -> Act + Send>>>,
    pub asked: Arc<Mutex<Vec<String>>>,
}

impl Target {
    pub async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target =
            Self { port, act: Arc::new(Mutex::new(Box::new(move || act.clone()))), asked: Arc::default() };
        let server = target.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let act = (server.act.lock().unwrap())();
                tokio::spawn(serve(stream, act, Arc::clone(&server.asked)));
            }
        });
        target
    }

    pub fn set(&self, act: impl FnMut() -> Act + Send + 'static) {
        *self.act.lock().unwrap() = Box::new(act);
    }

    pub fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn serve(mut stream: TcpStream, act: Act, asked: Arc<Mutex<Vec<String>>>) {
    if let Act::Reset = act {
        asked.lock().unwrap().push(String::new());
        let _ = stream.set_zero_linger();
        return;
    }
    let mut buffer = vec![0; 4096];
    let read = stream.read(&mut buffer).await.unwrap_or(0);
    asked.lock().unwrap().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
    match act {
        Act::Say(reply) => {
            let _ = stream.write_all(reply.as_bytes()).await;
        }
        _ => tokio::time::sleep(Duration::from_secs(60)).await,
    }
}
