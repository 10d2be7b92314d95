//! The door to the thread that owns the node's ports, namespaces and data plane.
//!
//! Netlink, bind, fsync and namespaces all block, so they have a thread of their own; async code sends it a closure
//! and waits for the answer. One owner means that no two leases can be half done at the same time.

use std::{thread, time::Duration};

use portolan_model::{Incarnation, LeaseReply, LeaseRequest, Name, NodePorts};
use tokio::sync::{mpsc, oneshot};

use super::{engine::Engine, error::NodeError};

type Work = Box<dyn FnOnce(&mut Engine) + Send>;

/// How many requests may wait. A thousand copies starting at once wait in `run`, not here.
const QUEUE: usize = 256;

/// How often the owners of leases are looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(500);

/// Cheap to clone; the engine ends when [`NodeHandle::shut_down`] is called.
#[derive(Clone)]
pub(crate) struct NodeHandle {
    work: mpsc::Sender<Work>,
}

impl NodeHandle {
    /// Moves the engine to a thread of its own. The names of instances whose supervisor died go to `gone`.
    pub(crate) fn start(engine: Engine, gone: mpsc::UnboundedSender<Name>) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        thread::Builder::new().name("node".into()).spawn(move || serve(engine, receiver))?;
        let handle = Self { work: sender };
        tokio::spawn(reap(handle.clone(), gone));
        Ok(handle)
    }

    /// See [`Engine::lease`].
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Result<LeaseReply, NodeError> {
        self.call(move |engine| engine.lease(&request)).await?
    }

    /// See [`Engine::release`].
    pub(crate) async fn release(&self, name: Name, life: Incarnation) -> Result<(), NodeError> {
        self.call(move |engine| engine.release(&name, &life)).await?
    }

    /// See [`Engine::give_up_holds`].
    pub(crate) async fn give_up_holds(&self, name: Name, life: Incarnation) -> Result<(), NodeError> {
        self.call(move |engine| engine.give_up_holds(&name, &life)).await?
    }

    /// See [`Engine::hold_again`].
    pub(crate) async fn hold_again(&self, name: Name, life: Incarnation) -> Result<(), NodeError> {
        self.call(move |engine| engine.hold_again(&name, &life)).await?
    }

    /// See [`Engine::usage`].
    pub(crate) async fn usage(&self) -> Result<NodePorts, NodeError> {
        self.call(|engine| engine.usage()).await
    }

    /// Asks the engine anything.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Engine) -> T + Send + 'static,
    ) -> Result<T, NodeError> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(move |engine: &mut Engine| {
            // A caller that has gone away does not undo what it asked for; `reap` or a repeated request does.
            let _ = reply.send(work(engine));
        });
        self.work.send(work).await.map_err(|_| NodeError::ShuttingDown)?;
        answer.await.map_err(|_| NodeError::ShuttingDown)
    }

    /// Ends the engine: gives everything back when no instance lives, else leaves it to the next `up`. What could not
    /// be cleaned up is reported, one line each.
    pub(crate) async fn shut_down(&self) -> Vec<String> {
        self.call(Engine::shut_down).await.unwrap_or_default()
    }
}

fn serve(mut engine: Engine, mut work: mpsc::Receiver<Work>) {
    while !engine.is_shut_down()
        && let Some(work) = work.blocking_recv()
    {
        work(&mut engine);
    }
}

/// Level-triggered: a supervisor that was killed has left no message, so they are looked at.
async fn reap(handle: NodeHandle, gone: mpsc::UnboundedSender<Name>) {
    let mut interval = tokio::time::interval(REAP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        match handle.call(Engine::reap).await {
            Ok(names) => {
                for name in names {
                    if gone.send(name).is_err() {
                        return;
                    }
                }
            }
            Err(_) => return,
        }
    }
}
