//! Bytes from one connection to another without coming here: splice(2) by way of a pipe.
//!
//! A pipe is taken when there is something to move and given back when all of it has arrived, so a connection that is
//! silent has none.

use std::{
    future::Future,
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{
    io::Interest,
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::pool::Pool;

/// What a pipe is asked to hold: with a page for each segment of the network this is more than a socket's usual buffer.
/// Beyond `pipe-user-pages-soft` (pipe(7)) an unprivileged user gets less, and it works with that.
const PIPE: usize = 1 << 20;
/// Spare pipes.
static PIPES: Pool<Pipe> = Pool::new(64);

#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let _ = fcntl_setpipe_size(&into, PIPE);
        Ok(Self { out, into })
    }
}

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) idle: Option<Duration>,
    pub(crate) half_closed: Duration,
}

/// When something moved last, and whether one side has said its last.
#[derive(Debug)]
struct Watch {
    start: Instant,
    moved: AtomicU64,
    closed: AtomicU64,
}

impl Watch {
    fn new() -> Self {
        Self { start: Instant::now(), moved: AtomicU64::new(0), closed: AtomicU64::new(0) }
    }

    fn touch(&self) {
        self.moved.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Until when it may stay silent.
    fn until(&self, patience: Patience) -> Option<Instant> {
        let half = self.closed.load(Ordering::Relaxed) > 0;
        let patience = match patience.idle {
            Some(idle) if half => Some(idle.min(patience.half_closed)),
            None if half => Some(patience.half_closed),
            idle => idle,
        }?;
        Some(self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed)) + patience)
    }
}

/// Moves bytes both ways until both sides have said their last, and returns how many (from the first, from the second).
///
/// # Errors
/// One of the connections is broken; what was under way is lost.
pub async fn copy_bidirectional(one: &TcpStream, other: &TcpStream) -> io::Result<(u64, u64)> {
    let (there, back) = (AtomicU64::new(0), AtomicU64::new(0));
    let forever = Patience { idle: None, half_closed: Duration::from_secs(u64::from(u32::MAX)) };
    both(one, other, forever, &there, &back).await?;
    Ok((there.into_inner(), back.into_inner()))
}

/// The same, counting as it goes, and with an end to patience.
pub(crate) async fn both(
    client: &TcpStream,
    backend: &TcpStream,
    patience: Patience,
    received: &AtomicU64,
    sent: &AtomicU64,
) -> io::Result<()> {
    let watch = Watch::new();
    let there = one_way(client, backend, received, &watch);
    let back = one_way(backend, client, sent, &watch);
    let work = async { tokio::try_join!(there, back).map(|_| ()) };
    or_silence(work, &watch, patience).await
}

/// The work, or an error when nothing has moved for too long.
async fn or_silence(
    work: impl Future<Output = io::Result<()>>,
    watch: &Watch,
    patience: Patience,
) -> io::Result<()> {
    tokio::pin!(work);
    // A connection that is half closed between two looks is noticed at the next.
    let look =
        Duration::from_secs(1).max(patience.half_closed.min(patience.idle.unwrap_or(Duration::MAX)) / 8);
    loop {
        let next = watch.until(patience).unwrap_or_else(|| Instant::now() + look).min(Instant::now() + look);
        tokio::select! {
            result = &mut work => return result,
            () = sleep_until(next) => {}
        }
        if watch.until(patience).is_some_and(|until| until <= Instant::now()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

/// Until `from` says its last, which `to` is told.
async fn one_way(from: &TcpStream, to: &TcpStream, counter: &AtomicU64, watch: &Watch) -> io::Result<()> {
    loop {
        from.readable().await?;
        let pipe = PIPES.take(Pipe::new)?;
        loop {
            match from.try_io(Interest::READABLE, || move_bytes(from, &pipe.into, PIPE)) {
                Ok(0) => {
                    watch.closed.fetch_add(1, Ordering::Relaxed);
                    watch.touch();
                    // It may be gone already: then the other direction says so.
                    let _ = rustix::net::shutdown(to, rustix::net::Shutdown::Write);
                    return Ok(());
                }
                Ok(mut left) => {
                    watch.touch();
                    counter.fetch_add(left as u64, Ordering::Relaxed);
                    while left > 0 {
                        match to.async_io(Interest::WRITABLE, || move_bytes(&pipe.out, to, left)).await {
                            Ok(moved) => left -= moved,
                            Err(error) => {
                                // What is still in it is nobody else's.
                                pipe.discard();
                                return Err(error);
                            }
                        }
                    }
                    watch.touch();
                }
                // The pipe is empty: it is the socket that has nothing.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
    }
}

fn move_bytes(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}
