//! A runtime that does nothing but speak NRI: the other end of the socket, for tests of plugins.
//!
//! It does what containerd does with a plugin, without containers: [`Runtime::accept`] lets one register, configures
//! and synchronizes it; [`Connected`] then has a method for each event.

use std::{io, path::Path, time::Duration};

use prost::Message as _;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use crate::{
    Container, ContainerAdjustment, Event, Events, PodSandbox, frame,
    link::{self, CallError, Caller, Receiver, Sender},
    message::{
        ConfigureRequest, ConfigureResponse, ContainerRequest, CreateContainerResponse, Empty,
        PLUGIN_SERVICE, RUNTIME_SERVICE, RegisterPluginRequest, StateChangeEvent, SynchronizeRequest,
        SynchronizeResponse,
    },
    ttrpc::{self, Message, Request},
};

/// How long a plugin may take to connect: its process may have to start first.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to register then, as in real runtimes.
const REGISTER_LIMIT: Duration = Duration::from_secs(5);

/// Why a plugin did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum FakeError {
    /// The socket.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The plugin does not register.
    #[error("no plugin registers: {0}")]
    Register(String),
    /// The plugin refuses: what a container runtime would fail with.
    #[error("{0}")]
    Refused(String),
    /// The plugin does not answer in time; a container runtime would go on without it.
    #[error("no answer")]
    Late,
    /// The connection ended; a container runtime would go on without the plugin.
    #[error("the plugin is gone")]
    Gone,
    /// The plugin breaks the protocol.
    #[error("the plugin breaks the protocol: {0}")]
    Protocol(String),
}

impl From<CallError> for FakeError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(status) => Self::Refused(status.message),
            CallError::Late(_) => Self::Late,
            CallError::Closed => Self::Gone,
            error @ (CallError::TooLong | CallError::Decode(_)) => Self::Protocol(error.to_string()),
        }
    }
}

/// Waits for plugins.
#[derive(Debug)]
pub struct Runtime {
    listener: UnixListener,
    /// What it tells a plugin that it waits for an answer, and what it waits.
    pub request_limit: Duration,
    /// Pods and containers of one synchronization message; more are sent in parts.
    pub part: usize,
    /// Whether it tells of events as runtimes before nri 0.10 do.
    pub old: bool,
}

impl Runtime {
    /// Listens on `socket`, which must not exist.
    pub fn listen(socket: &Path) -> Result<Self, FakeError> {
        let listener = UnixListener::bind(socket)?;
        Ok(Self { listener, request_limit: Duration::from_secs(2), part: usize::MAX, old: false })
    }

    /// Takes in one plugin: it registers, and hears what exists.
    pub async fn accept(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
    ) -> Result<Connected, FakeError> {
        let mut plugin = self.register().await?;
        plugin.configure().await?;
        plugin.synchronize(pods, containers, self.part).await?;
        Ok(plugin)
    }

    async fn register(&self) -> Result<Connected, FakeError> {
        let late = |_| FakeError::Register("none connects".to_owned());
        let (socket, _) = timeout(CONNECT_LIMIT, self.listener.accept()).await.map_err(late)??;
        Connected::register(socket, self.request_limit, self.old).await
    }
}

/// A plugin that has registered. Dropping it ends the connection.
#[derive(Debug)]
pub struct Connected {
    /// Its name and index.
    pub name: (String, String),
    /// What it wants to hear of.
    pub events: Events,
    caller: Caller,
    reader: JoinHandle<()>,
    request_limit: Duration,
    old: bool,
}

impl Connected {
    async fn register(socket: UnixStream, request_limit: Duration, old: bool) -> Result<Self, FakeError> {
        let (sender, receiver, _writer) = link::open(socket);
        let caller = Caller::new(sender.clone(), frame::PLUGIN, PLUGIN_SERVICE);
        let (registered, registration) = oneshot::channel();
        let reader = tokio::spawn(read(receiver, sender, caller.clone(), registered));
        let name = match timeout(REGISTER_LIMIT, registration).await {
            Ok(Ok(name)) => name?,
            Ok(Err(_)) => return Err(FakeError::Gone),
            Err(_) => return Err(FakeError::Register("it says nothing".to_owned())),
        };
        Ok(Self { name, events: Events::none(), caller, reader, request_limit, old })
    }

    async fn configure(&mut self) -> Result<(), FakeError> {
        let request = ConfigureRequest {
            runtime_name: "fake".to_owned(),
            runtime_version: "v0".to_owned(),
            request_timeout: i64::try_from(self.request_limit.as_millis()).unwrap_or(i64::MAX),
            nri_version: "v0.12.3".to_owned(),
        };
        let response: ConfigureResponse =
            self.caller.call("Configure", request.encode_to_vec(), self.request_limit).await?;
        self.events = Events::from_subscription(response.events);
        Ok(())
    }

    async fn synchronize(
        &self,
        pods: Vec<PodSandbox>,
        containers: Vec<Container>,
        part: usize,
    ) -> Result<(), FakeError> {
        let mut pods = pods.into_iter().map(Into::into).peekable();
        let mut containers = containers.into_iter().map(Into::into).peekable();
        loop {
            let mut request = SynchronizeRequest {
                pods: pods.by_ref().take(part).collect(),
                containers: containers.by_ref().take(part).collect(),
                more: false,
            };
            request.more = pods.peek().is_some() || containers.peek().is_some();
            let more = request.more;
            let response: SynchronizeResponse =
                self.caller.call("Synchronize", request.encode_to_vec(), self.request_limit).await?;
            if response.more != more {
                return Err(FakeError::Protocol("it does not know that more follows".to_owned()));
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Tells of an event that is about a Pod, if the plugin wants to hear of it.
    pub async fn pod(&self, event: Event, pod: PodSandbox) -> Result<(), FakeError> {
        self.tell(event, pod, None).await
    }

    /// Tells of an event that is about a container, if the plugin wants to hear of it.
    pub async fn container(
        &self,
        event: Event,
        pod: PodSandbox,
        container: Container,
    ) -> Result<(), FakeError> {
        self.tell(event, pod, Some(container)).await
    }

    /// Asks what to change of a container.
    pub async fn create_container(
        &self,
        pod: PodSandbox,
        container: Container,
    ) -> Result<ContainerAdjustment, FakeError> {
        if !self.events.has(Event::CreateContainer) {
            return Ok(ContainerAdjustment::default());
        }
        let request = ContainerRequest { pod: Some(pod.into()), container: Some(container.into()) };
        let response: CreateContainerResponse =
            self.caller.call("CreateContainer", request.encode_to_vec(), self.request_limit).await?;
        Ok(response.adjust.map(Into::into).unwrap_or_default())
    }

    /// Calls any method with any bytes, as a newer or a broken runtime might.
    pub async fn call(&self, method: &str, payload: &[u8]) -> Result<(), FakeError> {
        Ok(self.caller.call::<Empty>(method, payload.to_vec(), self.request_limit).await.map(drop)?)
    }

    /// Waits until the plugin has closed the connection.
    pub async fn closed(&mut self) {
        let _ = (&mut self.reader).await;
    }

    async fn tell(
        &self,
        event: Event,
        pod: PodSandbox,
        container: Option<Container>,
    ) -> Result<(), FakeError> {
        if !self.events.has(event) {
            return Ok(());
        }
        let (pod, container) = (Some(pod.into()), container.map(Into::into));
        let limit = self.request_limit;
        let told: Result<Empty, CallError> = if self.old {
            let event = StateChangeEvent { event: event as i32, pod, container };
            self.caller.call("StateChange", event.encode_to_vec(), limit).await
        } else {
            let request = ContainerRequest { pod, container };
            self.caller.call(event.method(), request.encode_to_vec(), limit).await
        };
        Ok(told.map(drop)?)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.reader.abort();
        self.caller.close();
    }
}

/// Who a plugin says that it is: name and index.
type Registered = oneshot::Sender<Result<(String, String), FakeError>>;

/// Hands answers to whom they are for, and lets the plugin register.
async fn read(mut receiver: Receiver, sender: Sender, caller: Caller, registered: Registered) {
    let mut registered = Some(registered);
    while let Ok((connection, message)) = receiver.next().await {
        match (connection, message.kind) {
            (frame::PLUGIN, ttrpc::RESPONSE) => caller.answered(message),
            (frame::RUNTIME, ttrpc::REQUEST) => {
                let stream = message.stream;
                if let Some(registered) = registered.take() {
                    let _ = registered.send(registration(message));
                }
                let _ = sender.answer(frame::RUNTIME, stream, Ok(bytes::Bytes::new())).await;
            }
            _ => {}
        }
    }
    caller.close();
}

fn registration(message: Message) -> Result<(String, String), FakeError> {
    let broken = |error: prost::DecodeError| FakeError::Protocol(error.to_string());
    let request = Request::decode(message.payload).map_err(broken)?;
    if (request.service.as_str(), request.method.as_str()) != (RUNTIME_SERVICE, "RegisterPlugin") {
        return Err(FakeError::Protocol(format!("it calls {} of {}", request.method, request.service)));
    }
    let request = RegisterPluginRequest::decode(request.payload).map_err(broken)?;
    Ok((request.plugin_name, request.plugin_idx))
}
