//! A way to the API server that can be cut.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Forwards TCP connections while it is open. Closed it refuses them, and cuts those that are there; stalled it takes
/// them and says nothing.
pub(crate) struct Gate {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    stalled: Arc<AtomicBool>,
    cut: tokio::sync::watch::Sender<CancellationToken>,
    _task: tokio_util::sync::DropGuard,
}

impl Gate {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (open, stalled) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
        let (cut, cuts) = tokio::sync::watch::channel(CancellationToken::new());
        let stop = CancellationToken::new();
        let (is_open, is_stalled, stopping) = (open.clone(), stalled.clone(), stop.clone());
        tokio::spawn(async move {
            while let Some(Ok((mut near, _))) = stopping.run_until_cancelled(listener.accept()).await {
                if !is_open.load(Ordering::Acquire) {
                    continue;
                }
                let (cut, is_stalled) = (cuts.borrow().clone(), is_stalled.clone());
                tokio::spawn(cut.run_until_cancelled_owned(async move {
                    if is_stalled.load(Ordering::Acquire) {
                        std::future::pending::<()>().await;
                    }
                    if let Ok(mut far) = TcpStream::connect(target).await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                }));
            }
        });
        Self { address, open, stalled, cut, _task: stop.drop_guard() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts all connections and refuses new ones.
    pub(crate) fn close(&self) {
        self.open.store(false, Ordering::Release);
        self.cut_all();
    }

    /// Cuts all connections, and takes new ones without an answer.
    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Release);
        self.cut_all();
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        if self.stalled.swap(false, Ordering::AcqRel) {
            self.cut_all();
        }
    }

    fn cut_all(&self) {
        self.cut.send_replace(CancellationToken::new()).cancel();
    }
}
