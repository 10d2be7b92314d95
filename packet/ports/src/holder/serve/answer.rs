//! What is asked on a connection, and answered.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::net::RecvFlags;

use super::{Connection, KEPT, Server};
use crate::holder::wire::{Reply, Request, VERSION, send};

impl Server {
    /// Answers what came on a connection; `None` when it is at its end.
    pub(super) fn attend(&mut self, mut connection: Connection) -> Option<Connection> {
        if self.talk(&mut connection) {
            return Some(connection);
        }
        for hold in connection.lent {
            self.held.give_back(hold);
        }
        None
    }

    /// `false` when the connection is at its end.
    fn talk(&mut self, connection: &mut Connection) -> bool {
        match connection.inbox.fill(&connection.stream, RecvFlags::DONTWAIT) {
            Ok(true) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Ok(false) | Err(_) => return false,
        }
        loop {
            let (request, fd) = match connection.inbox.take::<Request>() {
                Ok(None) => return true,
                Ok(Some(request)) => request,
                Err(error) => {
                    let _ = send(&connection.stream, &Reply::Bad(error.to_string()), None);
                    return false;
                }
            };
            match &request {
                Request::Borrow(hold) => connection.lent.push(*hold),
                Request::GiveBack(hold) => connection.lent.retain(|lent| lent != hold),
                _ => {}
            }
            let say =
                |reply, fd: Option<OwnedFd>| send(&connection.stream, &reply, fd.as_ref().map(AsFd::as_fd));
            if self.answer(request, fd, say).is_err() {
                return false;
            }
        }
    }

    /// Does it, and says what came of it.
    fn answer<T>(
        &mut self,
        request: Request,
        fd: Option<OwnedFd>,
        say: impl FnOnce(Reply, Option<OwnedFd>) -> T,
    ) -> T {
        let reply = match request {
            Request::Hello => Reply::Hello {
                version: VERSION,
                pid: std::process::id(),
                held: self.held.count(),
                room: self.held.room(),
                keeps: true,
                soon: true,
            },
            Request::Hold(holds) => return self.held.hold(&holds, |reply| say(reply, None)),
            Request::Release(holds) => {
                let count = self.held.release(&holds);
                Reply::Done { count, room: self.held.room() }
            }
            Request::ReleaseSoon(holds) => {
                let count = self.held.release_soon(&holds);
                Reply::Done { count, room: self.held.room() }
            }
            Request::List => Reply::Holds(self.held.list()),
            Request::Take(hold) => {
                let (reply, socket) = self.held.take(hold);
                return say(reply, socket);
            }
            Request::Borrow(hold) => {
                let (reply, socket) = self.held.borrow(hold);
                return say(reply, socket);
            }
            Request::GiveBack(hold) => {
                self.held.give_back(hold);
                Reply::Done { count: 1, room: self.held.room() }
            }
            Request::Keep(name) => {
                self.keep(name, fd);
                Reply::Done { count: 0, room: self.held.room() }
            }
            Request::Kept(name) => {
                let kept = self.kept.iter().find(|(own, _)| *own == name);
                let copy = kept.and_then(|(_, fd)| fd.try_clone().ok());
                return say(Reply::Taken { socket: copy.is_some() }, copy);
            }
            Request::Shutdown => {
                self.ending = true;
                Reply::Done { count: self.held.count(), room: 0 }
            }
        };
        say(reply, None)
    }

    fn keep(&mut self, name: String, fd: Option<OwnedFd>) {
        self.kept.retain(|(own, _)| *own != name);
        self.kept.extend(fd.map(|fd| (name, fd)));
        let many = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..many);
    }
}
