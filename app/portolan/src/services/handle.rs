//! The door to the thread that owns the Services.

use std::{thread, time::Duration};

use portolan_registry::Registry;
use tokio::sync::{mpsc, oneshot};

use super::{endpoints::World, error::ServiceError, owner::Owner};
use crate::node::NodeHandle;

/// How many requests may wait.
const QUEUE: usize = 64;
/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Changes of the catalog that come together are one.
const GATHER: Duration = Duration::from_millis(5);

enum Work {
    Do(Box<dyn FnOnce(&mut Owner) + Send>),
    Close { leave: bool, reply: oneshot::Sender<Vec<String>> },
}

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct ServicesHandle {
    work: mpsc::Sender<Work>,
}

impl ServicesHandle {
    /// Moves the owner to a thread of its own, and has it follow files, catalog and leases.
    pub(crate) fn start(owner: Owner, registry: Registry, node: NodeHandle) -> std::io::Result<Self> {
        let (work, receiver) = mpsc::channel(QUEUE);
        thread::Builder::new().name("services".into()).spawn(move || serve(owner, receiver))?;
        let handle = Self { work };
        tokio::spawn(handle.clone().follow_catalog(registry, node));
        tokio::spawn(handle.clone().follow_files());
        Ok(handle)
    }

    /// Asks the owner anything.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Owner) -> T + Send + 'static,
    ) -> Result<T, ServiceError> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |owner: &mut Owner| {
            let _ = reply.send(work(owner));
        });
        self.work.send(Work::Do(work)).await.map_err(|_| ServiceError::ShuttingDown)?;
        answer.await.map_err(|_| ServiceError::ShuttingDown)
    }

    /// See [`Owner::close`].
    pub(crate) async fn close(&self, leave: bool) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        match self.work.send(Work::Close { leave, reply }).await {
            Ok(()) => answer
                .await
                .unwrap_or_else(|_| vec!["the thread of Services ended before its time".to_owned()]),
            Err(_) => Vec::new(),
        }
    }

    async fn follow_catalog(self, registry: Registry, node: NodeHandle) {
        let mut bell = registry.subscribe();
        loop {
            bell.borrow_and_update();
            let instances = registry.snapshot().iter().cloned().collect();
            // Without the node's leases an instance would be looked for at its published port: it waits instead.
            let Ok(usage) = node.usage().await else { return };
            let world = World::new(instances, usage.leases);
            if self.call(move |owner| owner.world(world)).await.is_err() {
                return;
            }
            if bell.changed().await.is_err() {
                return;
            }
            tokio::time::sleep(GATHER).await;
        }
    }

    async fn follow_files(self) {
        let mut interval = tokio::time::interval(LOOK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if self.call(Owner::look).await.is_err() {
                return;
            }
        }
    }
}

fn serve(mut owner: Owner, mut work: mpsc::Receiver<Work>) {
    while let Some(work) = work.blocking_recv() {
        match work {
            Work::Do(work) => work(&mut owner),
            Work::Close { leave, reply } => {
                let _ = reply.send(owner.close(leave));
                return;
            }
        }
    }
}
