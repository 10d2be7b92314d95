//! The holders as one: however many processes it takes, a client sees one set of holds.

use std::{
    ffi::OsString,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use portolan_model::PortRange;

use super::{
    error::HoldError,
    shard::{HolderError, Program, Shard},
    wire::{Reply, Request},
};
use crate::hold::Hold;

mod lend;

/// Processes at most. With a limit of 1,024 open files, the lowest in use, that is some 16,000 sockets; with the
/// 20,000 and more that are usual it is every port of every protocol.
const SHARDS: usize = 16;

/// Where the holder comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderMode {
    /// This process starts it when it is not there, and more of them when one is full.
    Spawn {
        /// The program that is a holder when it is called with `args` and `--socket PATH`.
        program: PathBuf,
        /// Its first arguments: `["holder"]`.
        args: Vec<OsString>,
    },
    /// Somebody else starts it, and again when it ends: a container of its own. It is one process, which holds as
    /// much as its limit of open files allows.
    Connect {
        /// How long it is waited for at the start, and when its connection has ended.
        patience: Duration,
    },
}

/// Holds ports in other processes.
#[derive(Debug)]
pub struct HolderClient {
    mode: HolderMode,
    socket: PathBuf,
    /// By number; `None` where no process is.
    shards: [Option<Shard>; SHARDS],
    lost: bool,
    /// Holders that ended, to be waited for.
    ended: Vec<Child>,
}

impl HolderClient {
    /// Connects to every holder at `socket`, or starts the first: `program args… --socket PATH`, which must call
    /// [`super::serve()`]. More of them have `-1`, `-2` and so on in their names.
    pub fn connect_or_spawn(program: &Path, args: &[OsString], socket: &Path) -> Result<Self, HolderError> {
        Self::open(HolderMode::Spawn { program: program.to_owned(), args: args.to_vec() }, socket)
    }

    /// Connects to every holder at `socket`, as `mode` says.
    pub fn open(mode: HolderMode, socket: &Path) -> Result<Self, HolderError> {
        // The holder itself is at home in `/`.
        let socket = std::path::absolute(socket)
            .map_err(|source| HolderError::Connect { path: socket.to_owned(), source })?;
        let mut client = Self { mode, socket, shards: Default::default(), lost: false, ended: Vec::new() };
        for number in 0..client.limit() {
            let path = client.path(number);
            client.shards[number] = if number == 0 {
                Some(client.reach(&path)?)
            } else if path.exists() {
                Shard::connect(&path)?
            } else {
                None
            };
        }
        Ok(client)
    }

    /// Where the first holder is reached: for a process that takes sockets itself.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Holds all of these, or none. None of them may be held already.
    pub fn hold(&mut self, holds: &[Hold]) -> Result<(), HoldError> {
        let mut wanted = holds.to_vec();
        let mut done: Vec<Hold> = Vec::new();
        let mut retried = false;
        for number in 0..self.limit() {
            loop {
                if wanted.is_empty() {
                    return Ok(());
                }
                let shard = match self.shard(number) {
                    Ok(shard) => shard,
                    Err(error) => return Err(self.undo(&done, error.into())),
                };
                let (part, rest) = split(&wanted, shard.room);
                if part.is_empty() {
                    break;
                }
                match self.ask(number, &Request::Hold(part.clone())) {
                    Ok((Reply::Done { .. }, _)) => {
                        done.extend(part);
                        wanted = rest;
                    }
                    Ok((Reply::Refused(failures), _)) => {
                        return Err(self.undo(&done, HoldError::Refused(failures)));
                    }
                    // It counts what it can add; what is held twice made the difference. Its room is known now.
                    Ok((Reply::Full { room }, _)) if room < count(&part) => {}
                    Ok((answer, _)) => {
                        let error = self.confused(number, &answer);
                        return Err(self.undo(&done, error.into()));
                    }
                    // It died since the last request: once, a new one is started in its place.
                    Err(HolderError::Lost { .. }) if !retried => retried = true,
                    Err(error) => return Err(self.undo(&done, error.into())),
                }
            }
        }
        let wanted = count(&wanted);
        let holders = self.limit();
        Err(self.undo(&done, HoldError::Full { wanted, holders }))
    }

    /// Lets go of these; answers how many of them were held. What is not held is no error. When it returns, anybody can
    /// bind them.
    pub fn release(&mut self, holds: &[Hold]) -> Result<usize, HolderError> {
        self.let_go(holds, |_| Request::Release(holds.to_vec()))
    }

    /// The same without waiting for it: if they are many, nobody else can bind them for some milliseconds more.
    pub fn release_soon(&mut self, holds: &[Hold]) -> Result<usize, HolderError> {
        self.let_go(holds, |shard| match shard.soon {
            true => Request::ReleaseSoon(holds.to_vec()),
            // A holder of an earlier version.
            false => Request::Release(holds.to_vec()),
        })
    }

    fn let_go(&mut self, holds: &[Hold], request: impl Fn(&Shard) -> Request) -> Result<usize, HolderError> {
        if holds.is_empty() {
            return Ok(0);
        }
        let mut released = 0;
        for number in self.present() {
            let request = request(self.shard(number)?);
            match self.ask(number, &request) {
                Ok((Reply::Done { count, .. }, _)) => released += count,
                Ok((answer, _)) => return Err(self.confused(number, &answer)),
                // What a dead holder had is let go of.
                Err(HolderError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(released)
    }

    /// Everything that is held, neighbouring ports as one range.
    pub fn list(&mut self) -> Result<Vec<Hold>, HolderError> {
        let mut all = Vec::new();
        for number in self.present() {
            match self.ask(number, &Request::List) {
                Ok((Reply::Holds(holds), _)) => all.extend(holds),
                Ok((answer, _)) => return Err(self.confused(number, &answer)),
                Err(HolderError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// How many ports are held, each counted once for each protocol and address.
    pub fn count(&mut self) -> Result<usize, HolderError> {
        let mut sum = 0;
        for number in self.present() {
            match self.ask(number, &Request::Hello) {
                Ok((Reply::Hello { held, .. }, _)) => sum += held,
                Ok((answer, _)) => return Err(self.confused(number, &answer)),
                Err(HolderError::Lost { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    /// How many ports were held when this client connected.
    pub fn found(&self) -> usize {
        self.shards.iter().flatten().map(|shard| shard.held).sum()
    }

    /// Ends every holder, and with them every hold.
    pub fn shutdown(mut self) -> Result<(), HolderError> {
        let mut result = Ok(());
        for number in self.present() {
            match self.ask(number, &Request::Shutdown) {
                Ok(_) | Err(HolderError::Lost { .. }) => {}
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Ends every holder at `socket`, if there are any, and starts none.
    pub fn end_all(socket: &Path) -> Result<(), HolderError> {
        let mode = HolderMode::Connect { patience: Duration::ZERO };
        let (socket, shards, ended) = (socket.to_owned(), Default::default(), Vec::new());
        let mut client = Self { mode, socket, shards, lost: false, ended };
        for number in 0..SHARDS {
            client.shards[number] = Shard::connect(&client.path(number))?;
        }
        client.shutdown()
    }

    /// The processes.
    pub fn pids(&self) -> Vec<u32> {
        self.shards.iter().flatten().map(|shard| shard.pid).collect()
    }

    /// Whether a holder was found to be gone since this was last asked: then what it held is not held.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Processes at most.
    const fn limit(&self) -> usize {
        match self.mode {
            HolderMode::Spawn { .. } => SHARDS,
            HolderMode::Connect { .. } => 1,
        }
    }

    /// The holder at `path`, waited for or started.
    fn reach(&self, path: &Path) -> Result<Shard, HolderError> {
        match &self.mode {
            HolderMode::Spawn { program, args } => {
                Shard::connect_or_start(&Program { path: program.clone(), args: args.clone() }, path)
            }
            HolderMode::Connect { patience } => Shard::connect_in_time(path, *patience),
        }
    }

    fn present(&self) -> Vec<usize> {
        (0..SHARDS).filter(|&number| self.shards[number].is_some()).collect()
    }

    fn path(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.socket.clone();
        }
        let stem = self.socket.file_stem().unwrap_or_default().to_string_lossy();
        let extension = self.socket.extension().unwrap_or_default().to_string_lossy();
        self.socket.with_file_name(format!("{stem}-{number}.{extension}"))
    }

    fn shard(&mut self, number: usize) -> Result<&mut Shard, HolderError> {
        let found = match self.shards[number].take() {
            Some(shard) => shard,
            None => self.reach(&self.path(number))?,
        };
        Ok(self.shards[number].insert(found))
    }

    fn ask(&mut self, number: usize, request: &Request) -> Result<(Reply, Option<OwnedFd>), HolderError> {
        let answer = self.shard(number)?.ask(request);
        if matches!(answer, Err(HolderError::Lost { .. })) {
            self.ended.extend(self.shards[number].take().and_then(|shard| shard.child));
            self.lost = true;
        }
        // Its connection ends a little before the process does, so some are waited for at a later request.
        self.ended.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        answer
    }

    fn confused(&mut self, number: usize, answer: &Reply) -> HolderError {
        match self.shard(number) {
            Ok(shard) => shard.confused(answer),
            Err(error) => error,
        }
    }

    fn undo(&mut self, done: &[Hold], error: HoldError) -> HoldError {
        // A second failure would hide the first, and what stays held by mistake is released at the next comparison.
        if let Err(second) = self.release(done) {
            tracing::warn!(error = %second, "ports that were held for nothing stay held for now");
        }
        error
    }
}

fn count(holds: &[Hold]) -> usize {
    holds.iter().map(|hold| usize::from(hold.ports.count())).sum()
}

/// The first `room` ports of `holds`, and the rest.
fn split(holds: &[Hold], mut room: usize) -> (Vec<Hold>, Vec<Hold>) {
    let (mut part, mut rest) = (Vec::new(), Vec::new());
    for &hold in holds {
        let size = usize::from(hold.ports.count());
        if size <= room {
            room -= size;
            part.push(hold);
            continue;
        }
        let first = hold.ports.first();
        let fits = room as u16;
        room = 0;
        if let Some(ports) = PortRange::block(first, fits) {
            part.push(Hold { ports, ..hold });
        }
        if let Ok(ports) = PortRange::new(first + fits, hold.ports.last()) {
            rest.push(Hold { ports, ..hold });
        }
    }
    (part, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_holder_cannot_take_goes_to_the_next() {
        let hold = |ports: &str| Hold {
            protocol: portolan_model::Protocol::Tcp,
            address: None,
            ports: ports.parse().unwrap(),
        };
        let holds = [hold("100-149"), hold("200-249"), hold("300")];
        let (part, rest) = split(&holds, 70);
        assert_eq!(part, [hold("100-149"), hold("200-219")]);
        assert_eq!(rest, [hold("220-249"), hold("300")]);
        assert_eq!(split(&holds, 0), (vec![], holds.to_vec()));
        assert_eq!(split(&holds, 1000), (holds.to_vec(), vec![]));
    }
}
