//! From a method's name and bytes to the handler's answer, inside a limit of time and with panics contained.
//!
//! What fails a Pod and what does not is decided here: the two methods whose errors mean something
//! (`RunPodSandbox`, `CreateContainer`) fail when the handler says so, panics or is late, and only for Pods that are its
//! concern. Everything else is answered with success.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use prost::Message as _;

use crate::{
    Container, ContainerAdjustment, Event, Handler, PodSandbox,
    message::{ContainerRequest, CreateContainerResponse, StateChangeEvent},
    ttrpc::{Status, code},
};

/// Why the handler has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("a defect: the handler panicked, see the log")]
    Panicked,
}

/// What is done at the end of a request's time, given what the runtime waits: `timeout_nano` of the call, or else
/// what it said when it configured us.
pub(crate) fn limit(timeout_nano: i64, configured: Duration) -> Duration {
    let given = match u64::try_from(timeout_nano) {
        Ok(nanoseconds @ 1..) => Duration::from_nanos(nanoseconds),
        _ => configured,
    };
    // Room for the way back, on a machine that is busy: an answer that comes late costs the connection.
    given.saturating_sub((given / 10).clamp(Duration::from_millis(20), Duration::from_millis(500)))
}

/// Answers one call of the service `Plugin`, except those that begin a connection (`crate::session`).
pub(crate) async fn answer(
    handler: &impl Handler,
    method: &str,
    payload: Bytes,
    limit: Duration,
) -> Result<Bytes, Status> {
    let (event, told) = match read(method, payload) {
        Ok(Some((event, told))) => (event, told),
        Ok(None) => return Ok(Bytes::new()),
        Err(status) => return Err(status),
    };
    let pod = PodSandbox::from(told.pod.unwrap_or_default());
    let container = Container::from(told.container.unwrap_or_default());
    if !concerns(handler, &pod) {
        return Ok(Bytes::new());
    }
    let label = Label { event, pod: format!("{}/{}", pod.namespace, pod.name) };
    match event {
        Event::RunPodSandbox => {
            let ran = guarded(limit, async { handler.run_pod_sandbox(pod).await }).await;
            decided(&label, ran).map(|()| Bytes::new())
        }
        Event::CreateContainer => {
            let created = guarded(limit, async { handler.create_container(pod, container).await }).await;
            decided(&label, created).map(adjusted)
        }
        Event::StopPodSandbox => {
            heard(&label, guarded(limit, async { handler.stop_pod_sandbox(pod).await }).await)
        }
        Event::RemovePodSandbox => {
            heard(&label, guarded(limit, async { handler.remove_pod_sandbox(pod).await }).await)
        }
        Event::PostCreateContainer => {
            heard(&label, guarded(limit, async { handler.post_create_container(pod, container).await }).await)
        }
        Event::StartContainer => {
            heard(&label, guarded(limit, async { handler.start_container(pod, container).await }).await)
        }
        Event::PostStartContainer => {
            heard(&label, guarded(limit, async { handler.post_start_container(pod, container).await }).await)
        }
    }
}

/// Waits for the handler; a panic in it is its failure and not ours.
pub(crate) async fn guarded<T>(limit: Duration, asked: impl Future<Output = T>) -> Result<T, Failure> {
    match tokio::time::timeout(limit, AssertUnwindSafe(asked).catch_unwind()).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_panic)) => Err(Failure::Panicked),
        Err(_) => Err(Failure::Late(limit)),
    }
}

/// What a call is about; `None` when it is about nothing of ours.
fn read(method: &str, payload: Bytes) -> Result<Option<(Event, ContainerRequest)>, Status> {
    let read = if method == "StateChange" {
        StateChangeEvent::decode(payload).map(|told| {
            let event = Event::from_number(told.event)?;
            Some((event, ContainerRequest { pod: told.pod, container: told.container }))
        })
    } else if let Some(event) = Event::from_method(method) {
        // A request about a Pod is one about a container without the container.
        ContainerRequest::decode(payload).map(|told| Some((event, told)))
    } else if method == "Shutdown" {
        return Ok(None);
    } else {
        let message = format!("this plugin has no method {method}");
        return Err(Status { code: code::UNIMPLEMENTED, message });
    };
    // Which Pod this is about is not known, so it must not fail: it may be no concern of ours.
    Ok(read.unwrap_or_else(|error| {
        tracing::error!(method, %error, "what the runtime said cannot be read, and is ignored");
        None
    }))
}

fn concerns(handler: &impl Handler, pod: &PodSandbox) -> bool {
    catch_unwind(AssertUnwindSafe(|| handler.concerns(pod))).unwrap_or_else(|_| {
        tracing::error!(pod = pod.name, "a defect: asking whether a Pod is our concern panicked");
        false
    })
}

/// For messages.
struct Label {
    event: Event,
    pod: String,
}

impl Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.event.method(), self.pod)
    }
}

/// The answer to an event that cannot be refused.
fn heard(label: &Label, heard: Result<(), Failure>) -> Result<Bytes, Status> {
    if let Err(failure) = heard {
        tracing::error!("{label}: {failure}; the runtime goes on");
    }
    Ok(Bytes::new())
}

/// The answer to an event that can be refused.
fn decided<T>(label: &Label, decided: Result<Result<T, String>, Failure>) -> Result<T, Status> {
    match decided {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(message)) => {
            tracing::warn!("{label} is refused: {message}");
            Err(Status { code: code::FAILED_PRECONDITION, message })
        }
        Err(failure) => {
            tracing::error!("{label} is refused: {failure}");
            let code = match failure {
                Failure::Late(_) => code::UNAVAILABLE,
                Failure::Panicked => code::INTERNAL,
            };
            Err(Status { code, message: failure.to_string() })
        }
    }
}

fn adjusted(adjustment: ContainerAdjustment) -> Bytes {
    let adjust = (!adjustment.is_empty()).then(|| adjustment.into());
    CreateContainerResponse { adjust }.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_limit_ends_before_the_runtimes() {
        let second = Duration::from_secs(1);
        assert_eq!(limit(2_000_000_000, second), Duration::from_millis(1800));
        assert_eq!(limit(0, second), Duration::from_millis(900));
        assert_eq!(limit(-1, second), Duration::from_millis(900));
        assert_eq!(limit(60_000_000_000, second), Duration::from_millis(59_500));
        assert_eq!(limit(1_000_000, second), Duration::ZERO);
    }
}
