//! One connection to a runtime, from registering to its end.
//!
//! The plugin registers; the runtime configures it, sends what exists, and then calls at every event
//! ([`crate::dispatch`]). Order is only needed up to there: after it each call is a task of its own.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::{
    net::UnixStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Container, Handler, PodSandbox, State,
    dispatch::{self, Failure},
    frame,
    link::{self, CallError, Caller, LinkError, Receiver, Sender},
    message::{
        ConfigureRequest, ConfigureResponse, Empty, PLUGIN_SERVICE, RUNTIME_SERVICE, RegisterPluginRequest,
        SynchronizeRequest, SynchronizeResponse,
    },
    ttrpc::{self, Message, Request, Status, code},
};

/// The version of NRI whose api.proto [`crate::message`] was written from.
const NRI_VERSION: &str = "v0.12.3";
/// Runtimes take up one plugin after the other and give each 5 seconds to register.
const REGISTER_LIMIT: Duration = Duration::from_secs(30);
/// What runtimes wait when they do not say it.
const REQUEST_LIMIT: Duration = Duration::from_secs(2);
/// Calls that are answered at a time. Runtimes have one.
const CALLS: usize = 64;
/// Pods and containers that one node may have; more is no runtime.
const OBJECTS: usize = 500_000;

/// Why a connection came to nothing, or ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the runtime does not take the plugin: {0}")]
    Register(#[source] CallError),
    #[error("the runtime did not configure the plugin within {} s", REGISTER_LIMIT.as_secs())]
    NotConfigured,
    #[error("the runtime takes no answers")]
    NotRead,
    #[error("the runtime says that more than {OBJECTS} Pods and containers exist")]
    TooMuch,
}

/// What a session needs from outside.
pub(crate) struct Session<'a, H> {
    pub(crate) name: &'a str,
    pub(crate) index: &'a str,
    pub(crate) handler: &'a Arc<H>,
    pub(crate) state: &'a watch::Sender<State>,
    pub(crate) shutdown: &'a CancellationToken,
}

impl<H: Handler> Session<'_, H> {
    /// Talks until the connection ends; `Ok` when the plugin shuts down.
    pub(crate) async fn run(self, socket: UnixStream) -> Result<(), SessionError> {
        self.state.send_replace(State::Registering);
        let (sender, receiver, writer) = link::open(socket);
        let mut talk = Talk {
            handler: Arc::clone(self.handler),
            sender,
            runtime: None,
            request_limit: REQUEST_LIMIT,
            pods: Vec::new(),
            containers: Vec::new(),
            calls: JoinSet::new(),
        };
        let ended = talk.talk(&self, receiver).await;
        if ended.is_ok() {
            // What has been asked is answered: the runtime waits for it. Each has its own limit.
            while talk.calls.join_next().await.is_some() {}
        }
        // Drops what is still being asked, and the last sender, which lets the writer end.
        drop(talk);
        let _ = timeout(REQUEST_LIMIT, writer).await;
        ended
    }
}

struct Talk<H> {
    handler: Arc<H>,
    sender: Sender,
    /// Who the runtime is, once it has said so.
    runtime: Option<(String, String)>,
    request_limit: Duration,
    /// What has come of a synchronization in parts.
    pods: Vec<PodSandbox>,
    containers: Vec<Container>,
    /// Answers that are being found. `true` when it was the one that makes the plugin ready.
    calls: JoinSet<bool>,
}

impl<H: Handler> Talk<H> {
    async fn talk(&mut self, session: &Session<'_, H>, mut receiver: Receiver) -> Result<(), SessionError> {
        let caller = Caller::new(self.sender.clone(), frame::RUNTIME, RUNTIME_SERVICE);
        let request = RegisterPluginRequest {
            plugin_name: session.name.to_owned(),
            plugin_idx: session.index.to_owned(),
            nri_version: NRI_VERSION.to_owned(),
        };
        let register = caller.call::<Empty>("RegisterPlugin", request.encode_to_vec(), REGISTER_LIMIT);
        tokio::pin!(register);
        let (mut registered, begun) = (false, Instant::now());
        loop {
            tokio::select! {
                () = session.shutdown.cancelled() => return Ok(()),
                () = self.sender.closed() => return Err(SessionError::NotRead),
                () = sleep_until(begun + REGISTER_LIMIT), if self.runtime.is_none() => {
                    return Err(SessionError::NotConfigured);
                }
                answer = &mut register, if !registered => {
                    answer.map_err(SessionError::Register)?;
                    registered = true;
                }
                Some(call) = self.calls.join_next() => {
                    if let (Ok(true), Some((runtime, version))) = (call, self.runtime.clone()) {
                        session.state.send_replace(State::Ready { runtime, version });
                    }
                }
                // When too much is asked, nothing more is read until something is answered.
                message = receiver.next(), if self.calls.len() < CALLS => match message? {
                    (frame::RUNTIME, message) if message.kind == ttrpc::RESPONSE => caller.answered(message),
                    (frame::PLUGIN, message) if message.kind == ttrpc::REQUEST => self.called(message)?,
                    (connection, message) => {
                        tracing::debug!(connection, kind = message.kind, "a message that nobody asked for");
                    }
                },
            }
        }
    }

    fn called(&mut self, message: Message) -> Result<(), SessionError> {
        let stream = message.stream;
        let request = match Request::decode(message.payload) {
            Ok(request) if request.service == PLUGIN_SERVICE => request,
            Ok(request) => {
                let message = format!("this plugin has no service {}", request.service);
                self.reply(stream, Err(Status { code: code::UNIMPLEMENTED, message }));
                return Ok(());
            }
            Err(error) => {
                let message = format!("the request cannot be read: {error}");
                self.reply(stream, Err(Status { code: code::INTERNAL, message }));
                return Ok(());
            }
        };
        let limit = dispatch::limit(request.timeout_nano, self.request_limit);
        match request.method.as_str() {
            "Configure" => self.configure(stream, request.payload),
            "Synchronize" => return self.synchronize(stream, request.payload, limit),
            _ => {
                let (handler, sender) = (Arc::clone(&self.handler), self.sender.clone());
                self.calls.spawn(async move {
                    let answer = dispatch::answer(&*handler, &request.method, request.payload, limit).await;
                    let _ = sender.answer(frame::PLUGIN, stream, answer).await;
                    false
                });
            }
        }
        Ok(())
    }

    fn configure(&mut self, stream: u32, payload: Bytes) {
        let request = ConfigureRequest::decode(payload).unwrap_or_else(|error| {
            tracing::error!(%error, "what the runtime says of itself cannot be read");
            ConfigureRequest::default()
        });
        if let Ok(milliseconds @ 1..) = u64::try_from(request.request_timeout) {
            self.request_limit = Duration::from_millis(milliseconds);
        }
        tracing::debug!(
            runtime = request.runtime_name,
            version = request.runtime_version,
            nri = request.nri_version,
            limit = ?self.request_limit,
            "configured"
        );
        self.runtime = Some((request.runtime_name, request.runtime_version));
        let response = ConfigureResponse { events: self.handler.events().subscription() };
        self.reply(stream, Ok(response.encode_to_vec().into()));
    }

    fn synchronize(&mut self, stream: u32, payload: Bytes, limit: Duration) -> Result<(), SessionError> {
        let request = match SynchronizeRequest::decode(payload) {
            Ok(request) => request,
            Err(error) => {
                let message = format!("the request cannot be read: {error}");
                self.reply(stream, Err(Status { code: code::INTERNAL, message }));
                return Ok(());
            }
        };
        self.pods.extend(request.pods.into_iter().map(PodSandbox::from));
        self.containers.extend(request.containers.into_iter().map(Container::from));
        if self.pods.len() + self.containers.len() > OBJECTS {
            return Err(SessionError::TooMuch);
        }
        let response = SynchronizeResponse { more: request.more };
        let response = Ok(response.encode_to_vec().into());
        if request.more {
            self.reply(stream, response);
            return Ok(());
        }
        let (pods, containers) = (std::mem::take(&mut self.pods), std::mem::take(&mut self.containers));
        tracing::debug!(pods = pods.len(), containers = containers.len(), "synchronizing");
        let (handler, sender) = (Arc::clone(&self.handler), self.sender.clone());
        self.calls.spawn(async move {
            let asked = async { handler.synchronize(pods, containers).await };
            match dispatch::guarded(limit, asked).await {
                Ok(()) => {}
                Err(failure @ (Failure::Late(_) | Failure::Panicked)) => {
                    // An error would make the runtime close the connection, and help nobody.
                    tracing::error!("synchronizing with the runtime: {failure}");
                }
            }
            sender.answer(frame::PLUGIN, stream, response).await.is_ok()
        });
        Ok(())
    }

    /// Sends an answer that is there already.
    fn reply(&mut self, stream: u32, answer: Result<Bytes, Status>) {
        let sender = self.sender.clone();
        self.calls.spawn(async move {
            let _ = sender.answer(frame::PLUGIN, stream, answer).await;
            false
        });
    }
}
