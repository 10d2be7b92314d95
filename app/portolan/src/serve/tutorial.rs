//! The tutorial's register API: `POST /register` with three fields, answered by 200 and nothing.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Serialize;

/// How long one question may take. The original has no limit, so a hung registry stops its clients for ever.
const TIMEOUT: Duration = Duration::from_secs(5);
/// More is not read of any answer.
const LIMIT: usize = 64 * 1024;

/// What a registry at an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Portolan's API: renewals, health checks, deregistration.
    Portolan,
    /// The tutorial's: one path.
    Tutorial,
}

/// The body, with the original's names and order of fields.
#[derive(Serialize)]
struct Backend<'a> {
    #[serde(rename = "Name")]
    name: &'a str,
    #[serde(rename = "Address")]
    address: &'a str,
    #[serde(rename = "Tags")]
    tags: Option<&'a [String]>,
}

/// Asks which API answers at `authority` (`HOST:PORT`). An error when nobody does.
pub(crate) async fn kind(authority: &str) -> anyhow::Result<Kind> {
    let (_, json, _) = ask(Method::GET, authority, "/v1/instances?name=portolan", Vec::new()).await?;
    // The original's page answers every path with 200, so the status tells nothing; it never answers in JSON.
    Ok(if json { Kind::Portolan } else { Kind::Tutorial })
}

/// Registers once.
pub(crate) async fn register(authority: &str, name: &str, address: &str) -> anyhow::Result<()> {
    let (status, _, answer) = ask(Method::POST, authority, "/register", body(name, address)?).await?;
    match status {
        StatusCode::OK if answer.is_empty() => Ok(()),
        StatusCode::OK => {
            bail!("http://{authority} answers with a page: it is the registry's page, not its register API")
        }
        StatusCode::NOT_FOUND => bail!("http://{authority} has no /register"),
        status => bail!("http://{authority}/register refused: {status}"),
    }
}

/// As Go's `json.Encoder` writes it: with a line end.
fn body(name: &str, address: &str) -> anyhow::Result<Vec<u8>> {
    let mut body = serde_json::to_vec(&Backend { name, address, tags: None })?;
    body.push(b'\n');
    Ok(body)
}

/// Status, whether it is JSON, and the body.
async fn ask(
    method: Method,
    authority: &str,
    path: &str,
    body: Vec<u8>,
) -> anyhow::Result<(StatusCode, bool, Vec<u8>)> {
    let url = format!("http://{authority}{path}");
    let request = Request::builder()
        .method(method)
        .uri(&url)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(bytes::Bytes::from(body)))
        .with_context(|| format!("{url} is no address of a registry"))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.request(request).await?;
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let json = kind.is_some_and(|kind| kind.contains("json"));
        let body =
            Limited::new(response.into_body(), LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?;
        anyhow::Ok((status, json, body.to_bytes().to_vec()))
    };
    match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(answer) => answer.with_context(|| format!("cannot ask {url}")),
        Err(_) => bail!("{url} did not answer within {}", humantime::format_duration(TIMEOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_the_originals_byte_for_byte() {
        assert_eq!(
            body("n", "10.0.0.1:4000").unwrap(),
            b"{\"Name\":\"n\",\"Address\":\"10.0.0.1:4000\",\"Tags\":null}\n"
        );
    }
}
