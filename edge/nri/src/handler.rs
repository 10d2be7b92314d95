//! What a plugin says and does: the one thing that a user of this crate writes.

use std::future::{Future, ready};

use crate::{Container, ContainerAdjustment, Events, PodSandbox};

/// Answers a runtime. Implementors write the methods as `async fn`; those left out do nothing.
///
/// Every call has a time limit, a little shorter than the runtime's, and its future is dropped at the limit, when
/// the connection ends and when the plugin shuts down: what must not be left half done belongs into a task of its own.
/// A panic is contained and logged. Calls may come at the same time.
pub trait Handler: Send + Sync + 'static {
    /// What to be told of. Fewer events are fewer waits for every Pod of the node.
    fn events(&self) -> Events {
        Events::all()
    }

    /// Whether this Pod is any concern of the plugin. When it is not, none of the other methods is called for it, and
    /// the Pod cannot fail because of the plugin, whatever goes wrong. Has to be pure and quick: it is asked before
    /// everything else, each time, and without a limit.
    fn concerns(&self, _pod: &PodSandbox) -> bool {
        true
    }

    /// What exists, when a connection begins: the plugin may have missed anything before. Always in full, also when
    /// the runtime had to send it in parts. Asked before any other event of the connection.
    fn synchronize(
        &self,
        _pods: Vec<PodSandbox>,
        _containers: Vec<Container>,
    ) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A Pod has its network and none of its containers yet. An error fails the sandbox; the Pod's events show the
    /// text, and kubelet tries again with a new sandbox.
    fn run_pod_sandbox(&self, _pod: PodSandbox) -> impl Future<Output = Result<(), String>> + Send {
        ready(Ok(()))
    }

    /// A Pod stops. Its containers have ended; its network is still there.
    fn stop_pod_sandbox(&self, _pod: PodSandbox) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A Pod is gone.
    fn remove_pod_sandbox(&self, _pod: PodSandbox) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A container is about to be created: what to add to it. An error fails it; the Pod's events show the text, and
    /// kubelet tries again. So does no answer within the limit: a container that should know its ports does not start
    /// without them.
    fn create_container(
        &self,
        _pod: PodSandbox,
        _container: Container,
    ) -> impl Future<Output = Result<ContainerAdjustment, String>> + Send {
        ready(Ok(ContainerAdjustment::default()))
    }

    /// A container is created, and does not run yet.
    fn post_create_container(
        &self,
        _pod: PodSandbox,
        _container: Container,
    ) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A container is about to start.
    fn start_container(&self, _pod: PodSandbox, _container: Container) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A container has started.
    fn post_start_container(
        &self,
        _pod: PodSandbox,
        _container: Container,
    ) -> impl Future<Output = ()> + Send {
        ready(())
    }
}
