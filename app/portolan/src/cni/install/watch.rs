//! Chains again whenever somebody else writes the configuration.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
};

use super::{InstallConfig, chain};

/// How soon the end of the program is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// How long after the last change the file is read: an installer writes more than once.
const QUIET: Duration = Duration::from_millis(100);

/// Looked at without a reason too: events can be lost, and a folder that was not there has none.
const ANYWAY: Duration = Duration::from_secs(30);

/// Keeps our entry in the configuration until `stop` is set. Blocks: give it a thread.
pub(crate) fn watch(config: &InstallConfig, stop: &AtomicBool) {
    let mut events = None;
    let mut due = Instant::now();
    let mut told = None;
    while !stop.load(Ordering::Relaxed) {
        if events.is_none() {
            events = subscribe(&config.conf_dir);
        }
        if due <= Instant::now() {
            due = Instant::now() + ANYWAY;
            match chain(config) {
                Ok((path, true)) => tracing::info!(file = %path.display(), "the CNI plugin is in the chain"),
                Ok((_, false)) => told = None,
                Err(error) => {
                    let error = format!("{error:#}");
                    // Once for each reason: the same one comes again every time.
                    if told.as_ref() != Some(&error) {
                        tracing::warn!("the CNI plugin is not in the chain yet: {error}");
                        told = Some(error);
                    }
                }
            }
        }
        match &events {
            Some(fd) => {
                let mut ready = [PollFd::new(fd, PollFlags::IN)];
                if poll(&mut ready, Some(&TICK)).is_ok_and(|count| count > 0) {
                    // What happened does not matter: the folder is read as it is then.
                    let mut bytes = [0; 4096];
                    let gone = rustix::io::read(fd, &mut bytes).is_err();
                    due = Instant::now() + QUIET;
                    if gone || !config.conf_dir.exists() {
                        events = None;
                    }
                }
            }
            None => {
                std::thread::sleep(Duration::from_millis(250));
                due = due.min(Instant::now() + Duration::from_secs(1));
            }
        }
    }
}

fn subscribe(folder: &Path) -> Option<rustix::fd::OwnedFd> {
    let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let wanted = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF;
    inotify::add_watch(&fd, folder, wanted).ok()?;
    Some(fd)
}
