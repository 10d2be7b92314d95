//! The bounded queue to the owner, and what wakes it: it waits for commands and for the kernel at the same time.

use std::{
    collections::HashSet,
    net::IpAddr,
    os::fd::{BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::Duration,
};

use portolan_model::{Mapping, MappingKey};
use portolan_plan::{Flow, PlanConfig, Touched};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io,
};

use crate::ApplyError;

/// How many commands may wait. Whoever comes then waits until there is room.
const LENGTH: usize = 1024;
/// Where waiting is not possible, so long passes until everything is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// The answer to a command, once.
pub(crate) type Reply<T> = SyncSender<T>;

/// Mappings to go and to come, both or neither.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) remove: Vec<MappingKey>,
    pub(crate) add: Vec<Mapping>,
    pub(crate) reply: Reply<Result<(), ApplyError>>,
}

/// What the owner is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A change.
    Change(Request),
    /// These mappings, and no others.
    Set { mappings: Vec<Mapping>, reply: Reply<Result<(), ApplyError>> },
    /// Which mappings there are.
    Mappings { reply: Reply<Vec<Mapping>> },
    /// Which of these flows are stale? One answer for each.
    Judge { flows: Vec<Flow>, touched: Arc<Touched>, local: Arc<HashSet<IpAddr>>, reply: Reply<Vec<bool>> },
    /// Another configuration, the same mappings.
    Reconfigure { config: Box<PlanConfig>, reply: Reply<Result<(), ApplyError>> },
    /// What is counted, and for which mappings.
    Counted { reply: Reply<(PlanConfig, Vec<Mapping>)> },
    /// The number of flushes asked for so far.
    Flushes { reply: Reply<u64> },
    /// Delete the table and end.
    Stop { reply: Reply<Result<(), ApplyError>> },
    /// End and leave the table.
    Leave,
}

/// The senders' end of a queue of commands `C`.
#[derive(Debug)]
pub(crate) struct Sender<C = Command> {
    commands: SyncSender<C>,
    bell: Arc<OwnedFd>,
}

impl<C> Clone for Sender<C> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), bell: Arc::clone(&self.bell) }
    }
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Inbox<C = Command> {
    commands: Receiver<C>,
    bell: Arc<OwnedFd>,
}

pub(crate) fn queue<C>() -> Result<(Sender<C>, Inbox<C>), io::Errno> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (commands, received) = sync_channel(LENGTH);
    Ok((Sender { commands, bell: Arc::clone(&bell) }, Inbox { commands: received, bell }))
}

impl<C> Sender<C> {
    /// Waits for room, then for nothing more.
    pub(crate) fn send(&self, command: C) -> Result<(), ApplyError> {
        self.commands.send(command).map_err(|_| ApplyError::Stopped)?;
        // The only failure is a full counter (EAGAIN), and then the bell rings already.
        let _ = io::write(&*self.bell, &1u64.to_ne_bytes());
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> C) -> Result<T, ApplyError> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| ApplyError::Stopped)
    }
}

impl<C> Inbox<C> {
    /// What has gathered, `most` at a time, in order.
    pub(crate) fn take(&self, most: usize) -> Vec<C> {
        // Silence the bell before looking: a command that comes after the look rings it again.
        let _ = io::read(&*self.bell, &mut [0; 8]);
        let taken: Vec<_> = self.commands.try_iter().take(most).collect();
        if taken.len() == most {
            let _ = io::write(&*self.bell, &1u64.to_ne_bytes());
        }
        taken
    }

    /// Waits for a command, or for `other` to have something to read, at most until `timeout` is over.
    pub(crate) fn wait_beside(&self, other: BorrowedFd<'_>, timeout: Option<Duration>) {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut ready =
            [PollFd::new(&self.bell, PollFlags::IN), PollFd::from_borrowed_fd(other, PollFlags::IN)];
        match poll(&mut ready, timeout.as_ref()) {
            Ok(_) | Err(io::Errno::INTR) => {}
            Err(error) => {
                // Out of memory at the worst. Everything is looked at anyway, only not at once.
                tracing::warn!(%error, "cannot wait for events");
                std::thread::sleep(AGAIN);
            }
        }
    }
}
