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
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    certificates::{CertificatesConfig, CertificatesError, Shown},
    paper::Paper,
};
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

/// Looks after a Secret and the configurations.
pub(super) struct Keeper {
    pub(super) connection: Connection,
    pub(super) secrets: Api<Secret>,
    pub(super) config: CertificatesConfig,
}

impl Keeper {
    pub(super) async fn work(self, shown: Arc<Shown>, mut current: Paper, stop: CancellationToken) {
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
            shown.show(usable);
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
    pub(super) async fn paper(&self) -> Result<Paper, CertificatesError> {
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

    pub(super) fn usable(&self, paper: &Paper) -> Result<CertifiedKey, CertificatesError> {
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
