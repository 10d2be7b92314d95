//! One request over one connection, within a time.
//!
//! A connection for each request: renewals are seconds apart, and a connection kept in between would break at the
//! registry's restart and have to be told apart from a request that failed.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, header, uri::PathAndQuery};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::AbortHandle,
};

use crate::{ClientError, Endpoint};

/// A reply and the task that drives its connection.
pub(crate) struct Reply {
    pub(crate) response: Response<Incoming>,
    pub(crate) connection: Connection,
}

/// Ends the connection's task when dropped.
pub(crate) struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is asked.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    /// From `/v1` on, with the query.
    pub(crate) path: &'a str,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) accept: &'static str,
    pub(crate) token: Option<&'a str>,
}

/// Connects, asks, and returns when the head of the reply is there. The caller limits the time.
pub(crate) async fn send(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Reply, ClientError> {
    let request = request(endpoint, ask)?;
    match endpoint {
        Endpoint::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(|e| connect_error(endpoint, e))?;
            exchange(endpoint, stream, request).await
        }
        Endpoint::Http(uri) => {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(80);
            let stream = TcpStream::connect((host, port)).await.map_err(|e| connect_error(endpoint, e))?;
            exchange(endpoint, stream, request).await
        }
    }
}

fn request(endpoint: &Endpoint, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, ClientError> {
    let wrong = |reason: String| ClientError::Request { path: ask.path.to_owned(), reason };
    let (host, prefix) = match endpoint {
        Endpoint::Http(uri) => {
            (uri.authority().map_or("localhost", |a| a.as_str()), uri.path().trim_end_matches('/'))
        }
        Endpoint::Unix(_) => ("localhost", ""),
    };
    let target: PathAndQuery =
        format!("{prefix}{}", ask.path).parse().map_err(|e: http::uri::InvalidUri| wrong(e.to_string()))?;
    let mut request = Request::builder()
        .method(ask.method)
        .uri(target.as_str())
        .header(header::HOST, host)
        .header(header::USER_AGENT, concat!("portolan/", env!("CARGO_PKG_VERSION")))
        .header(header::ACCEPT, ask.accept);
    if let Some(token) = ask.token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if ask.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Full::new(Bytes::from(ask.body.unwrap_or_default())))
        .map_err(|e| ClientError::Request { path: ask.path.to_owned(), reason: e.to_string() })
}

async fn exchange(
    endpoint: &Endpoint,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Reply, ClientError> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(endpoint, &e))?;
    let task = tokio::spawn(async move {
        // What breaks here is told by the response or its body.
        let _ = connection.await;
    });
    let connection = Connection(task.abort_handle());
    let response = sender.send_request(request).await.map_err(|e| broken(endpoint, &e))?;
    Ok(Reply { response, connection })
}

/// Limits the time of `work`.
pub(crate) async fn within<T>(
    endpoint: &Endpoint,
    after: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(after, pin!(work))
        .await
        .unwrap_or_else(|_| Err(ClientError::Timeout { endpoint: endpoint.to_string(), after }))
}

pub(crate) fn broken(endpoint: &Endpoint, error: &dyn std::error::Error) -> ClientError {
    let mut reason = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        reason = format!("{reason}: {error}");
        source = error.source();
    }
    ClientError::Broken { endpoint: endpoint.to_string(), reason }
}

fn connect_error(endpoint: &Endpoint, source: io::Error) -> ClientError {
    let endpoint = endpoint.to_string();
    match source.kind() {
        // A socket file that is missing, or that nobody listens on any more.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
            ClientError::NobodyThere { endpoint, source }
        }
        _ => ClientError::Connect { endpoint, source },
    }
}
