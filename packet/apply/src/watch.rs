//! Hearing that others have changed our table.
//!
//! The kernel tells the group `NFNLGRP_NFTABLES` of every change of every table: first the objects that came and went,
//! then, as the last message of each transaction, the new generation with the name and id of the process
//! (`nft_commit_notify` and `nf_tables_gen_notify` in `net/netfilter/nf_tables_api.c`, v6.12). Our own changes would
//! come too, by the hundred thousand when many mappings are loaded; a filter of four instructions on the socket lets
//! the kernel drop those, by the address of the socket that made them, before they are queued.

use std::{
    mem,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use portolan_netlink::{
    Bus, NetlinkError, Socket,
    message::{Message, messages},
};
use portolan_nft::Table;
use socket2::{SockFilter, SockRef};

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;
/// `NFNL_SUBSYS_NFTABLES`, in the high byte of a message's kind.
const SUBSYSTEM: u16 = 10;
/// `NFT_MSG_NEWGEN`.
const GENERATION: u16 = 15;
/// `struct nfgenmsg`.
const FIXED: usize = 4;
/// The table's name: attribute 1 of every object that is in a table, and of tables.
const TABLE: u16 = 1;
/// `NFTA_GEN_PROC_PID`.
const PROCESS: u16 = 2;
/// `NFTA_GEN_PROC_NAME`.
const NAME: u16 = 3;
/// Room for what others may write before we read it.
const BUFFER: usize = 4 << 20;

/// Somebody else changed our table, or may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// This process did.
    Process { name: String, id: u32 },
    /// Notifications were lost, so nobody knows.
    Unknown,
}

/// The ear.
#[derive(Debug)]
pub(crate) struct Watch {
    socket: Socket,
    table: Table,
    /// A change of our table has been heard of, its generation not yet.
    touched: bool,
    buffer: Vec<u8>,
}

impl Watch {
    /// Listens, in the network namespace of the calling thread, to changes of `table` by anybody but the socket with
    /// the address `ours`.
    pub(crate) fn open(table: Table, ours: u32) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Bus::Netfilter)?;
        socket.force_buffers(BUFFER)?;
        SockRef::from(&socket)
            .attach_filter(&drop_from(ours))
            .map_err(|source| NetlinkError::Io { call: "setting a filter", source })?;
        socket.join(GROUP)?;
        Ok(Self { socket, table, touched: false, buffer: Vec::new() })
    }

    /// Hears nothing more until [`Watch::listen`]. As long as anybody listens the kernel makes a notification of every
    /// element, also of ours: a third of the time that it needs to write one.
    pub(crate) fn pause(&self) -> Result<(), NetlinkError> {
        self.socket.leave(GROUP)
    }

    /// Hears again. Whether something happened meanwhile, the generation tells.
    pub(crate) fn listen(&self) -> Result<(), NetlinkError> {
        self.socket.join(GROUP)
    }

    /// What was heard since the last call, without waiting: the last foreign change of our table.
    pub(crate) fn heard(&mut self) -> Result<Option<Foreign>, NetlinkError> {
        let mut foreign = None;
        let mut buffer = mem::take(&mut self.buffer);
        let result = loop {
            match self.socket.receive(&mut buffer, Some(Duration::ZERO)) {
                Ok(false) => break Ok(()),
                Ok(true) => {
                    for message in messages(&buffer) {
                        foreign = self.message(&message).or(foreign);
                    }
                }
                Err(NetlinkError::Overrun | NetlinkError::Truncated { .. }) => {
                    self.touched = false;
                    foreign = Some(Foreign::Unknown);
                }
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        result.map(|()| foreign)
    }

    fn message(&mut self, message: &Message<'_>) -> Option<Foreign> {
        if message.kind >> 8 != SUBSYSTEM {
            return None;
        }
        let attributes = message.attributes(FIXED);
        if message.kind & 0xff != GENERATION {
            let family = message.payload.first().copied();
            let table = attributes.find(TABLE);
            self.touched |= family == Some(self.table.family.number())
                && table.and_then(|name| name.str()) == Some(&self.table.name);
            return None;
        }
        mem::take(&mut self.touched).then(|| Foreign::Process {
            name: attributes.find(NAME).and_then(|name| name.str()).unwrap_or("?").to_owned(),
            id: attributes.find(PROCESS).and_then(|id| id.be32()).unwrap_or(0),
        })
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Classic BPF (`linux/filter.h`): drop datagrams whose first message has this `nlmsg_pid`, keep all others. All
/// messages of one datagram are of one transaction.
fn drop_from(port_id: u32) -> [SockFilter; 4] {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    // Loads are big-endian, netlink headers are not.
    [
        SockFilter::new(LOAD_WORD, 0, 0, 12),
        SockFilter::new(JUMP_EQUAL, 0, 1, port_id.to_be()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
