//! Whether a DaemonSet has done its work on every node.

use k8s_openapi::api::apps::v1::DaemonSet;
use kube::Api;

use crate::{ApiError, Connection, connection::CALL};

/// How far a DaemonSet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rollout {
    /// The nodes that it is for.
    pub wanted: u32,
    /// Those on which its Pod is ready.
    pub ready: u32,
    /// Whether these numbers are about the DaemonSet as it is now.
    current: bool,
}

impl Rollout {
    /// Asks the API server.
    pub async fn of_daemon_set(
        connection: &Connection,
        namespace: &str,
        name: &str,
    ) -> Result<Self, ApiError> {
        let api = Api::<DaemonSet>::namespaced(connection.client(), namespace);
        let found =
            connection.limited(format!("get DaemonSet {namespace}/{name}"), CALL, api.get(name)).await?;
        Ok(Self::from(&found))
    }

    /// Whether it is everywhere.
    pub const fn is_complete(&self) -> bool {
        self.current && self.ready >= self.wanted
    }
}

impl From<&DaemonSet> for Rollout {
    fn from(found: &DaemonSet) -> Self {
        let count = |number: i32| u32::try_from(number).unwrap_or(0);
        let Some(status) = &found.status else { return Self { wanted: 0, ready: 0, current: false } };
        Self {
            wanted: count(status.desired_number_scheduled),
            ready: count(status.number_ready),
            // The controller has not looked at it before it says which generation it has seen.
            current: status.observed_generation.is_some()
                && status.observed_generation >= found.metadata.generation,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(status: Value) -> Rollout {
        let object = json!({"metadata": {"generation": 1}, "spec": {"selector": {}, "template": {}}, "status": status});
        Rollout::from(&serde_json::from_value::<DaemonSet>(object).unwrap())
    }

    #[test]
    fn a_daemon_set_that_nobody_has_looked_at_is_not_complete() {
        let fresh = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
        assert!(!rollout(fresh).is_complete());
        let seen = |ready| {
            rollout(json!({"observedGeneration": 1, "currentNumberScheduled": 2, "desiredNumberScheduled": 2,
                "numberMisscheduled": 0, "numberReady": ready}))
        };
        assert!(!seen(1).is_complete());
        assert!(seen(2).is_complete());
    }
}
