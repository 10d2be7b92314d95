//! The bounded queue to the owner, and what wakes it: it waits for commands and for the kernel at the same time.

use std::{
    collections::HashSet,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use portolan_model::{Mapping, MappingKey};
use portolan_plan::{Flow, PlanConfig, Touched};
use rustix::{
    event::{EventfdFlags, eventfd},
    io,
};

use crate::ApplyError;

/// How many commands may wait. Whoever comes then waits until there is room.
const LENGTH: usize = 1024;

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

/// The senders' end.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    commands: SyncSender<Command>,
    bell: Arc<OwnedFd>,
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    commands: Receiver<Command>,
    bell: Arc<OwnedFd>,
}

pub(crate) fn queue() -> Result<(Sender, Inbox), io::Errno> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (commands, received) = sync_channel(LENGTH);
    Ok((Sender { commands, bell: Arc::clone(&bell) }, Inbox { commands: received, bell }))
}

impl Sender {
    /// Waits for room, then for nothing more.
    pub(crate) fn send(&self, command: Command) -> Result<(), ApplyError> {
        self.commands.send(command).map_err(|_| ApplyError::Stopped)?;
        // The only failure is a full counter (EAGAIN), and then the bell rings already.
        let _ = io::write(&*self.bell, &1u64.to_ne_bytes());
        Ok(())
    }

    /// Sends a command and waits for its answer.
    pub(crate) fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, ApplyError> {
        let (reply, answer) = sync_channel(1);
        self.send(command(reply))?;
        answer.recv().map_err(|_| ApplyError::Stopped)
    }
}

impl Inbox {
    /// What has gathered, `most` at a time, in order.
    pub(crate) fn take(&self, most: usize) -> Vec<Command> {
        // Silence the bell before looking: a command that comes after the look rings it again.
        let _ = io::read(&*self.bell, &mut [0; 8]);
        let taken: Vec<_> = self.commands.try_iter().take(most).collect();
        if taken.len() == most {
            let _ = io::write(&*self.bell, &1u64.to_ne_bytes());
        }
        taken
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
