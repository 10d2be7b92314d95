//! One look at an instance: a connection of its own, within its time, believing nothing.
//!
//! No connection is kept for the next look: what is to be known is whether clients who come now get in. No redirect
//! is followed: whoever registers must not be able to make the registry ask somebody else.

use std::{fmt::Write, io::ErrorKind, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use portolan_model::CheckKind;
use tokio::{net::TcpStream, time::timeout};

use crate::table::Target;

/// What is kept of what an instance says, in bytes.
const OUTPUT: usize = 4096;
/// The size of a reply's head that is read, in bytes; hyper wants 8 KiB at least.
const HEAD: usize = 8192;

/// How well it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// It works.
    Pass,
    /// It works and says that it is near its limit (HTTP 429).
    Warn,
    /// It does not.
    Fail,
}

/// What a look saw.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) level: Level,
    /// For people, [`OUTPUT`] bytes at most.
    pub(crate) output: String,
    timed_out: bool,
    /// Whether the connection was refused, as by a machine whose program does not listen yet.
    pub(crate) refused: bool,
}

/// Why nothing was seen.
enum Blind {
    /// The connection was refused.
    Refused(String),
    /// Anything else.
    Other(String),
}

impl From<String> for Blind {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl Sight {
    /// For the metric.
    pub(crate) const fn word(&self) -> &'static str {
        match self.level {
            _ if self.timed_out => "timeout",
            Level::Pass => "pass",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// Looks once. Takes the check's time-out at most.
pub(crate) async fn look(target: &Target) -> Sight {
    let Target { address, check, .. } = target;
    let (what, looking) = match &check.kind {
        CheckKind::Tcp => (format!("tcp {address}"), timeout(check.timeout, tcp(*address)).await),
        CheckKind::Http { path } => {
            (format!("GET http://{address}{path}"), timeout(check.timeout, http(*address, path)).await)
        }
    };
    let timed_out = looking.is_err();
    let refused = matches!(looking, Ok(Err(Blind::Refused(_))));
    let (level, said) = match looking {
        Ok(Ok(seen)) => seen,
        Ok(Err(Blind::Refused(reason) | Blind::Other(reason))) => (Level::Fail, reason),
        Err(_) => (Level::Fail, no_answer(check.timeout)),
    };
    Sight { level, output: cut(format!("{what}: {said}")), timed_out, refused }
}

fn no_answer(within: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(within))
}

async fn tcp(address: SocketAddr) -> Result<(Level, String), Blind> {
    connect(address).await.map(|_| (Level::Pass, "connected".to_owned()))
}

async fn connect(address: SocketAddr) -> Result<TcpStream, Blind> {
    TcpStream::connect(address).await.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused => Blind::Refused(error.to_string()),
        _ => Blind::Other(error.to_string()),
    })
}

async fn http(address: SocketAddr, path: &str) -> Result<(Level, String), Blind> {
    let stream = connect(address).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|e| format!("no HTTP: {e}"))?;
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, concat!("portolan/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .header(header::ACCEPT, "text/plain, text/*, */*")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| format!("the path cannot be asked for: {e}"))?;
    let exchange = async {
        let response =
            sender.send_request(request).await.map_err(|e| format!("no HTTP reply: {}", root(&e)))?;
        let status = response.status();
        let level = match status {
            StatusCode::TOO_MANY_REQUESTS => Level::Warn,
            status if status.is_success() => Level::Pass,
            _ => Level::Fail,
        };
        let mut said = status.to_string();
        if status.is_redirection() {
            said.push_str(", and redirects are not followed");
        }
        let mut body = response.into_body();
        let mut seen = Vec::new();
        while seen.len() < OUTPUT
            && let Some(Ok(frame)) = body.frame().await
        {
            seen.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
        }
        // No `?`: the status has been said, and a body that breaks off does not take it back.
        let text = String::from_utf8_lossy(&seen[..seen.len().min(OUTPUT)]);
        if !text.trim().is_empty() {
            let _ = write!(said, "\n{}", text.trim());
        }
        Ok::<_, Blind>((level, said))
    };
    // The connection is driven beside the exchange and dropped with it: nothing of a look outlives the look.
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        result = &mut exchange => result,
        _ = connection => exchange.await,
    }
}

/// The innermost cause, which is the one that tells something.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// At most [`OUTPUT`] bytes, and nothing that moves the cursor of a terminal.
fn cut(text: String) -> String {
    let mut clean: String = text.chars().filter(|c| !c.is_control() || *c == '\n' || *c == '\t').collect();
    let end = (0..=OUTPUT.min(clean.len())).rev().find(|&at| clean.is_char_boundary(at)).unwrap_or(0);
    clean.truncate(end);
    clean
}
