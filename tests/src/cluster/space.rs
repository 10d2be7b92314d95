//! A Kubernetes namespace of a test's own.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use portolan_cluster::Cluster;
use portolan_testkit::eventually_ok;
use serde_json::Value;

/// How long Pods may take until they are ready on a busy machine.
const POD: Duration = Duration::from_secs(90);

/// A namespace, deleted with everything in it when dropped.
#[derive(Debug)]
pub struct Space {
    cluster: &'static Cluster,
    name: String,
}

impl Space {
    /// Makes one whose Pods may have host ports.
    #[track_caller]
    pub fn new(cluster: &'static Cluster, about: &str) -> Self {
        let space = Self::without_ports(cluster, about);
        space.kubectl(&["label", "namespace", &space.name, "portolan.dev/ports=allowed"]);
        space
    }

    /// Makes one that is not allowed to have host ports.
    #[track_caller]
    pub fn without_ports(cluster: &'static Cluster, about: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{about}-{}-{number}", std::process::id());
        let space = Self { cluster, name };
        space.kubectl(&["create", "namespace", &space.name]);
        // Pods are refused until it has its service account.
        let account = || cluster.run_kubectl(&["-n", &space.name, "get", "serviceaccount", "default"]);
        if let Err(error) = eventually_ok(POD, account) {
            panic!("{error:#}");
        }
        space
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The cluster that it is in.
    pub fn cluster(&self) -> &'static Cluster {
        self.cluster
    }

    /// Runs kubectl in it, which must succeed, and gives what it says.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> String {
        match self.try_kubectl(words) {
            Ok(said) => said,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs kubectl in it.
    pub fn try_kubectl(&self, words: &[&str]) -> Result<String, String> {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend(words);
        self.cluster.run_kubectl(&all).map_err(|error| format!("{error:#}"))
    }

    /// Applies manifests in it.
    #[track_caller]
    pub fn apply(&self, manifests: &str) {
        let documents = manifests.split("\n---").map(|document| self.placed(document));
        let all = documents.collect::<Vec<_>>().join("\n---\n");
        if let Err(error) = self.cluster.apply(&all) {
            panic!("{error:#}\n{all}");
        }
    }

    /// The document with this namespace in its metadata.
    fn placed(&self, document: &str) -> String {
        document.replacen("\nmetadata:\n", &format!("\nmetadata:\n  namespace: {}\n", self.name), 1)
    }

    /// Creates an object that is given as JSON.
    #[track_caller]
    pub fn create(&self, object: &Value) {
        if let Err(error) = self.try_create(object) {
            panic!("{error}");
        }
    }

    /// Creates objects in one call, as near to at once as it gets.
    #[track_caller]
    pub fn create_all(&self, mut objects: Vec<Value>) {
        for object in &mut objects {
            object["metadata"]["namespace"] = self.name.as_str().into();
        }
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
        if let Err(error) = self.cluster.apply(&list.to_string()) {
            panic!("{error:#}");
        }
    }

    /// Creates an object that is given as JSON, if the API server takes it.
    pub fn try_create(&self, object: &Value) -> Result<(), String> {
        let mut object = object.clone();
        object["metadata"]["namespace"] = self.name.as_str().into();
        self.cluster.apply(&object.to_string()).map(drop).map_err(|error| format!("{error:#}"))
    }

    /// An object as JSON.
    #[track_caller]
    pub fn get(&self, what: &str) -> Value {
        match self.try_get(what) {
            Ok(found) => found,
            Err(error) => panic!("{error}"),
        }
    }

    /// An object as JSON, if it is there.
    pub fn try_get(&self, what: &str) -> Result<Value, String> {
        let text = self.try_kubectl(&["get", what, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| format!("{what}: {error}: {text}"))
    }

    /// The Pods with these labels, those that are on their way out left out.
    #[track_caller]
    pub fn pods(&self, selector: &str) -> Vec<Value> {
        let text = self.kubectl(&["get", "pods", "-l", selector, "-o", "json"]);
        let all: Value = serde_json::from_str(&text).unwrap_or_default();
        let items = all["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect()
    }

    /// Waits until this many Pods with these labels are ready, and no others are left.
    #[track_caller]
    pub fn wait_for_pods(&self, selector: &str, count: usize) -> Vec<Value> {
        self.wait(selector, count, POD)
    }

    /// The same for so many that they need more time.
    #[track_caller]
    pub fn wait_for_many(&self, selector: &str, count: usize) -> Vec<Value> {
        self.wait(selector, count, POD * 4)
    }

    #[track_caller]
    fn wait(&self, selector: &str, count: usize, patience: Duration) -> Vec<Value> {
        let pods = eventually_ok(patience, || {
            let pods = self.pods(selector);
            let up = pods.iter().filter(|pod| ready(pod)).count();
            if up == count && pods.len() == count { Ok(pods) } else { Err(format!("{up} of {}", pods.len())) }
        });
        match pods {
            Ok(pods) => pods,
            Err(seen) => panic!("not {count} Pods {selector} are ready but {seen}:\n{}", self.picture()),
        }
    }

    /// Waits until this Pod is ready.
    #[track_caller]
    pub fn wait_for_pod(&self, name: &str) -> Value {
        let pod = eventually_ok(POD, || {
            let pod = self.try_get(&format!("pod/{name}"))?;
            if ready(&pod) { Ok(pod) } else { Err(pod["status"].to_string()) }
        });
        match pod {
            Ok(pod) => pod,
            Err(seen) => panic!("Pod {name} is not ready: {seen}\n{}", self.picture()),
        }
    }

    /// The messages of the Events about an object.
    #[track_caller]
    pub fn events(&self, object: &str) -> Vec<String> {
        let selector = format!("involvedObject.name={object}");
        let text = self.kubectl(&["get", "events", "--field-selector", &selector, "-o", "json"]);
        let all: Value = serde_json::from_str(&text).unwrap_or_default();
        let items = all["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let line = |event: &Value| {
            let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
            format!("{} {} {}", text("type"), text("reason"), text("message"))
        };
        items.iter().map(line).collect()
    }

    /// Everything that says why something does not work.
    pub fn picture(&self) -> String {
        let pods = self.try_kubectl(&["describe", "pods"]).unwrap_or_else(|error| error);
        let agents = self.cluster.run_kubectl(&[
            "-n",
            "portolan",
            "logs",
            "daemonset/portolan-agent",
            "--tail=20",
            "--all-pods",
        ]);
        format!("{pods}\n{}", agents.unwrap_or_else(|error| format!("{error:#}")))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let gone = ["delete", "namespace", self.name.as_str(), "--wait=false", "--ignore-not-found"];
        // The test has ended: whoever looks at the cluster sees what is left.
        let _ = self.cluster.run_kubectl(&gone);
        let _ = self.try_kubectl(&["delete", "pods", "--all", "--wait=false", "--grace-period=1"]);
    }
}

/// Whether a Pod is ready.
pub fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// What a Pod was told of its ports.
pub fn status_of(pod: &Value) -> Option<Value> {
    let text = pod["metadata"]["annotations"]["portolan.dev/ports-status"].as_str()?;
    serde_json::from_str(text).ok()
}
