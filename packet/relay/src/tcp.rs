//! TCP: accepts, connects to the instance, copies in both directions.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::relay::{Context, Counted};

/// After an error of accept(2), which is of the machine (descriptors, memory), not of a client.
const PAUSE: Duration = Duration::from_millis(100);
/// A peer that is gone without a word is noticed after some of these.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Works until `end`. From `closing` on nobody new is accepted.
pub(crate) async fn serve(listener: TcpListener, context: Arc<Context>) {
    let room = Arc::new(Semaphore::new(context.limits.connections));
    let mut connections = JoinSet::new();
    let accepting = async {
        loop {
            while connections.try_join_next().is_some() {}
            // Whoever comes while there is no room waits in the kernel.
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let context = Arc::clone(&context);
                    connections.spawn(async move {
                        connection(stream, &context).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection on the loopback");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = context.closing.cancelled() => {}
    }
    drop(listener);
    tokio::select! {
        () = async { while connections.join_next().await.is_some() {} } => context.empty.notify_one(),
        () = context.end.cancelled() => connections.shutdown().await,
    }
}

async fn connection(mut client: TcpStream, context: &Context) {
    let asked = client.local_addr().map(|address| address.ip().to_canonical());
    // The socket's filter lets nothing else in; this is what would be true without it.
    let target =
        asked.ok().filter(|address| address.is_loopback()).and_then(|asked| context.targets.pick(asked));
    let Some(target) = target else { return reset(&client) };
    let _counted = Counted::new(&context.shared);
    let served = async {
        let mut instance = connect(target, context.limits.connect).await?;
        for stream in [&client, &instance] {
            let _ = stream.set_nodelay(true);
            let _ = SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        }
        let copied = copy_bidirectional(&mut client, &mut instance).await;
        if copied.is_err() {
            reset(&instance);
        }
        copied
    };
    if let Err(error) = served.await {
        tracing::debug!(%error, %target, "a connection on the loopback was cut");
        context.shared.failed();
        reset(&client);
    }
}

async fn connect(target: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    timeout(patience, TcpStream::connect(target))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Closing it then tells the peer that something went wrong, instead of an end in order (RFC 9293 section 3.10.4).
fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
