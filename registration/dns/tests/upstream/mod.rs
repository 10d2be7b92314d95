//! A resolver on loopback that knows three names under example.org.

use std::net::SocketAddr;

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, rdata::TXT},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

/// Starts it; it ends with the runtime.
pub(crate) async fn start() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            let question = Message::from_vec(&buffer[..length]).unwrap();
            if question.queries[0].name().to_ascii() == "forged.example.org." {
                let mut wrong_id = answer(&question, "198.51.100.66");
                wrong_id.metadata.id = wrong_id.metadata.id.wrapping_add(1);
                udp.send_to(&wrong_id.to_vec().unwrap(), client).await.unwrap();
                let mut wrong_question = answer(&question, "198.51.100.66");
                wrong_question.queries[0].set_name(Name::from_ascii("other.example.org.").unwrap());
                udp.send_to(&wrong_question.to_vec().unwrap(), client).await.unwrap();
                udp.send_to(b"nonsense", client).await.unwrap();
            }
            let mut reply = answer(&question, "203.0.113.80");
            if reply.answers.len() > 10 {
                reply.answers.clear();
                reply.metadata.truncation = true;
            }
            udp.send_to(&reply.to_vec().unwrap(), client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; usize::from(length)];
            stream.read_exact(&mut buffer).await.unwrap();
            let reply = answer(&Message::from_vec(&buffer).unwrap(), "203.0.113.80").to_vec().unwrap();
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    address
}

fn answer(question: &Message, address: &str) -> Message {
    let name = question.queries[0].name().clone();
    let mut reply = question.clone();
    reply.metadata.message_type = MessageType::Response;
    reply.metadata.recursion_available = true;
    match name.to_ascii().split('.').next().unwrap() {
        "nx" => reply.metadata.response_code = ResponseCode::NXDomain,
        "fail" => reply.metadata.response_code = ResponseCode::ServFail,
        "big" => {
            for i in 0..40 {
                let text = TXT::new(vec![format!("{i} {}", "x".repeat(100))]);
                reply.add_answer(Record::from_rdata(name.clone(), 60, RData::TXT(text)));
            }
        }
        _ => {
            let address: std::net::Ipv4Addr = address.parse().unwrap();
            reply.add_answer(Record::from_rdata(name, 60, RData::A(address.into())));
        }
    }
    reply
}
