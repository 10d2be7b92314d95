//! The door to the thread that owns the node's ports, namespaces and data plane.
//!
//! Netlink, bind, fsync and namespaces all block, so they have a thread of their own; async code sends it a closure
//! and waits for the answer. One owner means that no two leases can be half done at the same time.

use std::{sync::Arc, thread, time::Duration};

use portolan_model::{Incarnation, InstanceId, LeaseReply, LeaseRequest, Name, NodePorts};
use tokio::sync::{mpsc, oneshot};

use super::{engine::Engine, error::NodeError};
use crate::loopback::Loopback;

/// What the thread is asked.
enum Work {
    /// Anything.
    Do(Box<dyn FnOnce(&mut Engine) + Send>),
    /// To end, and to say what could not be cleaned up.
    Close(oneshot::Sender<Vec<String>>),
}

/// How many requests may wait. A thousand copies starting at once wait in `run`, not here.
const QUEUE: usize = 256;

/// How often the owners of leases are looked at.
const REAP_INTERVAL: Duration = Duration::from_millis(500);
/// Every how many of these looks the holds are compared with what they should be.
const MAINTAIN_EVERY: u64 = 10;

/// Cheap to clone; the engine ends when [`NodeHandle::close`] is called.
#[derive(Clone)]
pub(crate) struct NodeHandle {
    work: mpsc::Sender<Work>,
    /// The relays on the loopback, if there are to be any.
    loopback: Option<Arc<Loopback>>,
}

impl NodeHandle {
    /// Moves the engine to a thread of its own. The names of instances whose supervisor died go to `gone`. With
    /// `localhost` published ports are on the loopback too.
    pub(crate) fn start(
        engine: Engine,
        gone: mpsc::UnboundedSender<Name>,
        localhost: bool,
    ) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        thread::Builder::new().name("node".into()).spawn(move || serve(engine, receiver))?;
        let loopback = localhost.then(|| Arc::new(Loopback::default()));
        let handle = Self { work: sender, loopback };
        tokio::spawn(reap(handle.clone(), gone));
        Ok(handle)
    }

    /// See [`Engine::lease`].
    pub(crate) async fn lease(&self, request: LeaseRequest) -> Result<LeaseReply, NodeError> {
        let id = InstanceId::from(&request.instance);
        if let Some(loopback) = &self.loopback {
            // Those of a life that has ended keep its ports from this one.
            loopback.stop_others(&id, &request.incarnation).await;
        }
        let leased = self.call(move |engine| engine.lease(&request)).await?;
        self.follow(Some(id)).await;
        leased
    }

    /// See [`Engine::release`].
    pub(crate) async fn release(&self, name: Name, life: Incarnation) -> Result<(), NodeError> {
        let id = InstanceId::from(&name);
        let (of_life, this) = (life.clone(), id.clone());
        if let Some(loopback) = &self.loopback
            && self.call(move |engine| engine.has(&this, &of_life)).await?
        {
            loopback.stop(&id).await;
        }
        self.call(move |engine| engine.release(&name, &life)).await?
    }

    /// Has the relays that are to be: of one instance, or of all and no others.
    async fn follow(&self, only: Option<InstanceId>) {
        let Some(loopback) = &self.loopback else { return };
        let all = only.is_none();
        let asked = self.call(move |engine| (engine.unheld(), engine.on_loopback(only.as_ref()))).await;
        let Ok((unheld, wanted)) = asked else { return };
        if all && loopback.stop_unheld(&unheld).await {
            // Now they can be held.
            let _ = self.call(Engine::maintain).await;
        }
        let borrow = |instance, life, hold| {
            let this = self.clone();
            async move { this.call(move |engine| engine.borrow(&instance, &life, hold)).await? }
        };
        if all { loopback.follow(wanted, borrow).await } else { loopback.start(wanted, borrow).await }
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
        self.work.send(Work::Do(work)).await.map_err(|_| NodeError::ShuttingDown)?;
        answer.await.map_err(|_| NodeError::ShuttingDown)
    }

    /// See [`Engine::close`]. Whoever asks after that gets [`NodeError::ShuttingDown`].
    pub(crate) async fn close(&self) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        match self.work.send(Work::Close(reply)).await {
            Ok(()) => {
                answer.await.unwrap_or_else(|_| vec!["the node's thread ended before its time".to_owned()])
            }
            Err(_) => Vec::new(),
        }
    }
}

fn serve(mut engine: Engine, mut work: mpsc::Receiver<Work>) {
    while let Some(work) = work.blocking_recv() {
        match work {
            Work::Do(work) => work(&mut engine),
            Work::Close(reply) => {
                let _ = reply.send(engine.close());
                return;
            }
        }
    }
}

/// Level-triggered: a supervisor that was killed has left no message, so they are looked at.
async fn reap(handle: NodeHandle, gone: mpsc::UnboundedSender<Name>) {
    let mut interval = tokio::time::interval(REAP_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for tick in 0_u64.. {
        interval.tick().await;
        let maintain = tick % MAINTAIN_EVERY == MAINTAIN_EVERY - 1;
        let looked = handle.call(move |engine| {
            let gone = engine.reap();
            if maintain {
                engine.maintain();
            }
            gone
        });
        match looked.await {
            Ok(names) => {
                handle.follow(None).await;
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
