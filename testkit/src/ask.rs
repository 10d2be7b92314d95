//! Clients of the servers in [`crate::echo`], each with a time limit.
//!
//! They use the namespace of the calling thread: `namespace.run(|| ask::tcp(address))`.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

/// How long one question may take: far more than any answer on one machine needs.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Connects and returns the first line that the server says, without its end.
pub fn tcp(server: impl Into<SocketAddr>) -> io::Result<String> {
    tcp_within(server, PATIENCE)
}

/// [`tcp`] with a time limit of its own: a short one to see that nobody answers.
pub fn tcp_within(server: impl Into<SocketAddr>, patience: Duration) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&server.into(), patience)?;
    first_line(&stream, patience)
}

/// Reads one line of an open connection.
pub fn first_line(stream: &TcpStream, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    let mut line = String::new();
    if BufReader::new(stream).read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    Ok(line.trim_end().to_owned())
}

/// Sends one datagram from a fresh port and returns the answer, without its line end. Never sends twice.
pub fn udp(server: impl Into<SocketAddr>) -> io::Result<String> {
    udp_within(server, PATIENCE)
}

/// [`udp`] with a time limit of its own.
pub fn udp_within(server: impl Into<SocketAddr>, patience: Duration) -> io::Result<String> {
    let server = server.into();
    let any: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    udp_on(&UdpSocket::bind(any)?, server, patience)
}

/// Sends one datagram from `socket` and returns the answer. The answer must come from where the question went.
pub fn udp_on(socket: &UdpSocket, server: SocketAddr, patience: Duration) -> io::Result<String> {
    // A connected socket takes no answer from another address, and hears "port unreachable" as an error.
    socket.connect(server)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who are you?\n")?;
    let mut answer = [0; 2048];
    let length = socket.recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).trim_end().to_owned())
}

/// One HTTP/1.1 request on a connection of its own: the status and the body.
///
/// Small enough to be an independent judge of our servers: no reuse, no redirects, length or chunks or until close.
pub fn http(server: SocketAddr, method: &str, path: &str, body: &str) -> io::Result<(u16, String)> {
    http_within(server, PATIENCE * 5, method, path, body)
}

/// [`http`] with a time limit for each read.
pub fn http_within(
    server: SocketAddr,
    patience: Duration,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
    stream.set_read_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )?;
    let mut reader = BufReader::new(stream);
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| wrong(&format!("no HTTP status in {line:?}")))?;
    let (mut length, mut chunked) = (None, false);
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let header = line.trim_end().to_ascii_lowercase();
        match header.split_once(':') {
            Some(("content-length", value)) => length = value.trim().parse().ok(),
            Some(("transfer-encoding", value)) => chunked = value.contains("chunked"),
            Some(_) => {}
            None => break,
        }
    }
    let mut bytes = Vec::new();
    if chunked {
        loop {
            line.clear();
            reader.read_line(&mut line)?;
            let size =
                usize::from_str_radix(line.trim_end(), 16).map_err(|_| wrong("a chunk without a size"))?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            if size == 0 {
                break;
            }
            bytes.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = length {
        bytes.resize(length, 0);
        reader.read_exact(&mut bytes)?;
    } else {
        reader.read_to_end(&mut bytes)?;
    }
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

/// The body of `GET path`; an error for any status but 200.
pub fn http_get(server: SocketAddr, path: &str) -> io::Result<String> {
    match http(server, "GET", path, "")? {
        (200, body) => Ok(body),
        (status, body) => Err(io::Error::other(format!("GET {path} answered {status}: {body}"))),
    }
}
