//! Who keeps the certificates: a Secret that all replicas share, and the `caBundle` of the webhook's configuration.
//!
//! Each replica looks at both, at changes and every minute: whoever finds a Secret without a good certificate writes
//! one, and of two that do so at once the API server lets one win (`resourceVersion`). A new certificate is shown only
//! some time after its authority was written into the configuration: API servers learn of that by a watch.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::paper::Paper;
use crate::{
    ApiError, Connection,
    backoff::Backoff,
    connection::CALL,
    mirror::{Mirror, ObjectKey, Wanted},
};

const AUTHORITIES: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const RENEW: &str = "renew";
const NAMES: &str = "names";

/// How often everything is looked at without a reason.
const LOOK: Duration = Duration::from_secs(60);
/// How long API servers may take to learn of a new authority.
const LEARN: Duration = Duration::from_secs(5);

/// The `caBundle` of each webhook of a configuration.
type Bundles = BTreeMap<String, Vec<u8>>;

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
struct Shown(ArcSwap<CertifiedKey>);

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

struct Keeper {
    connection: Connection,
    secrets: Api<Secret>,
    config: CertificatesConfig,
}

impl Keeper {
    async fn work(self, shown: Arc<Shown>, mut current: Paper, stop: CancellationToken) {
        let changed = Arc::new(tokio::sync::Notify::new());
        let configurations: Vec<_> =
            self.config.configurations.iter().map(|name| self.watch(name, &changed, &stop)).collect();
        let mut backoff = Backoff::new();
        loop {
            let wait = match self.look(&configurations, &shown, &mut current).await {
                Ok(()) => {
                    backoff.reset();
                    LOOK.mul_f64(0.8 + 0.4 * rand::random::<f64>())
                }
                Err(error) => {
                    tracing::warn!(%error, "the webhook's certificate could not be looked after");
                    backoff.next()
                }
            };
            tokio::select! {
                () = changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn watch(
        &self,
        name: &str,
        changed: &Arc<tokio::sync::Notify>,
        stop: &CancellationToken,
    ) -> (String, Mirror<Bundles>) {
        let wanted =
            Wanted::<MutatingWebhookConfiguration>::new(&self.connection, "MutatingWebhookConfigurations");
        let changed = changed.clone();
        let mirror = Mirror::start(
            wanted.fields(&format!("metadata.name={name}")),
            |configuration: MutatingWebhookConfiguration| {
                let webhooks = configuration.webhooks.unwrap_or_default().into_iter();
                let bundle = |bundle: Option<ByteString>| bundle.unwrap_or_default().0;
                Some(
                    webhooks.map(|webhook| (webhook.name, bundle(webhook.client_config.ca_bundle))).collect(),
                )
            },
            move |_| changed.notify_one(),
            stop.clone(),
        );
        (name.to_owned(), mirror)
    }

    async fn look(
        &self,
        configurations: &[(String, Mirror<Bundles>)],
        shown: &Shown,
        current: &mut Paper,
    ) -> Result<(), CertificatesError> {
        let paper = self.paper().await?;
        for (name, mirror) in configurations {
            let Some(bundles) = mirror.get(&ObjectKey::new("", name)) else { continue };
            let other = |bundle: &Vec<u8>| bundle != paper.authorities.as_bytes();
            let others: Vec<_> =
                bundles.iter().filter(|(_, bundle)| other(bundle)).map(|(name, _)| name).collect();
            if !others.is_empty() {
                self.write_bundle(name, &others, &paper).await?;
            }
        }
        if paper != *current {
            let usable = self.usable(&paper)?;
            tokio::time::sleep(LEARN).await;
            shown.0.store(Arc::new(usable));
            tracing::info!(names = paper.names, "the webhook shows a new certificate");
            *current = paper;
        }
        Ok(())
    }

    async fn write_bundle(&self, name: &str, webhooks: &[&String], paper: &Paper) -> Result<(), ApiError> {
        let api = Api::<MutatingWebhookConfiguration>::all(self.connection.client());
        let bundle = ByteString(paper.authorities.clone().into_bytes());
        let webhooks: Vec<Value> =
            webhooks.iter().map(|name| json!({"name": name, "clientConfig": {"caBundle": bundle}})).collect();
        // Strategic: webhooks are merged by their names.
        let (parameters, patch) = (PatchParams::default(), Patch::Strategic(json!({ "webhooks": webhooks })));
        let call = api.patch(name, &parameters, &patch);
        self.connection.limited(format!("patch MutatingWebhookConfiguration {name}"), CALL, call).await?;
        tracing::info!(configuration = name, "API servers know the webhook's authority");
        Ok(())
    }

    /// What the Secret holds; when that is not good, a new certificate that it holds from now on.
    async fn paper(&self) -> Result<Paper, CertificatesError> {
        let (what, config) =
            (format!("Secret {}/{}", self.config.namespace, self.config.secret), &self.config);
        let get = self
            .connection
            .limited(format!("get {what}"), CALL, self.secrets.get_opt(&config.secret))
            .await?;
        let now = SystemTime::now();
        let found = get.as_ref().and_then(read);
        if let Some(paper) = &found
            && paper.is_good(&config.names, now)
            && self.usable(paper).is_ok()
        {
            return Ok(paper.clone());
        }
        let before = found.as_ref().map_or("", |paper| &paper.authorities);
        let paper = Paper::new(&config.names, before, now)
            .map_err(|source| CertificatesError::Make { names: config.names.join(", "), source })?;
        let parameters = PostParams::default();
        match get {
            Some(mut secret) => {
                secret.data.get_or_insert_default().extend(write(&paper));
                let call = self.secrets.replace(&config.secret, &parameters, &secret);
                self.connection.limited(format!("update {what}"), CALL, call).await?;
            }
            None => {
                let metadata = ObjectMeta { name: Some(config.secret.clone()), ..ObjectMeta::default() };
                let secret = Secret { metadata, data: Some(write(&paper)), ..Secret::default() };
                let call = self.secrets.create(&parameters, &secret);
                self.connection.limited(format!("create {what}"), CALL, call).await?;
            }
        }
        tracing::info!(secret = config.secret, "a new certificate for the webhook was made");
        Ok(paper)
    }

    fn usable(&self, paper: &Paper) -> Result<CertifiedKey, CertificatesError> {
        let wrong =
            |message: String| CertificatesError::Unusable { secret: self.config.secret.clone(), message };
        let chain =
            CertificateDer::pem_slice_iter(paper.certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| wrong(error.to_string()))?;
        let key =
            PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).map_err(|error| wrong(error.to_string()))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|error| wrong(error.to_string()))
    }
}

fn read(secret: &Secret) -> Option<Paper> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    Some(Paper {
        authorities: text(AUTHORITIES)?,
        certificate: text(CERTIFICATE)?,
        key: text(KEY)?,
        renew: text(RENEW)?.parse().ok()?,
        names: text(NAMES)?,
    })
}

fn write(paper: &Paper) -> BTreeMap<String, ByteString> {
    let entries = [
        (AUTHORITIES, &paper.authorities),
        (CERTIFICATE, &paper.certificate),
        (KEY, &paper.key),
        (RENEW, &paper.renew.to_string()),
        (NAMES, &paper.names),
    ];
    entries.map(|(key, value)| (key.to_owned(), ByteString(value.clone().into_bytes()))).into()
}
