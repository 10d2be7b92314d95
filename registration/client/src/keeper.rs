//! Keeps an instance registered: the loop that every program which registers would have to write.

use std::{sync::Arc, time::Duration};

use portolan_model::{Incarnation, InstanceKey, Registered, Registration};
use rand::RngExt;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{Client, ClientError};

/// How a registration fares.
#[derive(Clone, Debug)]
pub enum Status {
    /// Not registered yet, or not any more, and trying. The error is the last one, if there was any.
    Trying(Option<Arc<ClientError>>),
    /// Registered; the reply to the last registration.
    Registered(Registered),
    /// The registry refuses it; it is tried again every 30 s, in case the registry's settings change.
    Refused(Arc<ClientError>),
    /// Another life has taken the name. The keeper has stopped.
    Replaced,
}

impl Status {
    /// Whether it is registered.
    pub const fn is_registered(&self) -> bool {
        matches!(self, Self::Registered(_))
    }
}

/// Registers an instance and renews its lease until it leaves.
///
/// * It renews every third of the lease, 10 % more or less, so two renewals may be lost.
/// * When the registry does not know the instance (it lost its store, or the lease ran out long ago), it registers
///   again at once.
/// * When the registry cannot be reached it tries again for ever, with pauses that grow to a third of the lease.
/// * When another incarnation has taken the name it stops, as two lives would throw each other out in turn.
///
/// Dropped without [`Keeper::leave`], it stops renewing, and the registry expires the instance.
#[derive(Debug)]
pub struct Keeper {
    client: Client,
    key: InstanceKey,
    registration: watch::Sender<Registration>,
    status: watch::Receiver<Status>,
    /// Cancelled when no further request is to be made.
    leaving: CancellationToken,
    task: JoinHandle<()>,
}

/// What a registry that does not answer is given before the program that leaves goes on.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries of a registration that is refused.
const REFUSED: Duration = Duration::from_secs(30);
/// The lease until the registry has said one.
const LEASE: Duration = Duration::from_secs(30);

impl Keeper {
    /// Starts to register. Needs a tokio runtime. A registration without an incarnation gets a random one.
    pub fn start(client: Client, mut registration: Registration) -> Self {
        let incarnation = registration.incarnation.get_or_insert_with(random).clone();
        let key = InstanceKey { name: registration.name.clone(), incarnation };
        let (registration, words) = watch::channel(registration);
        let (tell, status) = watch::channel(Status::Trying(None));
        let leaving = CancellationToken::new();
        let work = Loop { client: client.clone(), key: key.clone(), words, tell, leaving: leaving.clone() };
        Self { client, key, registration, status, leaving, task: tokio::spawn(work.run()) }
    }

    /// What it registers.
    pub const fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// How it fares; changes can be waited for.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Says something else about the instance from now on: other ports, labels, another check. The name and the
    /// incarnation stay.
    pub fn update(&self, registration: Registration) {
        let key = self.key.clone();
        self.registration.send_replace(Registration {
            name: key.name,
            incarnation: Some(key.incarnation),
            ..registration
        });
    }

    /// Stops renewing and takes the instance out of the catalog. Takes 2 s at most: a registry that cannot be reached
    /// will notice by itself.
    pub async fn leave(mut self) {
        // A registration that is on its way must not arrive after the word that it is over: a request that was sent
        // cannot be taken back, so its answer is waited for.
        self.leaving.cancel();
        let begun = Instant::now();
        if timeout_at(begun + PATIENCE / 2, &mut self.task).await.is_err() {
            self.task.abort();
        }
        match timeout_at(begun + PATIENCE, self.client.leave(&self.key)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) if error.is_not_found() || error.is_replaced() => {}
            Ok(Err(error)) => {
                tracing::warn!(instance = %self.key.name, %error, "cannot deregister; the lease will run out")
            }
            Err(_) => {
                let endpoint = self.client.endpoint();
                tracing::warn!(instance = %self.key.name, %endpoint, "no answer to deregistering; the lease will run out");
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Loop {
    client: Client,
    key: InstanceKey,
    words: watch::Receiver<Registration>,
    tell: watch::Sender<Status>,
    leaving: CancellationToken,
}

impl Loop {
    /// Until another life has taken the name, or the keeper leaves; never in the middle of a request.
    async fn run(mut self) {
        let name = self.key.name.clone();
        let mut lease = LEASE;
        let mut failures = 0;
        while !self.leaving.is_cancelled() {
            let registration = self.words.borrow_and_update().clone();
            let error = match self.client.register(&registration).await {
                Ok(registered) => {
                    tracing::debug!(instance = %name, index = registered.index, "registered");
                    failures = 0;
                    lease = registered.ttl;
                    self.tell.send_replace(Status::Registered(registered));
                    match self.renew(lease).await {
                        None => continue,
                        Some(error) => error,
                    }
                }
                Err(error) => error,
            };
            if error.is_replaced() {
                tracing::warn!(instance = %name, %error, "another life has taken the name: this one is no longer kept registered");
                self.tell.send_replace(Status::Replaced);
                return;
            }
            let error = Arc::new(error);
            let transient = error.is_transient();
            if failures == 0 {
                tracing::warn!(instance = %name, %error, "not registered; trying on");
            }
            self.tell.send_replace(if transient {
                Status::Trying(Some(Arc::clone(&error)))
            } else {
                Status::Refused(Arc::clone(&error))
            });
            let pause = if transient { back_off(failures, lease) } else { jittered(REFUSED) };
            failures = failures.saturating_add(1);
            self.pause(pause).await;
        }
    }

    /// Renews until there is something else to do: `None` says register at once, an error why it did not go on.
    async fn renew(&mut self, lease: Duration) -> Option<ClientError> {
        let mut failures = 0;
        let mut wait = jittered(lease / 3);
        loop {
            if self.pause(wait).await {
                return None;
            }
            match self.client.renew(&self.key).await {
                Ok(()) => {
                    failures = 0;
                    wait = jittered(lease / 3);
                }
                Err(error) if error.is_not_found() => {
                    tracing::info!(instance = %self.key.name, "the registry does not know it any more: registering again");
                    return None;
                }
                Err(error) if error.is_transient() && failures < 2 => {
                    wait = back_off(failures, lease);
                    failures += 1;
                }
                Err(error) => return Some(error),
            }
        }
    }

    /// Waits, but not longer than until the registration is another or the keeper leaves. Returns whether it is so.
    async fn pause(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = sleep(time) => false,
            () = self.leaving.cancelled() => true,
            changed = self.words.changed() => {
                if changed.is_err() {
                    // The keeper is gone and this task is about to be aborted.
                    std::future::pending::<()>().await;
                }
                true
            }
        }
    }
}

/// A quarter of a second, doubling up to a third of the lease and 10 s, shortened by up to half.
fn back_off(failures: u32, lease: Duration) -> Duration {
    let longest = (lease / 3).min(Duration::from_secs(10));
    let time = Duration::from_millis(250).saturating_mul(1 << failures.min(10)).min(longest);
    time.mul_f64(rand::rng().random_range(0.5..=1.0))
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::rng().random_range(0.9..=1.1))
}

fn random() -> Incarnation {
    let random: u64 = rand::rng().random();
    // 16 hexadecimal digits are an incarnation by its definition.
    Incarnation::new(format!("{random:016x}"))
        .unwrap_or_else(|| unreachable!("hexadecimal digits are printable"))
}
