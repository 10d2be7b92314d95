//! One DNS question: over UDP, again after a while, and over TCP when the answer does not fit.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};
use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// What we take over UDP without fragments (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// How long to wait for each try.
const PATIENCE: Duration = Duration::from_secs(2);
/// Datagrams get lost.
const TRIES: usize = 3;

/// Asks `server` for the records of `kind` at `name`.
pub(crate) async fn ask(server: SocketAddr, name: &Name, kind: RecordType) -> anyhow::Result<Message> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_PAYLOAD);
    question.set_edns(edns);
    let packet = question.to_vec().context("cannot write the question")?;
    for _ in 0..TRIES {
        let answer = match timeout(PATIENCE, over_udp(server, &question, &packet)).await {
            Ok(answer) => answer?,
            Err(_) => continue,
        };
        if !answer.metadata.truncation {
            return Ok(answer);
        }
        return match timeout(PATIENCE, over_tcp(server, &question, &packet)).await {
            Ok(answer) => answer,
            Err(_) => bail!("it did not answer over TCP within {}", humantime::format_duration(PATIENCE)),
        };
    }
    bail!("it did not answer {TRIES} questions within {} each", humantime::format_duration(PATIENCE))
}

async fn over_udp(server: SocketAddr, question: &Message, packet: &[u8]) -> anyhow::Result<Message> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await.context("cannot open a UDP socket")?;
    // Connected, so that "nobody listens there" is told at once.
    socket.connect(server).await.context("there is no way there")?;
    socket.send(packet).await.context("nobody listens there")?;
    let mut buffer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut buffer).await.context("nobody listens there")?;
        // Whatever is no answer to this question is from somebody else, or from an earlier one.
        let answer = buffer.get(..length).and_then(|packet| Message::from_vec(packet).ok());
        if let Some(answer) = answer.filter(|answer| answers(question, answer)) {
            return Ok(answer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, packet: &[u8]) -> anyhow::Result<Message> {
    let mut stream = TcpStream::connect(server).await.context("cannot connect over TCP")?;
    stream.write_u16(u16::try_from(packet.len())?).await?;
    stream.write_all(packet).await?;
    let length = stream.read_u16().await.context("it closed the TCP connection")?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await.context("it closed the TCP connection amid its answer")?;
    let answer = Message::from_vec(&buffer).context("its answer is no DNS message")?;
    if !answers(question, &answer) {
        bail!("it answered another question");
    }
    Ok(answer)
}

fn answers(question: &Message, answer: &Message) -> bool {
    question.metadata.id == answer.metadata.id && question.queries == answer.queries
}
