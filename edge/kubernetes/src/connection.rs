//! The way to the API server: from inside of the cluster, or by a kubeconfig file.
//!
//! One connection serves all of a process. Every call through it has a time limit ([`Connection::limited`]); only
//! watches are without one: their answer must begin in time ([`Answered`]), and they are renewed every two minutes.

use std::{fmt, path::PathBuf, time::Duration};

use kube::{
    Client,
    client::ClientBuilder,
    config::{Config, KubeConfigOptions, Kubeconfig},
};

use crate::{ApiError, answered::Answered};

/// How long one call may take, unless the caller has less time.
pub(crate) const CALL: Duration = Duration::from_secs(10);
/// How long a TCP and TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long writing a request may take.
const WRITE: Duration = Duration::from_secs(10);

/// Where the API server is and who asks.
#[derive(Clone, Debug, Default)]
pub struct ConnectionConfig {
    /// The kubeconfig file; `None` is the service account of the Pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig; `None` is its current one.
    pub context: Option<String>,
    /// The part of Portolan that asks, such as `agent`: it is in the API server's logs.
    pub component: String,
}

/// Why there is no connection to the API server.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file.
    #[error("cannot use the kubeconfig {path}: {message}", path = path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// Not in a Pod, or in one without a service account's token.
    #[error("this is no Pod with a service account: {message}; give a kubeconfig file")]
    NotInCluster {
        /// What is missing.
        message: String,
    },
    /// Certificates, keys or addresses that cannot be used.
    #[error("cannot set up the connection to {server}: {message}")]
    Client {
        /// The API server's address.
        server: String,
        /// The cause.
        message: String,
    },
}

/// A client of the API server. Clones share it.
#[derive(Clone)]
pub struct Connection {
    client: Client,
    answered: Answered,
    server: String,
    namespace: String,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Connection {
    /// Reads the configuration. Does not ask the API server yet: it may be away while an agent starts.
    pub async fn open(wanted: &ConnectionConfig) -> Result<Self, ConnectError> {
        Self::open_at(wanted, None).await
    }

    /// The same, with the address of the API server in place of the one in the configuration: a service proxy cannot ask
    /// at an address that it has to serve itself. Without a kubeconfig and outside of a Pod nobody says who asks then.
    pub async fn open_at(wanted: &ConnectionConfig, server: Option<&str>) -> Result<Self, ConnectError> {
        let wrong =
            |server: &str, message: String| ConnectError::Client { server: server.to_owned(), message };
        let server: Option<hyper::Uri> = match server {
            Some(text) => Some(text.parse().map_err(|error| wrong(text, format!("{error}")))?),
            None => None,
        };
        let mut config = match &wanted.kubeconfig {
            None if server.is_some() => {
                Config::incluster().unwrap_or_else(|_| Config::new(server.clone().unwrap_or_default()))
            }
            Some(path) => {
                let wrong = |message: String| ConnectError::Kubeconfig { path: path.clone(), message };
                let text = tokio::fs::read_to_string(path).await.map_err(|error| wrong(error.to_string()))?;
                let mut kubeconfig =
                    Kubeconfig::from_yaml(&text).map_err(|error| wrong(error.to_string()))?;
                anchor(&mut kubeconfig, path);
                let options =
                    KubeConfigOptions { context: wanted.context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(kubeconfig, &options)
                    .await
                    .map_err(|error| wrong(error.to_string()))?
            }
            None => Config::incluster()
                .map_err(|error| ConnectError::NotInCluster { message: error.to_string() })?,
        };
        if let Some(server) = server {
            config.cluster_url = server;
        }
        config.connect_timeout = Some(CONNECT);
        config.write_timeout = Some(WRITE);
        // Who calls knows better whether and when to try again.
        config.default_retry = false;
        let agent = format!("portolan/{} ({})", env!("CARGO_PKG_VERSION"), wanted.component);
        if let Ok(value) = agent.parse() {
            config.headers.push((hyper::header::USER_AGENT, value));
        }
        let (server, namespace) = (config.cluster_url.to_string(), config.default_namespace.clone());
        let answered = Answered::default();
        let builder = ClientBuilder::try_from(config)
            .map_err(|error| ConnectError::Client { server: server.clone(), message: error.to_string() })?;
        let client = builder.with_layer(&answered).build();
        Ok(Self { client, answered, server, namespace })
    }

    /// The API server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The namespace of the service account or of the kubeconfig's context.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks whether the API server answers.
    pub async fn ready(&self) -> Result<(), ApiError> {
        let asked = self.client.apiserver_version();
        self.limited("read its version", CALL, asked).await.map(drop)
    }

    /// When the API server answered the last time.
    pub(crate) fn answered(&self) -> &Answered {
        &self.answered
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for `call`, but no longer than `limit`.
    pub(crate) async fn limited<T>(
        &self,
        what: impl Into<String>,
        limit: Duration,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(ApiError::new(what, &error)),
            Err(_) => Err(ApiError::TimedOut { what: what.into(), after: limit }),
        }
    }
}

/// File names in a kubeconfig are relative to its folder.
/// <https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#file-references>
fn anchor(kubeconfig: &mut Kubeconfig, path: &std::path::Path) {
    let folder = path.parent().unwrap_or(path);
    let anchored = |file: &mut Option<String>| {
        if let Some(file) = file {
            *file = folder.join(&*file).to_string_lossy().into_owned();
        }
    };
    for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        anchored(&mut cluster.certificate_authority);
    }
    for user in kubeconfig.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
        anchored(&mut user.client_certificate);
        anchored(&mut user.client_key);
        anchored(&mut user.token_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_missing_is_named() {
        let config = ConnectionConfig {
            kubeconfig: Some("/nonexistent/config".into()),
            ..ConnectionConfig::default()
        };
        let error = Connection::open(&config).await.unwrap_err();
        assert!(error.to_string().starts_with("cannot use the kubeconfig /nonexistent/config: "), "{error}");
    }
}
