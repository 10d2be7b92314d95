//! The answers: `/healthz`, and the page for everything else, as the tutorial's server does it.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{
    about::About,
    access_log::{Log, rfc1123},
    page,
};

struct Server {
    about: Arc<About>,
    log: Log,
}

/// All paths and methods.
pub(crate) fn app(about: Arc<About>, log: Log) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(Server { about, log }))
}

async fn answer(
    State(server): State<Arc<Server>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let client = SocketAddr::new(client.ip().to_canonical(), client.port());
    server.log.line(log_line(client, SystemTime::now(), &request));
    match (request.method(), request.uri().path()) {
        (_, "/healthz") => match server.about.is_healthy() {
            true => StatusCode::OK.into_response(),
            false => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
        (&Method::POST, "/unhealthy") => told(client, &request, || server.about.turn_unhealthy()),
        (&Method::POST, "/healthy") => told(client, &request, || server.about.turn_healthy()),
        _ => html(page::render(&server.about)),
    }
}

/// Only this machine may change the health, and no web page that a browser on it happens to show: those send `Origin`.
fn told(client: SocketAddr, request: &Request, change: impl FnOnce()) -> Response {
    if !client.ip().is_loopback() || request.headers().contains_key(header::ORIGIN) {
        let why = "the health is changed from the machine itself only: send this to a loopback address\n";
        return (StatusCode::FORBIDDEN, why).into_response();
    }
    change();
    StatusCode::OK.into_response()
}

fn html(page: String) -> Response {
    let mut response = Response::new(Body::from(page));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Nothing is loaded from anywhere; the style is in the page.
    let policy = HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

/// `RemoteAddr - - [RFC1123 date] "GET /healthz HTTP/1.1" UA`
fn log_line(client: SocketAddr, now: SystemTime, request: &Request) -> String {
    let agent = request.headers().get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    // Header values may hold tabs and bytes above ASCII; a log line holds neither, nor another line.
    let agent = String::from_utf8_lossy(agent).escape_debug().to_string();
    format!(
        "{client} - - [{}] \"{} {} {:?}\" {agent}",
        rfc1123(now),
        request.method(),
        request.uri(),
        request.version()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_the_tutorials() {
        let request =
            Request::builder().uri("/healthz").header("user-agent", "Go-http-client/1.1").body(Body::empty());
        let line = log_line("192.0.2.1:4000".parse().unwrap(), SystemTime::UNIX_EPOCH, &request.unwrap());
        assert_eq!(
            line,
            "192.0.2.1:4000 - - [Thu, 01 Jan 1970 00:00:00 UTC] \"GET /healthz HTTP/1.1\" Go-http-client/1.1"
        );
    }

    #[test]
    fn a_client_cannot_write_lines_of_its_own() {
        let agent = HeaderValue::from_bytes(b"a\tb\x85\xff").unwrap();
        let request = Request::builder().uri("/").header("user-agent", agent).body(Body::empty());
        let line = log_line("[::1]:1".parse().unwrap(), SystemTime::UNIX_EPOCH, &request.unwrap());
        assert!(line.ends_with("a\\tb\u{fffd}\u{fffd}") && !line.contains('\t'), "{line}");
    }
}
