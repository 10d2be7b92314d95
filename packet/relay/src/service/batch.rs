//! Many datagrams by one system call: recvmmsg(2) with GRO, and segmentation offload (udp(7), UDP_SEGMENT) to send.
//!
//! What goes to one destination in a row and has one size is sent as one; where the kernel does not take that, for a
//! size above the path's or an old device, one by one.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
};

use portolan_netlink::fragments;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::{io::Interest, net::UdpSocket};

use super::pool::{Pool, Taken};

/// The largest datagram, or several that the kernel has joined: never more.
const SLOT: usize = 65_536;
/// Datagrams, or joined runs of them, that are received at once.
const SLOTS: usize = 16;
/// What one send carries: the largest IPv4 packet without its headers.
const MOST: usize = 65_507;
/// Above this no path of Ethernet takes a segment whole, so nothing is joined.
const LARGEST_SEGMENT: usize = 1_472;

static BUFFERS: Pool<Buffers> = Pool::new(4);

/// Room for what is received at once, and for what is sent at once.
#[derive(Debug)]
pub(crate) struct Buffers {
    received: Vec<u8>,
    joined: Vec<u8>,
}

impl Buffers {
    /// Kept by whoever has something to receive, for as long: ten thousand silent clients need none.
    pub(crate) fn take() -> Taken<'static, Self> {
        let make = || {
            Ok::<_, std::convert::Infallible>(Self {
                received: vec![0; SLOT * SLOTS],
                joined: Vec::with_capacity(MOST),
            })
        };
        match BUFFERS.take(make) {
            Ok(buffers) => buffers,
            Err(never) => match never {},
        }
    }
}

/// A socket with batches.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// What was received: who from, to which address, and the datagrams one after the other, each so long but the last.
pub(crate) type Received<'a> = (RecvMeta, &'a [u8]);

/// Where to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) to: SocketAddr,
    /// With which source address; `None`: as the socket is bound.
    pub(crate) from: Option<IpAddr>,
}

impl Socket {
    pub(crate) fn new(socket: UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        fragments::allow(&socket, socket.local_addr()?.is_ipv6())?;
        Ok(Self { socket, state })
    }

    /// Until there is something to receive.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// What is there, in one system call. The last value is room for [`Batch`].
    pub(crate) fn receive<'a>(
        &self,
        buffers: &'a mut Buffers,
    ) -> io::Result<(impl Iterator<Item = Received<'a>> + use<'a>, &'a mut Vec<u8>)> {
        let mut meta = [RecvMeta::default(); SLOTS];
        let Buffers { received, joined } = buffers;
        let count = self.socket.try_io(Interest::READABLE, || {
            let mut slots = received.chunks_exact_mut(SLOT).map(IoSliceMut::new);
            let mut slots: [IoSliceMut<'_>; SLOTS] =
                std::array::from_fn(|_| slots.next().unwrap_or_else(|| IoSliceMut::new(&mut [])));
            self.state.recv((&self.socket).into(), &mut slots, &mut meta)
        })?;
        let received: &'a [u8] = received;
        let slots = meta.into_iter().zip(received.chunks_exact(SLOT)).take(count);
        Ok((slots.map(|(meta, slot)| (meta, &slot[..meta.len])), joined))
    }

    /// Sends at once, waiting for room where `wait` says so; otherwise what does not fit is lost, as datagrams may be.
    async fn send(&self, way: Way, bytes: &[u8], segment: usize, wait: bool) -> io::Result<()> {
        let transmit = |contents, segment_size| Transmit {
            destination: way.to,
            ecn: None,
            contents,
            segment_size,
            src_ip: way.from,
        };
        let send = async |transmit: &Transmit<'_>| {
            let send = || self.state.try_send((&self.socket).into(), transmit);
            let sent = match wait {
                true => self.socket.async_io(Interest::WRITABLE, send).await,
                false => self.socket.try_io(Interest::WRITABLE, send),
            };
            match sent {
                // That was the answer to an earlier one (ICMP), and this one has not been sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    self.socket.try_io(Interest::WRITABLE, send)
                }
                sent => sent,
            }
        };
        if bytes.len() <= segment {
            return send(&transmit(bytes, None)).await;
        }
        match send(&transmit(bytes, Some(segment))).await {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                let mut result = Ok(());
                for one in bytes.chunks(segment) {
                    result = send(&transmit(one, None)).await;
                }
                result
            }
            sent => sent,
        }
    }
}

/// Datagrams on their way out, joined as far as they can be.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    socket: &'a Socket,
    way: Way,
    wait: bool,
    joined: &'a mut Vec<u8>,
    segment: usize,
    count: usize,
    /// Those that were not sent.
    pub(crate) lost: usize,
}

impl<'a> Batch<'a> {
    /// To one destination.
    pub(crate) fn new(socket: &'a Socket, way: Way, wait: bool, joined: &'a mut Vec<u8>) -> Self {
        joined.clear();
        Self { socket, way, wait, joined, segment: 0, count: 0, lost: 0 }
    }

    /// Adds what was received; `stride` is the length of each datagram in it but the last.
    pub(crate) async fn add(&mut self, bytes: &[u8], stride: usize) {
        if bytes.is_empty() {
            self.flush().await;
            self.sent(self.socket.send(self.way, bytes, 1, self.wait).await, 1);
        }
        for datagram in bytes.chunks(stride.max(1)) {
            let fits = self.count > 0
                && self.segment <= LARGEST_SEGMENT
                && datagram.len() <= self.segment
                && self.joined.len().is_multiple_of(self.segment)
                && self.joined.len() + datagram.len() <= MOST
                && self.count < self.socket.state.max_gso_segments();
            if !fits {
                self.flush().await;
                self.segment = datagram.len();
            }
            self.joined.extend_from_slice(datagram);
            self.count += 1;
        }
    }

    /// Sends what is left.
    pub(crate) async fn flush(&mut self) {
        if self.count > 0 {
            let sent = self.socket.send(self.way, self.joined, self.segment, self.wait).await;
            self.sent(sent, self.count);
        }
        self.joined.clear();
        self.count = 0;
    }

    fn sent(&mut self, result: io::Result<()>, count: usize) {
        if let Err(error) = result {
            tracing::trace!(%error, to = %self.way.to, count, "datagrams are lost");
            self.lost += count;
        }
    }
}
