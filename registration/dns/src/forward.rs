//! Names outside the zone, for instances in namespaces of their own: asked of the resolvers of this machine.
//!
//! Nothing is cached here: the resolver behind has a cache, and two of them only add up their staleness. Each
//! question has a socket of its own, connected to the resolver: the kernel chooses a random source port and drops
//! what comes from elsewhere, which with the random id makes a forged answer a guess of 1 in 2^32 (RFC 5452).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::{Edns, Message, OpCode, ResponseCode},
    rr::RData,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use crate::{
    answer::Answer,
    message::{Request, UDP_PAYLOAD},
    resolv::Upstreams,
};

/// How long one resolver may think.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long all of them may. Clients ask again after 5 s (resolv.conf(5), `timeout`): an answer after that is for
/// nobody, one right before it saves a second question.
const DEADLINE: Duration = Duration::from_millis(4500);

/// Questions on their way at once. Each has a file descriptor; one more gets SERVFAIL, and the client asks again.
const IN_FLIGHT: usize = 256;

/// Why a resolver gave no answer.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silence,
    #[error("no time left for it")]
    Deadline,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("not a DNS message: {0}")]
    Message(#[from] hickory_proto::ProtoError),
    #[error("its answer has the code {0}")]
    Code(ResponseCode),
}

/// Asks other resolvers.
#[derive(Debug)]
pub(crate) struct Forwarder {
    upstreams: Upstreams,
    room: Arc<Semaphore>,
}

/// The right to have one question on its way.
#[derive(Debug)]
pub(crate) struct Permit {
    _held: OwnedSemaphorePermit,
}

impl Forwarder {
    pub(crate) fn new(upstreams: Upstreams) -> Self {
        Self { upstreams, room: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// A place among the questions on their way; `None` when there are too many.
    pub(crate) fn permit(&self) -> Option<Permit> {
        self.room.clone().try_acquire_owned().ok().map(|held| Permit { _held: held })
    }

    /// The packet to send back: what the first resolver that answers says, or SERVFAIL.
    pub(crate) async fn forward(&self, request: &Request, _permit: Permit) -> (Vec<u8>, ResponseCode) {
        let end = Instant::now() + DEADLINE;
        for &server in self.upstreams.now().iter() {
            match timeout_at(end, ask(server, request)).await.unwrap_or(Err(ForwardError::Deadline)) {
                Ok(message) => {
                    let code = message.metadata.response_code;
                    let mut metadata = request.reply(code);
                    metadata.recursion_available = true;
                    metadata.authentic_data = message.metadata.authentic_data;
                    metadata.truncation = message.metadata.truncation;
                    let answers = request.aliases.iter().cloned().chain(message.answers);
                    let answer = Answer {
                        code,
                        answers: answers.collect(),
                        authority: message.authorities,
                        additional: message.additionals,
                        cut: false,
                        leads_to: None,
                    };
                    return (request.write(metadata, &answer), code);
                }
                Err(error) => {
                    tracing::debug!(%server, name = %request.query.name(), %error, "an upstream resolver failed");
                }
            }
        }
        let mut metadata = request.reply(ResponseCode::ServFail);
        metadata.recursion_available = true;
        (request.refuse(metadata), ResponseCode::ServFail)
    }
}

/// One resolver: UDP, and TCP when it says that there is more.
async fn ask(server: SocketAddr, request: &Request) -> Result<Message, ForwardError> {
    let mut question = Message::query();
    question.metadata.id = rand::random();
    question.metadata.op_code = OpCode::Query;
    question.metadata.recursion_desired = request.metadata.recursion_desired;
    question.metadata.checking_disabled = request.metadata.checking_disabled;
    question.metadata.authentic_data = request.metadata.authentic_data;
    let mut query = request.query.clone();
    if let Some(RData::CNAME(alias)) = request.aliases.last().map(|alias| &alias.data) {
        query.set_name(alias.0.clone());
    }
    question.add_query(query);
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    edns.set_dnssec_ok(request.dnssec_ok());
    question.set_edns(edns);
    let packet = question.to_vec()?;
    let udp =
        timeout(PATIENCE, ask_udp(server, &question, &packet)).await.map_err(|_| ForwardError::Silence)??;
    let answer = if udp.metadata.truncation {
        // What fits into a datagram, with its TC bit, is still better than nothing where TCP is blocked.
        match timeout(PATIENCE, ask_tcp(server, &question, &packet)).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) => {
                tracing::debug!(%server, %error, "an upstream resolver does not answer over TCP");
                udp
            }
            Err(_) => udp,
        }
    } else {
        udp
    };
    match answer.metadata.response_code {
        // Its trouble, or its policy: the next may know better.
        code @ (ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp) => {
            Err(ForwardError::Code(code))
        }
        _ => Ok(answer),
    }
}

async fn ask_udp(server: SocketAddr, question: &Message, packet: &[u8]) -> Result<Message, ForwardError> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(message) if answers(&message, question) => return Ok(message),
            // A forged or late answer: the true one may still come.
            _ => tracing::debug!(%server, "not the answer to our question"),
        }
    }
}

async fn ask_tcp(server: SocketAddr, question: &Message, packet: &[u8]) -> Result<Message, ForwardError> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), packet].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    match Message::from_vec(&buffer).map_err(hickory_proto::ProtoError::from)? {
        message if answers(&message, question) => Ok(message),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question").into()),
    }
}

/// Whether the message answers this question: id, direction and the question itself (RFC 5452 section 9.1).
fn answers(message: &Message, question: &Message) -> bool {
    message.metadata.id == question.metadata.id
        && message.metadata.message_type == hickory_proto::op::MessageType::Response
        && match (message.queries.as_slice(), question.queries.as_slice()) {
            ([theirs], [ours]) => theirs == ours,
            // Some resolvers leave the question out of an error.
            ([], [_]) => message.metadata.response_code != ResponseCode::NoError,
            _ => false,
        }
}
