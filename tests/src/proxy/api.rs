//! The API server of a light cluster, as a test writes to it: JSON over a socket that `kubectl proxy` opens.
//!
//! A kubectl for each object would take a tenth of a second; this takes two milliseconds.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use portolan_cluster::{Cluster, Options, Tools, down};
use portolan_testkit::{Background, eventually_ok, skip};
use serde_json::Value;
use tempfile::TempDir;

/// How long the API server may take for one answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where Services of a Kubernetes namespace are.
pub const SERVICES: &str = "/api/v1/namespaces/proxy/services";
/// Where their EndpointSlices are.
pub const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/proxy/endpointslices";
/// Where Nodes are.
pub const NODES: &str = "/api/v1/nodes";

/// A light cluster that goes away with this value.
#[derive(Debug)]
pub struct Api {
    cluster: Cluster,
    _forward: Background,
    folder: TempDir,
}

impl Api {
    /// Starts one with a name that begins with `about`; `None`, with a printed reason, when its programs are not built.
    #[track_caller]
    pub fn start(about: &str) -> Option<Self> {
        let built = Tools::new().is_ok_and(|tools| tools.has("kube-apiserver"));
        if !built && std::env::var_os("PORTOLAN_NO_SKIP").is_none() {
            skip("the programs of Kubernetes are not built: cargo xtask cluster build kube");
            return None;
        }
        let name = format!("{about}-{}", std::process::id());
        let cluster = match Cluster::up(&name, Options { nodes: 0, ..Options::default() }, &|_| {}) {
            Ok(cluster) => cluster,
            Err(error) => {
                let _ = down(&name, &|_| {});
                panic!("{error:#}");
            }
        };
        let folder = TempDir::with_prefix("portolan-proxy-").unwrap_or_else(|error| panic!("{error}"));
        let socket = format!("--unix-socket={}", folder.path().join("api").display());
        let proxy = cluster.kubectl_command(&["proxy", &socket, "--disable-filter=true"]);
        let mut proxy = proxy.unwrap_or_else(|error| panic!("{error:#}"));
        let forward = Background::start(&mut proxy);
        let api = Self { cluster, _forward: forward, folder };
        let made = || {
            api.try_send(
                "POST",
                "/api/v1/namespaces",
                Some(&serde_json::json!({"metadata": {"name": "proxy"}})),
            )
        };
        if let Err(error) = eventually_ok(PATIENCE, made) {
            panic!("{error}");
        }
        Some(api)
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A kubeconfig for programs in the namespaces of nodes.
    pub fn kubeconfig(&self) -> PathBuf {
        self.cluster.inside_kubeconfig()
    }

    /// A file that goes away with the cluster.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Creates an object in a collection.
    #[track_caller]
    pub fn create(&self, collection: &str, object: &Value) -> Value {
        self.send("POST", collection, Some(object))
    }

    /// Reads an object.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, None)
    }

    /// Changes some fields of an object (RFC 7396).
    #[track_caller]
    pub fn patch(&self, path: &str, change: &Value) -> Value {
        self.send("PATCH", path, Some(change))
    }

    /// Deletes an object or everything in a collection; one that is not there is fine.
    #[track_caller]
    pub fn delete(&self, path: &str) {
        match self.try_send("DELETE", path, None) {
            Err(error) if !error.contains("404") => panic!("{error}"),
            _ => {}
        }
    }

    #[track_caller]
    fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        match self.try_send(method, path, body) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
    }

    /// One request; what the API server refuses is an error with its reason.
    pub fn try_send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let told = |error: std::io::Error| format!("{method} {path}: {error}");
        let body = body.map(Value::to_string).unwrap_or_default();
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut stream = UnixStream::connect(self.folder.path().join("api")).map_err(told)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(told)?;
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: api\r\nAccept: application/json\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).map_err(told)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map_err(told)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) =
            answer.split_once("\r\n\r\n").ok_or_else(|| format!("{method} {path}: {answer}"))?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("{method} {path}: {status}: {body}"));
        }
        serde_json::from_str(body).map_err(|error| format!("{method} {path}: {error}: {body}"))
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        let gone = down(self.cluster.name(), &|_| {});
        // A second panic would hide the first.
        assert!(std::thread::panicking() || gone.is_ok(), "{gone:?}");
    }
}
