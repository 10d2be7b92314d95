//! One small HTTP exchange with a metadata service: bounded in time and size, no redirects, no proxy.
//!
//! [`crate::metadata`] says what to ask of whom.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header::HeaderName};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

/// A link-local service answers in a millisecond. Off a cloud the address is often a black hole, and a person waits.
const EXCHANGE: Duration = Duration::from_secs(2);

/// An address or a token has some dozens of characters; more is not what was asked for.
const BODY_LIMIT: usize = 4 << 10;

/// Waits before the second and third attempt, when the service is there but busy: both Google and AWS document that
/// it may say 429 or 503 for a moment and ask clients to try again.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Trimmed; bytes that are no UTF-8 are replaced.
    pub(crate) text: String,
}

/// Asks, and asks again when the service says that it is busy. The error says why there was no answer at all.
pub(crate) async fn ask(
    method: Method,
    uri: &Uri,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Answer, String> {
    let mut waits = AGAIN_AFTER.into_iter();
    loop {
        let answer = ask_once(method.clone(), uri, headers).await?;
        let busy = answer.status == StatusCode::TOO_MANY_REQUESTS || answer.status.is_server_error();
        match waits.next() {
            Some(wait) if busy => tokio::time::sleep(wait).await,
            _ => return Ok(answer),
        }
    }
}

async fn ask_once(
    method: Method,
    uri: &Uri,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<Answer, String> {
    let mut request = Request::builder()
        .method(method)
        .uri(uri.clone())
        .body(Empty::<Bytes>::new())
        .map_err(|e| cause(&e))?;
    request.headers_mut().extend(headers.iter().cloned());
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(EXCHANGE));
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let exchange = async {
        let response = client.request(request).await.map_err(|e| cause(&e))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY_LIMIT).collect().await.map_err(|e| cause(&*e))?.to_bytes();
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        Ok(Answer { status: parts.status, headers: parts.headers, text })
    };
    tokio::time::timeout(EXCHANGE, exchange)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", EXCHANGE.as_secs())))
}

/// The innermost cause: hyper's outer errors only say "client error (Connect)".
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
