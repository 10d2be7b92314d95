//! A registry that answers as it is told and remembers what it was asked. The real one is tested with the real
//! client in `tests/`, over the whole program; here it must be able to misbehave.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use portolan_client::{Client, Endpoint};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

type Answer = dyn FnMut(&str) -> String + Send;

pub struct Script {
    pub address: SocketAddr,
    /// The request lines, in order.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Whole requests.
    pub whole: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<Box<Answer>>>,
    task: JoinHandle<()>,
}

/// A reply with this status line and JSON.
pub fn reply(status: &str, json: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    )
}

pub const REGISTERED: &str = r#"{"index":7,"incarnation":"one","ttl":"1s","state":"passing"}"#;

impl Script {
    /// `answer` gets the request line and returns all bytes of the reply; nothing at all means silence.
    pub async fn start(answer: impl FnMut(&str) -> String + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    pub async fn at(address: SocketAddr, answer: impl FnMut(&str) -> String + Send + 'static) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener: TcpListener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Mutex<Box<Answer>>> = Arc::new(Mutex::new(Box::new(answer)));
        let (asked, whole): (Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>) = Default::default();
        let (log, bodies, script) = (Arc::clone(&asked), Arc::clone(&whole), Arc::clone(&answer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (log, bodies, script) = (Arc::clone(&log), Arc::clone(&bodies), Arc::clone(&script));
                tokio::spawn(async move {
                    let (stream, request) = read(stream).await;
                    let line = request.lines().next().unwrap_or_default().replace(" HTTP/1.1", "");
                    log.lock().unwrap().push(line.clone());
                    bodies.lock().unwrap().push(request);
                    let reply = (script.lock().unwrap())(&line);
                    write(stream, &reply).await;
                });
            }
        });
        Self { address, asked, whole, answer, task }
    }

    pub fn client(&self) -> Client {
        let endpoint: Endpoint = self.address.to_string().parse().unwrap();
        Client::new(endpoint, Some("s3cret".into())).with_timeout(Duration::from_millis(500))
    }

    pub fn set(&self, answer: impl FnMut(&str) -> String + Send + 'static) {
        *self.answer.lock().unwrap() = Box::new(answer);
    }

    pub fn count(&self, beginning: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| line.starts_with(beginning)).count()
    }

    /// Stops to listen, as a registry that is restarted.
    pub async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

async fn read(mut stream: TcpStream) -> (TcpStream, String) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return (stream, text);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return (stream, text),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

async fn write(mut stream: TcpStream, reply: &str) {
    let _ = stream.write_all(reply.as_bytes()).await;
    if reply.is_empty() || reply.contains("event-stream\r\n") {
        // Silence, or a stream that goes on: until the client has had enough.
        let mut buffer = [0; 16];
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut buffer)).await;
    }
}

pub async fn until(within: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < within, "not within {within:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
