//! One connection between a plugin and a runtime: messages in, messages out, and calls.
//!
//! The reader is whoever owns the [`Receiver`]; the writer is a task behind a bounded queue, so that answers of
//! concurrent calls never interleave and nobody waits for a peer that does not read. [`Caller`] makes calls on one of
//! the two logical connections. [`crate::session`] is the plugin's end of it, [`crate::fake`] the runtime's.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    frame::{self, FrameTooLong},
    ttrpc::{self, Message, MessageTooLong, Request, Response, Status},
};

/// Messages that wait to be written. More are a peer that does not read.
const QUEUE: usize = 256;
/// A local peer that takes nothing for so long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How much is asked of the socket at once.
const READ_CHUNK: usize = 64 << 10;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("the other end closed the connection")]
    Closed,
    #[error("cannot read: {0}")]
    Read(#[source] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameTooLong),
    #[error(transparent)]
    Message(#[from] MessageTooLong),
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the connection ended")]
    Closed,
    #[error("the request is longer than ttrpc allows")]
    TooLong,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the answer cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("{}", .0.message)]
    Refused(Status),
}

/// Splits a socket into its two ends. The writer's task ends when all senders are dropped and everything is written.
pub(crate) fn open(socket: UnixStream) -> (Sender, Receiver, JoinHandle<()>) {
    let (read, write) = socket.into_split();
    let (queue, waiting) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write_all(write, waiting));
    (Sender { queue }, Receiver::new(read), writer)
}

async fn write_all(mut socket: OwnedWriteHalf, mut waiting: mpsc::Receiver<(u32, Bytes)>) {
    let mut out = BytesMut::new();
    while let Some((connection, message)) = waiting.recv().await {
        frame::encode(connection, &message, &mut out);
        match timeout(WRITE_LIMIT, socket.write_all(&out)).await {
            Ok(Ok(())) => out.clear(),
            Ok(Err(error)) => return tracing::debug!(%error, "cannot write to the other end of NRI"),
            Err(_) => {
                return tracing::warn!("the other end of NRI takes nothing: the connection is given up");
            }
        }
        // A long synchronization should not keep its buffer for ever.
        if out.capacity() > READ_CHUNK {
            out = BytesMut::new();
        }
    }
}

/// The sending end; clones share one queue.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    queue: mpsc::Sender<(u32, Bytes)>,
}

impl Sender {
    /// Queues a message.
    pub(crate) async fn send(&self, connection: u32, message: &Message) -> Result<(), CallError> {
        let bytes = message.encode().ok_or(CallError::TooLong)?;
        self.queue.send((connection, bytes)).await.map_err(|_| CallError::Closed)
    }

    /// Answers the call of `stream`. A payload that is too long becomes an error, because the caller waits.
    pub(crate) async fn answer(
        &self,
        connection: u32,
        stream: u32,
        answer: Result<Bytes, Status>,
    ) -> Result<(), CallError> {
        let response = match answer {
            Ok(payload) => Response { status: None, payload },
            Err(status) => Response { status: Some(status), payload: Bytes::new() },
        };
        let message = |response: &Response| Message {
            stream,
            kind: ttrpc::RESPONSE,
            flags: 0,
            payload: response.encode_to_vec().into(),
        };
        match self.send(connection, &message(&response)).await {
            Err(CallError::TooLong) => {
                let status =
                    Status { code: ttrpc::code::INTERNAL, message: "the answer is too long".to_owned() };
                let response = Response { status: Some(status), payload: Bytes::new() };
                self.send(connection, &message(&response)).await
            }
            sent => sent,
        }
    }

    /// Waits until the writer has given up or has been told to.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: OwnedReadHalf,
    wire: BytesMut,
    /// Bytes of messages that are not whole, for each logical connection.
    parts: [(u32, BytesMut); 2],
    whole: VecDeque<(u32, Message)>,
}

impl Receiver {
    fn new(socket: OwnedReadHalf) -> Self {
        let parts = [frame::PLUGIN, frame::RUNTIME].map(|connection| (connection, BytesMut::new()));
        Self { socket, wire: BytesMut::new(), parts, whole: VecDeque::new() }
    }

    /// The next message, and the logical connection that it came on. Nothing is lost when the wait is given up.
    pub(crate) async fn next(&mut self) -> Result<(u32, Message), LinkError> {
        loop {
            if let Some(message) = self.whole.pop_front() {
                return Ok(message);
            }
            if let Some(frame) = frame::decode(&mut self.wire)? {
                // Frames of other connections are for a newer protocol than this one.
                let part = self.parts.iter_mut().find(|(connection, _)| *connection == frame.connection);
                if let Some((connection, part)) = part {
                    part.extend_from_slice(&frame.payload);
                    while let Some(message) = Message::decode(part)? {
                        self.whole.push_back((*connection, message));
                    }
                }
                continue;
            }
            self.wire.reserve(READ_CHUNK);
            match self.socket.read_buf(&mut self.wire).await {
                Ok(0) => return Err(LinkError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(LinkError::Closed);
                }
                Err(error) => return Err(LinkError::Read(error)),
            }
        }
    }
}

/// Makes calls on one logical connection. Whoever reads hands it the responses.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    sender: Sender,
    connection: u32,
    service: &'static str,
    /// The stream of the last call. Streams have to arrive in ascending order, so it is locked until the request is
    /// queued.
    last: Arc<tokio::sync::Mutex<u32>>,
    waiting: Arc<Mutex<HashMap<u32, oneshot::Sender<Message>>>>,
}

impl Caller {
    pub(crate) fn new(sender: Sender, connection: u32, service: &'static str) -> Self {
        Self { sender, connection, service, last: Arc::default(), waiting: Arc::default() }
    }

    /// Calls `method` and waits for its answer.
    pub(crate) async fn call<A: prost::Message + Default>(
        &self,
        method: &str,
        payload: Vec<u8>,
        limit: Duration,
    ) -> Result<A, CallError> {
        let request = Request {
            service: self.service.to_owned(),
            method: method.to_owned(),
            payload: payload.into(),
            timeout_nano: i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX),
        };
        let exchange = async {
            let (answer, answered) = oneshot::channel();
            let waiting = {
                let mut last = self.last.lock().await;
                // Odd, as the protocol wants of the end that connects; 0 before the first.
                let stream = if *last == 0 { 1 } else { *last + 2 };
                *last = stream;
                self.waiting().insert(stream, answer);
                let waiting = Waiting { caller: self, stream };
                let payload = request.encode_to_vec().into();
                let message = Message { stream, kind: ttrpc::REQUEST, flags: 0, payload };
                self.sender.send(self.connection, &message).await?;
                waiting
            };
            let message = answered.await.map_err(|_| CallError::Closed)?;
            drop(waiting);
            let response = Response::decode(message.payload)?;
            match response.status {
                Some(status) if status.code != 0 => Err(CallError::Refused(status)),
                _ => Ok(A::decode(response.payload)?),
            }
        };
        timeout(limit, exchange).await.unwrap_or(Err(CallError::Late(limit)))
    }

    /// Gives a response to whom it is for. One that nobody waits for any more is dropped.
    pub(crate) fn answered(&self, message: Message) {
        if let Some(answer) = self.waiting().remove(&message.stream) {
            let _ = answer.send(message);
        }
    }

    /// No response will come any more.
    pub(crate) fn close(&self) {
        self.waiting().clear();
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Message>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a call whose caller has gone.
struct Waiting<'a> {
    caller: &'a Caller,
    stream: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.caller.waiting().remove(&self.stream);
    }
}
