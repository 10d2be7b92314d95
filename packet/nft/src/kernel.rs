//! The kernel's tables over netlink. [`crate::encode`] writes transactions, [`crate::decode`] reads dumps.
//!
//! Two things are not obvious. A transaction is one datagram, so the send buffer must be as large as it. And a dump of
//! a table is many dumps, one for each kind of object: they belong together only if nobody changed anything between
//! the first and the last, which the kernel's generation number tells.

mod destroy;
mod dump;

use portolan_netlink::{
    Bus, NetlinkError, Socket,
    message::{self, MessageWriter},
};

use crate::{
    Error, Family, Nft, Ruleset, Table, Transaction, decode, encode,
    wire::{self, Kind, attribute as a},
};

/// More than the kernel adds to a datagram of its own (`NLMSG_GOODSIZE`, `struct sk_buff`).
const OVERHEAD: usize = 4096;

/// So many refusals fit any receive buffer: each takes less than 1 KiB of the 208 KiB that are the default.
const FEW: usize = 100;

/// nftables of one network namespace: that of the thread which called [`Kernel::open`].
///
/// It blocks, and has one conversation at a time. Async code keeps it on a thread of its own, see `packet/apply`.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    // The largest transaction that fits the send buffer.
    room: usize,
    // Whether the kernel has messages for `destroy`; `None`: not asked yet.
    destroy: Option<bool>,
}

impl Kernel {
    /// Opens a socket in the network namespace of the calling thread. Needs no privilege; what is done with it does.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { socket: Socket::open(Bus::Netfilter).map_err(socket)?, room: 0, destroy: None })
    }

    /// By a socket for [`Bus::Netfilter`] that there is already.
    pub const fn over(socket: Socket) -> Self {
        Self { socket, room: 0, destroy: None }
    }

    /// The socket, for a process that goes on with it: [`Socket::adopt`].
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket's address, by which notifications name who changed something. Ours are those with this number.
    pub fn port_id(&self) -> u32 {
        self.socket.port_id()
    }

    /// Behaves as on a kernel before 6.3, which has no messages for `destroy`. For tests.
    #[doc(hidden)]
    pub fn without_destroy(mut self) -> Self {
        self.destroy = Some(false);
        self
    }

    /// Asks for one object and gives the answer to `read`; `None` when there is none (ENOENT).
    fn get<T>(
        &self,
        kind: Kind,
        family: Option<Family>,
        write: impl FnOnce(&mut MessageWriter),
        mut read: impl FnMut(&message::Message<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Error> {
        let mut writer = MessageWriter::new();
        let sequence = self.socket.next_sequence();
        writer.begin(kind.message(), message::ACK, sequence);
        writer.raw(&family.map_or([0; wire::FIXED], encode::fixed));
        write(&mut writer);
        writer.finish().map_err(|oversize| Error::Socket(oversize.to_string()))?;
        let mut result = Ok(None);
        let answered = self.socket.exchange(writer.as_bytes(), sequence, |message| {
            if matches!(result, Ok(None)) {
                result = read(message);
            }
        });
        match answered {
            Ok(()) => result,
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(socket(error)),
        }
    }

    /// Makes the send buffer as large as this transaction needs.
    fn make_room(&mut self, bytes: usize) -> Result<(), Error> {
        let need = bytes + OVERHEAD;
        if need > self.room {
            let (send, _) =
                self.socket.force_buffers(need.next_power_of_two().max(1 << 20)).map_err(socket)?;
            self.room = send;
        }
        Ok(())
    }

    /// What a failed exchange means for the transaction.
    fn refused(
        &mut self,
        error: NetlinkError,
        batch: &encode::Batch,
        transaction: &Transaction,
        generation: Option<u32>,
    ) -> Error {
        let refusal = match error {
            NetlinkError::Kernel(refusal) => refusal,
            // The answer is lost: if nobody at all changed anything, neither did we.
            NetlinkError::Overrun | NetlinkError::Timeout { .. } => {
                return match self.generation() {
                    Ok(now) if Some(now) == generation => Error::Socket(error.to_string()),
                    _ => Error::Unconfirmed(transaction.describe()),
                };
            }
            error => return socket(error),
        };
        let place = batch.locate(refusal.sequence, refusal.offset);
        let operation = place.and_then(|(index, element)| {
            Some(transaction.operations.get(index)?.describe(&transaction.table, element))
        });
        Error::Refused {
            index: place.map(|(index, _)| index),
            operation: operation.unwrap_or_else(|| transaction.describe()),
            errno: refusal.errno,
            message: refusal.message,
            offset: refusal.offset,
        }
    }
}

impl Nft for Kernel {
    fn run(&mut self, transaction: &Transaction) -> Result<(), Error> {
        let emulated = self.emulate_destroy(transaction)?;
        let transaction = emulated.as_ref().unwrap_or(transaction);
        let batch = encode::encode(transaction, || self.socket.next_sequence())?;
        let Some(last) = batch.last() else { return Ok(()) };
        self.make_room(batch.as_bytes().len())?;
        // Tells what a lost answer meant. Answers are lost when very many messages are refused at once, so a small
        // transaction need not pay for the question, which takes as long as itself.
        let generation = if batch.messages() > FEW { Some(self.generation()?) } else { None };
        match self.socket.exchange(batch.as_bytes(), last, |_| {}) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.refused(error, &batch, transaction, generation)),
        }
    }

    fn dump(&mut self, table: &Table) -> Result<Option<Ruleset>, Error> {
        self.dump_table(table, true)
    }

    fn dump_shape(&mut self, table: &Table) -> Result<Option<Ruleset>, Error> {
        self.dump_table(table, false)
    }

    fn elements(&mut self, table: &Table, set: &crate::Set) -> Result<Vec<crate::Element>, Error> {
        self.elements_of(table, set)
    }

    fn visit_elements(
        &mut self,
        table: &Table,
        set: &crate::Set,
        begin: &mut dyn FnMut(),
        each: &mut dyn FnMut(crate::Element),
    ) -> Result<(), Error> {
        self.visit(table, set, begin, each)
    }

    fn tables(&mut self) -> Result<Vec<Table>, Error> {
        let mut tables = self
            .socket
            .dump(
                Kind::GetTable.message(),
                |to| to.raw(&[0; wire::FIXED]),
                || Ok(Vec::new()),
                |tables: &mut Result<Vec<Table>, Error>, message| {
                    if let Ok(list) = tables {
                        match decode::table(message) {
                            Ok(table) => list.extend(table),
                            Err(error) => *tables = Err(error),
                        }
                    }
                },
            )
            .map_err(socket)??;
        tables.sort_by(|one, two| (one.family, &one.name).cmp(&(two.family, &two.name)));
        Ok(tables)
    }

    fn generation(&mut self) -> Result<u32, Error> {
        let read = |message: &message::Message<'_>| {
            let id = message.attributes(wire::FIXED).find(a::generation::ID);
            Ok(id.and_then(|id| id.be32()))
        };
        let generation = self.get(Kind::GetGeneration, None, |_| {}, read)?;
        generation
            .ok_or_else(|| Error::Malformed { what: "the generation", why: "it has no number".to_owned() })
    }
}

fn socket(error: NetlinkError) -> Error {
    match error {
        NetlinkError::Kernel(refusal) => Error::Refused {
            index: None,
            operation: "read nftables".to_owned(),
            errno: refusal.errno,
            message: refusal.message,
            offset: refusal.offset,
        },
        error => Error::Socket(error.to_string()),
    }
}
