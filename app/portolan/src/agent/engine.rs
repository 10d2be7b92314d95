//! The door to the thread that owns the node's ports and rules ([`portolan_attach`]).
//!
//! Bind, fsync and netlink block, so they have a thread of their own; async code sends it a closure and waits for the
//! answer. One owner means that no two leases can be half done at the same time.

use std::thread;

use tokio::sync::{mpsc, oneshot};

use portolan_attach::Attach;

/// How many requests may wait. A runtime that starts more Pods at once waits in front of the socket.
const QUEUE: usize = 256;

type Work = Box<dyn FnOnce(&mut Attach) -> Next + Send>;

/// Whether the thread goes on.
enum Next {
    Go,
    Stop,
}

/// The agent is ending.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this agent is ending: try again when the next one runs")]
pub(crate) struct Ended;

/// Cheap to clone. When the last clone is dropped the thread ends, and rules and holds stay.
#[derive(Clone, Debug)]
pub(crate) struct Engine(mpsc::Sender<Work>);

impl Engine {
    /// Moves the ports and rules to a thread of their own.
    pub(crate) fn start(attach: Attach) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        thread::Builder::new().name("attach".into()).spawn(move || serve(attach, receiver))?;
        Ok(Self(sender))
    }

    /// Asks it anything. What was sent is done, whether its answer is waited for or not.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Attach) -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |attach| {
            // A caller that has gone away does not undo what it asked for; the runtime's DEL or the collector does.
            let _ = reply.send(work(attach));
            Next::Go
        });
        self.0.send(work).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }

    /// Ends the thread after all that was asked before. Rules, holds and leases stay as they are.
    pub(crate) async fn stop(&self) {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |_| {
            // The sender is dropped with the thread, which is what the caller waits for.
            std::mem::drop(reply);
            Next::Stop
        });
        if self.0.send(work).await.is_ok() {
            let _: Result<(), _> = answer.await;
        }
    }
}

fn serve(mut attach: Attach, mut work: mpsc::Receiver<Work>) {
    while let Some(work) = work.blocking_recv() {
        if matches!(work(&mut attach), Next::Stop) {
            return;
        }
    }
}
