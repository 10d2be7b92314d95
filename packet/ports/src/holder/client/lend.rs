//! Descriptors that go from the holder to its client, and back.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{HolderClient, HolderError, Reply, Request};
use crate::hold::Hold;

impl HolderClient {
    /// A duplicate of the socket of one held port (the first of `hold`), which the holder keeps: for a relay that
    /// listens on the very socket that holds the port. `None` when it is not held, or the kernel has no sockets of the
    /// protocol.
    ///
    /// Both descriptors are one socket: what is done to one is done to the other. When this client's connection ends,
    /// the holder makes a socket that listens into one that is only bound, so that nobody waits for an answer of a
    /// relay that is gone.
    pub fn borrow(&mut self, hold: Hold) -> Result<Option<OwnedFd>, HolderError> {
        self.get(&Request::Borrow(hold))
    }

    /// Ends a [`HolderClient::borrow`]: the socket is only bound again.
    pub fn give_back(&mut self, hold: Hold) -> Result<(), HolderError> {
        for number in self.present() {
            match self.ask(number, &Request::GiveBack(hold)) {
                Ok((Reply::Done { .. }, _)) | Err(HolderError::Lost { .. }) => {}
                Ok((answer, _)) => return Err(self.confused(number, &answer)),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes over the socket of one held port (the first of `hold`), bound and not yet listening: for socket
    /// activation without a gap. `None` when it is not held, or the kernel has no sockets of the protocol.
    pub fn take(&mut self, hold: Hold) -> Result<Option<OwnedFd>, HolderError> {
        self.get(&Request::Take(hold))
    }

    fn get(&mut self, request: &Request) -> Result<Option<OwnedFd>, HolderError> {
        for number in self.present() {
            match self.ask(number, request) {
                Ok((Reply::Taken { .. }, fd)) => return Ok(fd),
                Ok((Reply::Refused(_), _)) | Err(HolderError::Lost { .. }) => {}
                Ok((answer, _)) => return Err(self.confused(number, &answer)),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Leaves a descriptor with the first holder for a later process, in place of what has this name. A holder of an
    /// earlier version keeps nothing.
    pub fn keep(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), HolderError> {
        let shard = self.shard(0)?;
        if !shard.keeps {
            return Ok(());
        }
        match shard.ask_with(&Request::Keep(name.to_owned()), Some(descriptor))? {
            (Reply::Done { .. }, _) => Ok(()),
            (answer, _) => Err(self.confused(0, &answer)),
        }
    }

    /// What an earlier process has [left](HolderClient::keep).
    pub fn kept(&mut self, name: &str) -> Result<Option<OwnedFd>, HolderError> {
        if !self.shard(0)?.keeps {
            return Ok(None);
        }
        match self.ask(0, &Request::Kept(name.to_owned()))? {
            (Reply::Taken { .. }, fd) => Ok(fd),
            (answer, _) => Err(self.confused(0, &answer)),
        }
    }
}
