//! Annotations of Pods, by a merge patch that holds for one Pod only.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    Annotations, PublishError,
    queue::{Outcome, Queue},
};
use crate::{ApiError, Connection, PodKey, connection::CALL};

/// Takes one job after the other.
pub(super) async fn work(connection: Connection, queue: Arc<Queue>) {
    loop {
        let job = queue.take().await;
        let outcome = attempt(&connection, &job.pod, &job.changes).await;
        queue.done(job, outcome);
    }
}

async fn attempt(connection: &Connection, pod: &PodKey, changes: &Annotations) -> Outcome {
    let api = Api::<Pod>::namespaced(connection.client(), &pod.namespace);
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(patch(pod, changes)));
    // By the subresource: who may patch Pods themselves may change what they run.
    let call = api.patch_status(&pod.name, &parameters, &patch);
    let error = match connection.limited(format!("patch Pod {pod}"), CALL, call).await {
        Ok(_) => return Outcome::Landed,
        Err(error) => error,
    };
    match error {
        ApiError::Missing { .. } => Outcome::Gone,
        // The UID in the patch holds for one Pod. Of another one of the name it is "immutable" (422) or a failed
        // precondition (409), depending on the version; but both have other reasons too.
        ApiError::Conflict { .. } | ApiError::Refused { code: 422, .. }
            if is_gone(connection, &api, pod).await =>
        {
            Outcome::Gone
        }
        // Somebody else changed it in the same moment.
        ApiError::Conflict { .. } => Outcome::Later,
        error if error.is_retryable() => {
            tracing::debug!(%pod, %error, "the annotations wait");
            Outcome::Later
        }
        error => {
            tracing::warn!(%pod, %error, "the annotations were refused");
            Outcome::Refused(PublishError::Api(error))
        }
    }
}

/// Whether the name belongs to nobody, or to another Pod.
async fn is_gone(connection: &Connection, api: &Api<Pod>, pod: &PodKey) -> bool {
    let call = api.get_metadata(&pod.name);
    match connection.limited(format!("get Pod {pod}"), CALL, call).await {
        Ok(found) => found.metadata.uid.as_deref() != Some(pod.uid.as_str()) && !pod.uid.is_empty(),
        Err(error) => error.is_missing(),
    }
}

fn patch(pod: &PodKey, changes: &Annotations) -> Value {
    let mut metadata = json!({ "annotations": changes });
    if !pod.uid.is_empty() {
        metadata["uid"] = json!(pod.uid);
    }
    json!({ "metadata": metadata })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_removes_with_null_and_holds_for_one_uid() {
        let pod = PodKey { namespace: "a".to_owned(), name: "b".to_owned(), uid: "u".to_owned() };
        let changes = Annotations::from([("x".to_owned(), Some("1".to_owned())), ("y".to_owned(), None)]);
        assert_eq!(
            patch(&pod, &changes),
            json!({"metadata": {"uid": "u", "annotations": {"x": "1", "y": null}}})
        );
        assert_eq!(
            patch(&PodKey { uid: String::new(), ..pod }, &Annotations::new()),
            json!({"metadata": {"annotations": {}}})
        );
    }
}
