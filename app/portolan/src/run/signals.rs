//! Signals that `run` gets and passes on to its command.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast,
};

/// Passed on as they come. SIGKILL and SIGSTOP cannot be caught; SIGCHLD and SIGPIPE are our own business.
const FORWARDED: [Signal; 5] = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH, Signal::QUIT];

/// Asks to stop: passed on once, and no restart follows.
const STOPPING: [Signal; 2] = [Signal::INT, Signal::TERM];

/// Every signal of interest, from the first call on. Whoever lags behind by more than 64 misses the oldest.
pub(crate) fn listen() -> std::io::Result<broadcast::Sender<Signal>> {
    let (sender, _) = broadcast::channel(64);
    for signal_ in FORWARDED.into_iter().chain(STOPPING) {
        let mut stream = signal(SignalKind::from_raw(signal_.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // Nobody listening is no error: no command runs at the moment.
                let _ = sender.send(signal_);
            }
        });
    }
    Ok(sender)
}

/// Whether it asks `run` to end.
pub(crate) fn stops(signal: Signal) -> bool {
    STOPPING.contains(&signal)
}

/// Sends to the command: to its whole group where it leads one of its own, else to it alone.
pub(crate) fn send(child: u32, own_group: bool, signal: Signal) {
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return };
    let sent = if own_group { kill_process_group(pid, signal) } else { kill_process(pid, signal) };
    if let Err(error) = sent
        && error != rustix::io::Errno::SRCH
    {
        tracing::warn!(pid = child, ?signal, %error, "cannot pass a signal on");
    }
}
