//! Which of several replicas is the one that acts: a lease object that one of them holds and renews.
//!
//! The rules are client-go's: a candidate takes the lease when it has not been renewed for its duration *by the
//! candidate's own clock* since it last saw it change, so clocks need not agree; the holder stops before others may
//! begin. Two leaders at once are harmless here, since all that they do is level-triggered; they would only quarrel.
//! <https://pkg.go.dev/k8s.io/client-go/tools/leaderelection>

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{ApiError, Connection};

/// Which lease, and who asks for it.
#[derive(Clone, Debug)]
pub struct LeaderConfig {
    /// The namespace of the lease.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who we are: the Pod's name.
    pub identity: String,
    /// How long a lease that is not renewed holds: 15 s.
    pub duration: Duration,
    /// How long the holder tries to renew it before it steps down, less than `duration`: 10 s.
    pub renew: Duration,
    /// How often it is renewed, and looked at: 2 s.
    pub period: Duration,
}

impl LeaderConfig {
    /// With the durations of Kubernetes' own controllers.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            period: Duration::from_secs(2),
        }
    }
}

/// A candidate. When it is stopped as the leader it gives the lease back, so that another takes it at once.
#[derive(Debug)]
pub struct Leader {
    leads: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Leader {
    /// Begins to ask for the lease.
    pub fn start(connection: &Connection, config: LeaderConfig, stop: CancellationToken) -> Self {
        let (tell, leads) = watch::channel(false);
        let api = Api::namespaced(connection.client(), &config.namespace);
        let candidate =
            Candidate { connection: connection.clone(), api, config, tell, seen: None, renewed: None };
        Self { leads, task: tokio::spawn(candidate.run(stop)) }
    }

    /// Whether we are the one now.
    pub fn is_leader(&self) -> bool {
        *self.leads.borrow()
    }

    /// Waits until we are the one. Never returns once stopped.
    pub async fn lead(&mut self) {
        if self.leads.wait_for(|leads| *leads).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until we are not, or are stopped.
    pub async fn lost(&mut self) {
        let _ = self.leads.wait_for(|leads| !*leads).await;
    }

    /// Waits until the lease is given back, after the stop.
    pub async fn ended(self) {
        let _ = self.task.await;
    }
}

struct Candidate {
    connection: Connection,
    api: Api<Lease>,
    config: LeaderConfig,
    tell: watch::Sender<bool>,
    /// The lease as it last changed, and when we saw that.
    seen: Option<(LeaseSpec, Instant)>,
    /// When the last renewal that succeeded was begun.
    renewed: Option<Instant>,
}

impl Candidate {
    async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let begun = Instant::now();
            let limit = self.config.period.max(Duration::from_secs(1));
            match self.attempt(limit).await {
                Ok(true) => self.renewed = Some(begun),
                Ok(false) => self.renewed = None,
                Err(error) => {
                    tracing::debug!(lease = self.config.name, %error, "the lease cannot be renewed")
                }
            }
            let leads = self.renewed.is_some_and(|renewed| renewed.elapsed() < self.config.renew);
            self.tell.send_if_modified(|old| std::mem::replace(old, leads) != leads);
            // A fifth of jitter: candidates of one deployment start together.
            let wait = self.config.period.mul_f64(0.9 + 0.2 * rand::random::<f64>());
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        // First stop acting, then let others.
        self.tell.send_replace(false);
        if self.renewed.is_some()
            && let Err(error) = self.release().await
        {
            tracing::debug!(lease = self.config.name, %error, "the lease was not given back and will expire");
        }
    }

    /// Takes or renews the lease; `false` when another has it.
    async fn attempt(&mut self, limit: Duration) -> Result<bool, ApiError> {
        let get =
            self.connection.limited(self.what("get"), limit, self.api.get_opt(&self.config.name)).await?;
        let Some(mut lease) = get else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.renewal(None)),
            };
            let parameters = PostParams::default();
            let call = self.api.create(&parameters, &lease);
            return won(self.connection.limited(self.what("create"), limit, call).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        if self.seen.as_ref().is_none_or(|(seen, _)| *seen != spec) {
            self.seen = Some((spec.clone(), Instant::now()));
        }
        if !self.may_take(&spec) {
            return Ok(false);
        }
        lease.spec = Some(self.renewal(Some(&spec)));
        // The resourceVersion is in it: if somebody else was first, this is a conflict.
        let parameters = PostParams::default();
        let call = self.api.replace(&self.config.name, &parameters, &lease);
        won(self.connection.limited(self.what("renew"), limit, call).await)
    }

    fn may_take(&self, spec: &LeaseSpec) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.config.identity {
            return true;
        }
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = duration.map_or(self.config.duration, Duration::from_secs);
        self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= duration)
    }

    fn renewal(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.is_some_and(|old| old.holder_identity.as_deref() == Some(&self.config.identity));
        let transitions = old.and_then(|old| old.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(
                self.config.duration.as_secs().max(1).try_into().unwrap_or(i32::MAX),
            ),
            acquire_time: old.filter(|_| ours).and_then(|old| old.acquire_time.clone()).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(!ours && old.is_some())),
            ..LeaseSpec::default()
        }
    }

    async fn release(&self) -> Result<(), ApiError> {
        let limit = Duration::from_secs(2);
        let mut lease =
            self.connection.limited(self.what("get"), limit, self.api.get(&self.config.name)).await?;
        let mut spec = lease.spec.take().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.config.identity) {
            return Ok(());
        }
        (spec.holder_identity, spec.lease_duration_seconds) = (Some(String::new()), Some(1));
        lease.spec = Some(spec);
        let parameters = PostParams::default();
        let call = self.api.replace(&self.config.name, &parameters, &lease);
        won(self.connection.limited(self.what("give back"), limit, call).await).map(drop)
    }

    fn what(&self, verb: &str) -> String {
        format!("{verb} Lease {}/{}", self.config.namespace, self.config.name)
    }
}

/// That somebody else was first is an answer, not an error.
fn won(result: Result<Lease, ApiError>) -> Result<bool, ApiError> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
