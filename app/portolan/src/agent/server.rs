//! The socket at which the CNI plugin asks: one line of JSON and one line back for each connection.
//!
//! Whoever can write to it can have any port of the node, so it is root's alone, and who connects is looked at too
//! (`SO_PEERCRED`, unix(7)): a folder that somebody has opened to others is not enough.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use portolan_cni::code;
use portolan_model::{AgentReply, AgentRequest};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Agent, serve};

/// Requests at a time. A runtime that starts more containers at once waits in the socket's backlog.
const AT_ONCE: usize = 64;
/// The longest request: the annotations of a Pod have 256 KiB at most (Kubernetes, `TotalAnnotationSizeLimitB`).
const LONGEST: u64 = 1 << 20;
/// How long a plugin may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// A socket of ours at `path`, for root only, in place of one that an agent before us has left.
pub(crate) fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing the old {}", path.display()));
        }
        _ => {}
    }
    // Nobody can connect before its mode is right: a connection needs the right to write (unix(7)).
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.with_context(|| format!("listening on {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("changing the mode of {}", path.display()))?;
    Ok(listener)
}

/// Answers until `stop`, and then what has been asked already.
pub(crate) async fn run(agent: Arc<Agent>, listener: UnixListener, stop: CancellationToken) {
    let (places, tasks) = (Arc::new(Semaphore::new(AT_ONCE)), TaskTracker::new());
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let agent = Arc::clone(&agent);
                tasks.spawn(async move {
                    if let Err(error) = answer(&agent, stream).await {
                        tracing::debug!(%error, "a plugin went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: the next try would fail at once.
                tracing::warn!(%error, "cannot accept a connection of the CNI plugin");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn answer(agent: &Arc<Agent>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != 0 && peer.uid() != own {
        tracing::warn!(
            uid = peer.uid(),
            pid = peer.pid(),
            "somebody who is not root asked for ports: refused"
        );
        return Ok(());
    }
    // A request for 1,000 ports is some 60 KB: read at once.
    let mut stream = BufReader::with_capacity(64 << 10, stream);
    let mut line = Vec::new();
    timeout(PATIENCE, (&mut stream).take(LONGEST).read_until(b'\n', &mut line)).await??;
    let reply = match serde_json::from_slice::<AgentRequest>(&line) {
        Ok(request) => serve::serve(agent, request).await,
        Err(error) => AgentReply::Error {
            code: code::DECODE,
            message: "this agent does not know what the plugin asks: they are of different versions"
                .to_owned(),
            details: error.to_string(),
        },
    };
    let mut line = serde_json::to_vec(&reply)?;
    line.push(b'\n');
    timeout(PATIENCE, stream.write_all(&line)).await??;
    timeout(PATIENCE, stream.shutdown()).await?
}
