//! The handle on a running registry.

use std::sync::Arc;

use portolan_model::{Incarnation, InstanceKey, Name, Registered, Registration};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Caller, Changes, RegistryConfig, RegistryError, Snapshot,
    admit::Admission,
    owner::{Command, Owner},
    store::{Store, StoreError},
    watch::Board,
};
use portolan_telemetry::metrics::Metrics;

/// A running registry. Cheap to clone; it runs until [`Registry::shutdown`] or until the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Registry {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) board: Board,
    pub(crate) admission: Admission,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) closing: CancellationToken,
    pub(crate) ended: CancellationToken,
    pub(crate) store_works: std::sync::atomic::AtomicBool,
}

/// Requests that wait for the owner at the same time. More wait in their callers.
const QUEUE: usize = 1024;

impl Registry {
    /// Loads the store and starts the owner task and the health checks. Must be called inside a tokio runtime.
    pub async fn start(config: RegistryConfig, store: Box<dyn Store>) -> Result<Self, StoreError> {
        let (commands, requests) = mpsc::channel(QUEUE);
        let (owner, shared) = Owner::start(&config, store, requests).await?;
        tokio::spawn(owner.run());
        Ok(Self { shared, commands })
    }

    /// Registers an instance, or says anew what it is and prolongs its lease. When this returns `Ok`, the
    /// registration survives a crash and is in [`Registry::snapshot`].
    pub async fn register(
        &self,
        registration: Registration,
        caller: Caller,
    ) -> Result<Registered, RegistryError> {
        let registered = match self.shared.admission.admit(registration, caller) {
            Ok(accepted) => {
                let accepted = Box::new(accepted);
                self.ask(|reply| Command::Register { accepted, reply }).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &registered {
            self.shared.metrics.registration(error.discriminant());
        }
        registered
    }

    /// Prolongs a lease. [`RegistryError::NotFound`] means: register again. [`RegistryError::Replaced`] means:
    /// another life has taken over, so stop.
    pub async fn renew(&self, key: &InstanceKey) -> Result<(), RegistryError> {
        self.renew_as(Caller::Process, &key.name, Some(&key.incarnation)).await
    }

    /// Prolongs the lease of whoever holds the name, or of that incarnation only.
    pub(crate) async fn renew_as(
        &self,
        caller: Caller,
        name: &Name,
        incarnation: Option<&Incarnation>,
    ) -> Result<(), RegistryError> {
        let (name, incarnation) = (name.clone(), incarnation.cloned());
        let claim = self.shared.admission.claim(caller);
        self.ask(|reply| Command::Renew { name, incarnation, claim, reply }).await
    }

    /// Takes an instance out of the catalog: whoever holds the name, or that incarnation only.
    pub async fn deregister(
        &self,
        name: &Name,
        incarnation: Option<&Incarnation>,
    ) -> Result<(), RegistryError> {
        self.deregister_as(Caller::Process, name, incarnation).await
    }

    pub(crate) async fn deregister_as(
        &self,
        caller: Caller,
        name: &Name,
        incarnation: Option<&Incarnation>,
    ) -> Result<(), RegistryError> {
        let (name, incarnation) = (name.clone(), incarnation.cloned());
        let claim = self.shared.admission.claim(caller);
        self.ask(|reply| Command::Leave { name, incarnation, claim, reply }).await
    }

    /// The catalog as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.board.snapshot()
    }

    /// What changed after `since`, which is the index of a snapshot, of a change or of a [`Registered`].
    pub fn changes(&self, since: u64) -> Changes {
        self.shared.board.changes(since)
    }

    /// A bell that rings at each change and holds the catalog's index. Wait with `changed().await`, then ask for
    /// [`Registry::changes`] or a new [`Registry::snapshot`]; several changes may be one ring. When waiting fails
    /// with an error, the registry has ended.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.board.subscribe()
    }

    /// Cancelled when the registry begins to shut down: what streams to clients ends then.
    pub fn closing(&self) -> CancellationToken {
        self.shared.closing.clone()
    }

    /// Whether registrations can be taken: not shutting down, and the last write to the store went well.
    pub fn is_ready(&self) -> bool {
        !self.shared.closing.is_cancelled()
            && self.shared.store_works.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Stops taking requests, writes what is not stored yet, stops the health checks. Instances stay in the store.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        self.shared.ended.cancelled().await;
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, RegistryError>>) -> Command,
    ) -> Result<T, RegistryError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RegistryError::Stopped)?;
        answer.await.map_err(|_| RegistryError::Stopped)?
    }
}
