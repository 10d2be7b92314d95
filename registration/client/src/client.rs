//! The registry's API as methods.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use portolan_model::{Filter, Instance, InstanceKey, Listing, Name, Registered, Registration};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    ClientError, Endpoint, Watch,
    transport::{self, Ask, Reply},
};

/// The largest reply that is read, in bytes: a list of 100,000 instances fits.
const LARGEST: usize = 128 << 20;

/// Talks to one registry. Cheap to clone, keeps no connection.
#[derive(Clone)]
pub struct Client {
    endpoint: Endpoint,
    token: Option<String>,
    timeout: Duration,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl Client {
    /// A client of this registry. The token is needed to write from another machine; each request may take 5 s.
    pub const fn new(endpoint: Endpoint, token: Option<String>) -> Self {
        Self { endpoint, token, timeout: Duration::from_secs(5) }
    }

    /// The same with another limit for each request, from the connection to the last byte.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Where it talks to.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Registers an instance, or says anew what it is. See [`crate::Keeper`] for what should follow.
    pub async fn register(&self, registration: &Registration) -> Result<Registered, ClientError> {
        let path = format!("/v1/instances/{}", registration.name);
        let (status, body) = self.exchange(Method::PUT, &path, Some(registration)).await?;
        let registered: Registered = self.parse(status, &body)?;
        Ok(Registered { created: status == StatusCode::CREATED, ..registered })
    }

    /// Prolongs a lease. See [`ClientError::is_not_found`] and [`ClientError::is_replaced`].
    pub async fn renew(&self, key: &InstanceKey) -> Result<(), ClientError> {
        let incarnation = encode(key.incarnation.as_str());
        self.request_empty(
            Method::POST,
            &format!("/v1/instances/{}/renew?incarnation={incarnation}", key.name),
        )
        .await
    }

    /// Takes an instance out of the catalog.
    pub async fn leave(&self, key: &InstanceKey) -> Result<(), ClientError> {
        let incarnation = encode(key.incarnation.as_str());
        self.request_empty(Method::DELETE, &format!("/v1/instances/{}?incarnation={incarnation}", key.name))
            .await
    }

    /// The instances that match.
    pub async fn list(&self, filter: &Filter) -> Result<Listing, ClientError> {
        self.request_json(Method::GET, &format!("/v1/instances{}", query(filter, &[])), None::<&()>).await
    }

    /// One instance.
    pub async fn get(&self, name: &Name) -> Result<Instance, ClientError> {
        self.request_json(Method::GET, &format!("/v1/instances/{name}"), None::<&()>).await
    }

    /// What happens to the instances that match, from now on: first all of them, then each change.
    pub async fn watch(&self, filter: &Filter) -> Result<Watch, ClientError> {
        Watch::start(self.clone(), filter.clone()).await
    }

    /// Any request of the API whose reply is JSON: `path` from `/v1` on, with its query.
    pub async fn request_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<T, ClientError> {
        let (status, body) = self.exchange(method, path, body).await?;
        self.parse(status, &body)
    }

    /// Any request of the API whose reply has no body (204).
    pub async fn request_empty(&self, method: Method, path: &str) -> Result<(), ClientError> {
        let (status, _) = self.exchange(method, path, None::<&()>).await?;
        if status == StatusCode::NO_CONTENT {
            return Ok(());
        }
        // Something that answers 200 to everything must not pass for a registry that has renewed a lease.
        Err(self.strange(format!("it answers with HTTP {} where 204 is due", status.as_u16())))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let body = body
            .map(serde_json::to_vec)
            .transpose()
            .map_err(|e| ClientError::Request { path: path.to_owned(), reason: e.to_string() })?;
        let work = async {
            let Reply { response, connection } = self.send(method, path, body, "application/json").await?;
            let (head, body) = response.into_parts();
            let body = self.read(body).await?;
            drop(connection);
            Ok((head.status, body))
        };
        let (status, body) = transport::within(&self.endpoint, self.timeout, work).await?;
        if status.is_success() { Ok((status, body)) } else { Err(self.refused(status, &body)) }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        accept: &'static str,
    ) -> Result<Reply, ClientError> {
        let token = self.token.as_deref();
        transport::send(&self.endpoint, Ask { method, path, body, accept, token }).await
    }

    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) async fn read(&self, mut body: hyper::body::Incoming) -> Result<Bytes, ClientError> {
        let mut all = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| transport::broken(&self.endpoint, &e))?;
            if let Some(data) = frame.data_ref() {
                if all.len() + data.len() > LARGEST {
                    return Err(self.strange(format!("its reply is larger than {LARGEST} bytes")));
                }
                all.extend_from_slice(data);
            }
        }
        Ok(all.freeze())
    }

    pub(crate) fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        #[derive(serde::Deserialize)]
        struct Refusal {
            error: String,
        }
        let message = serde_json::from_slice(body).map_or_else(
            |_| status.canonical_reason().unwrap_or("no reason given").to_owned(),
            |refusal: Refusal| refusal.error,
        );
        ClientError::Refused { endpoint: self.endpoint.to_string(), status, message }
    }

    pub(crate) fn strange(&self, reason: String) -> ClientError {
        ClientError::Strange { endpoint: self.endpoint.to_string(), reason }
    }

    fn parse<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(body).map_err(|e| {
            self.strange(format!("its reply (HTTP {}) is not what is due: {e}", status.as_u16()))
        })
    }
}

/// The query of a filter and of further pairs, with its question mark if there is anything to ask.
pub(crate) fn query(filter: &Filter, more: &[(&'static str, String)]) -> String {
    let pairs = filter.to_pairs().into_iter().chain(more.iter().cloned());
    let pairs: Vec<_> = pairs.map(|(key, value)| format!("{key}={}", encode(&value))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Percent-encoding of everything but the unreserved characters of RFC 3986 section 2.3.
fn encode(text: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_becomes_a_query_that_no_server_misreads() {
        let mut filter = Filter { service: Some("web".parse().unwrap()), ..Filter::default() };
        filter.labels.insert("tier".into(), "a&b=c d,é".into());
        assert_eq!(
            query(&filter, &[("index", "7".into())]),
            "?service=web&label=tier%3Da%26b%3Dc%20d%5C%2C%C3%A9&index=7"
        );
        assert_eq!(query(&Filter::default(), &[]), "");
    }
}
