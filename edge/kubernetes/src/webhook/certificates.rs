//! The webhook's certificates, as whoever starts it sees them; [`super::keeper`] looks after them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use kube::Api;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use super::keeper::Keeper;
use crate::{ApiError, Connection, backoff::Backoff};

/// Where the certificates are kept, and what they are for.
#[derive(Clone, Debug)]
pub struct CertificatesConfig {
    /// The namespace of the Secret.
    pub namespace: String,
    /// The Secret. It may exist without data.
    pub secret: String,
    /// The names and addresses by which API servers call the webhook, such as `portolan-webhook.portolan.svc`.
    pub names: Vec<String>,
    /// The `MutatingWebhookConfiguration`s whose every webhook gets the `caBundle`.
    pub configurations: Vec<String>,
}

impl CertificatesConfig {
    /// For a Service of that name.
    pub fn for_service(namespace: &str, service: &str, secret: &str, configuration: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            // API servers verify the second one.
            names: vec![
                format!("{service}.{namespace}"),
                format!("{service}.{namespace}.svc"),
                format!("{service}.{namespace}.svc.cluster.local"),
            ],
            configurations: vec![configuration.to_owned()],
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// The Secret.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Making one.
    #[error("cannot make a certificate for {names}: {source}")]
    Make {
        /// What it should be for.
        names: String,
        /// The cause.
        source: rcgen::Error,
    },
    /// What the Secret holds.
    #[error("the certificate in the Secret {secret} cannot be used: {message}")]
    Unusable {
        /// The Secret.
        secret: String,
        /// The cause.
        message: String,
    },
}

/// The certificate to show, always the present one. Clones share it.
#[derive(Clone, Debug)]
pub struct Certificates(Arc<Shown>);

#[derive(Debug)]
pub(super) struct Shown(ArcSwap<CertifiedKey>);

impl Shown {
    /// Shows this one from the next handshake on.
    pub(super) fn show(&self, certificate: CertifiedKey) {
        self.0.store(Arc::new(certificate));
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificates {
    /// Reads the certificate or makes one, tried again while the API server is away, and keeps it good until `stop`.
    pub async fn start(
        connection: &Connection,
        config: CertificatesConfig,
        stop: CancellationToken,
    ) -> Result<Self, CertificatesError> {
        let secrets = Api::namespaced(connection.client(), &config.namespace);
        let keeper = Keeper { connection: connection.clone(), secrets, config };
        let mut backoff = Backoff::new();
        let paper = loop {
            match keeper.paper().await {
                Ok(paper) => break paper,
                Err(CertificatesError::Api(error)) if error.is_retryable() || error.is_conflict() => {
                    tracing::warn!(%error, "the webhook waits for its certificate");
                    tokio::time::sleep(backoff.next()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let shown = Arc::new(Shown(ArcSwap::from_pointee(keeper.usable(&paper)?)));
        let work = keeper.work(shown.clone(), paper, stop.clone());
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
        Ok(Self(shown))
    }

    /// TLS as the server side.
    pub(super) fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(self.0.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}
