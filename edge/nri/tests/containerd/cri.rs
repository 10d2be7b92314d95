//! As much of a CRI client as kubelet's part needs here: unary gRPC over a unix socket.
//!
//! Messages have the tags of cri-api 0.36, `pkg/apis/runtime/v1/api.proto`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request};
use tokio::net::UnixStream;

/// Long enough for a runtime on a busy machine, and for one that waits for a plugin that hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The image that all containers are made of ([`crate::image`]).
pub(crate) const IMAGE: &str = "localhost/portolan/shell:1";

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, optional, tag = "4")]
    dns_config: Option<DnsConfig>,
    #[prost(btree_map = "string, string", tag = "6")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DnsConfig {
    #[prost(string, repeated, tag = "1")]
    servers: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxSandboxSecurityContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxSandboxSecurityContext {
    #[prost(message, optional, tag = "1")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NamespaceOption {
    /// 0: the Pod's own, 2: the node's.
    #[prost(int32, tag = "1")]
    network: i32,
    #[prost(int32, tag = "2")]
    pid: i32,
}

/// `RunPodSandboxResponse`, `CreateContainerResponse`, and the requests that name one thing.
#[derive(Clone, PartialEq, prost::Message)]
struct Identifier {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainerRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<PodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ContainerMetadata>,
    #[prost(message, optional, tag = "2")]
    image: Option<ImageSpec>,
    #[prost(string, repeated, tag = "3")]
    command: Vec<String>,
    #[prost(message, repeated, tag = "6")]
    envs: Vec<KeyValue>,
    #[prost(string, tag = "11")]
    log_path: String,
    #[prost(message, optional, tag = "15")]
    linux: Option<LinuxContainerConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ContainerMetadata {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxContainerConfig {
    #[prost(message, optional, tag = "2")]
    security_context: Option<LinuxContainerSecurityContext>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LinuxContainerSecurityContext {
    #[prost(message, optional, tag = "3")]
    namespace_options: Option<NamespaceOption>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, repeated, tag = "2")]
    command: Vec<String>,
    #[prost(int64, tag = "3")]
    timeout: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExecSyncResponse {
    #[prost(string, tag = "1")]
    stdout: String,
    #[prost(string, tag = "2")]
    stderr: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<Identifier>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Empty>,
}

/// What kubelet would ask of the runtime.
#[derive(Clone, Debug)]
pub(crate) struct Cri {
    pub(crate) socket: PathBuf,
    pub(crate) logs: PathBuf,
    pub(crate) cgroup: String,
}

/// A Pod that runs.
#[derive(Clone, Debug)]
pub(crate) struct RunningPod {
    pub(crate) id: String,
    config: PodSandboxConfig,
    host_network: bool,
}

impl Cri {
    /// Runs a Pod's sandbox.
    pub(crate) async fn run_pod(
        &self,
        name: &str,
        annotations: &[(&str, &str)],
        host_network: bool,
    ) -> Result<RunningPod, String> {
        let text = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let network = if host_network { 2 } else { 0 };
        let namespace_options = Some(NamespaceOption { network, pid: 1 });
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-of-{name}"),
                namespace: "games".to_owned(),
            }),
            log_directory: self.logs.join(name).to_string_lossy().into_owned(),
            dns_config: Some(DnsConfig { servers: vec!["127.0.0.1".to_owned()] }),
            labels: [("app".to_owned(), name.to_owned())].into(),
            annotations: annotations.iter().map(text).collect(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup.clone(),
                security_context: Some(LinuxSandboxSecurityContext { namespace_options }),
            }),
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let response: Identifier = self.call("Runtime", "RunPodSandbox", &request).await?;
        Ok(RunningPod { id: response.id, config, host_network })
    }

    /// Creates a container that runs `script` in a shell, with `PATH` and `env`.
    pub(crate) async fn create(
        &self,
        pod: &RunningPod,
        name: &str,
        script: &str,
        env: &[(&str, &str)],
    ) -> Result<String, String> {
        let envs = env
            .iter()
            .map(|(key, value)| KeyValue { key: (*key).to_owned(), value: (*value).to_owned() })
            .collect();
        let network = if pod.host_network { 2 } else { 0 };
        let namespace_options = Some(NamespaceOption { network, pid: 1 });
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned() }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            envs,
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext { namespace_options }),
            }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let response: Identifier = self.call("Runtime", "CreateContainer", &request).await?;
        Ok(response.id)
    }

    /// Starts a container.
    pub(crate) async fn start(&self, container: &str) -> Result<(), String> {
        self.name("StartContainer", container).await
    }

    /// Stops a Pod and all of its containers, and removes it.
    pub(crate) async fn remove_pod(&self, pod: &RunningPod) -> Result<(), String> {
        self.name("StopPodSandbox", &pod.id).await?;
        self.name("RemovePodSandbox", &pod.id).await
    }

    /// What a script in a running container writes, to both outputs.
    pub(crate) async fn exec(&self, container: &str, script: &str) -> Result<String, String> {
        let request = ExecSyncRequest {
            container_id: container.to_owned(),
            command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: 20,
        };
        let response: ExecSyncResponse = self.call("Runtime", "ExecSync", &request).await?;
        Ok(response.stdout + &response.stderr)
    }

    /// What a container has written so far.
    pub(crate) fn log(&self, pod: &str, container: &str) -> String {
        let file = self.logs.join(pod).join(format!("{container}.log"));
        let log = std::fs::read_to_string(file).unwrap_or_default();
        // "2026-11-21T08:25:06.065676123Z stdout F what it wrote"
        log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(|line| format!("{line}\n")).collect()
    }

    /// How many Pods there are, running or not.
    pub(crate) async fn pods(&self) -> Result<usize, String> {
        let response: ListPodSandboxResponse = self.call("Runtime", "ListPodSandbox", &Empty {}).await?;
        Ok(response.items.len())
    }

    /// Whether the image is known.
    pub(crate) async fn has_image(&self) -> Result<bool, String> {
        let request = ImageStatusRequest { image: Some(ImageSpec { image: IMAGE.to_owned() }) };
        let response: ImageStatusResponse = self.call("Image", "ImageStatus", &request).await?;
        Ok(response.image.is_some())
    }

    async fn name(&self, method: &str, id: &str) -> Result<(), String> {
        let request = Identifier { id: id.to_owned() };
        self.call::<Empty>("Runtime", method, &request).await.map(drop)
    }

    async fn call<A: prost::Message + Default>(
        &self,
        service: &str,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, String> {
        let path = format!("/runtime.v1.{service}Service/{method}");
        let exchange = unary(&self.socket, &path, request.encode_to_vec());
        let answer =
            tokio::time::timeout(LIMIT, exchange).await.map_err(|_| format!("{method}: no answer"))?;
        let answer = answer.map_err(|error| format!("{method}: {error}"))?;
        A::decode(answer).map_err(|error| format!("{method}: {error}"))
    }
}

/// One call of gRPC (its PROTOCOL-HTTP2.md): a message with five bytes in front, and the status in the trailers.
async fn unary(socket: &Path, path: &str, payload: Vec<u8>) -> Result<Bytes, String> {
    let text = |error: h2::Error| error.to_string();
    let socket = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    let (mut client, connection) = h2::client::handshake(socket).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let request = Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .map_err(|error| error.to_string())?;
    let (response, mut body) = client.send_request(request, false).map_err(text)?;
    let mut message = BytesMut::with_capacity(payload.len() + 5);
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).map_err(|error| error.to_string())?);
    message.put_slice(&payload);
    body.send_data(message.freeze(), true).map_err(text)?;
    let (head, mut body) = response.await.map_err(text)?.into_parts();
    let mut received = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(text)?;
        let _ = body.flow_control().release_capacity(piece.len());
        received.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await.map_err(text)?;
    connection.abort();
    // An error without an answer comes with the status in the head.
    let field = |name: &str| {
        let within = |map: &HeaderMap| Some(map.get(name)?.to_str().ok()?.to_owned());
        trailers.as_ref().and_then(within).or_else(|| within(&head.headers))
    };
    match field("grpc-status").as_deref() {
        Some("0") if received.len() >= 5 => {
            received.advance(5);
            Ok(received.freeze())
        }
        Some("0") => Ok(Bytes::new()),
        status => Err(format!("status {status:?}: {}", field("grpc-message").unwrap_or_default())),
    }
}
