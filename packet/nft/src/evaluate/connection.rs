//! What connection tracking knows of a packet's connection.

use std::net::SocketAddr;

use crate::{CtDirection, NatKind, matches::ct_state};

/// Bits of `ct status` (`IPS_*` of `linux/netfilter/nf_conntrack_common.h`) that the evaluator sets.
mod status {
    pub(super) const SEEN_REPLY: u32 = 1 << 1;
    pub(super) const ASSURED: u32 = 1 << 2;
    pub(super) const CONFIRMED: u32 = 1 << 3;
    pub(super) const SOURCE: u32 = 1 << 4;
    pub(super) const DESTINATION: u32 = 1 << 5;
    pub(super) const SOURCE_DONE: u32 = 1 << 7;
    pub(super) const DESTINATION_DONE: u32 = 1 << 8;
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The protocol above IP.
    pub protocol: u8,
    /// From.
    pub source: SocketAddr,
    /// To.
    pub destination: SocketAddr,
}

impl Tuple {
    /// The other way round.
    #[must_use]
    pub const fn inverted(self) -> Self {
        Self { protocol: self.protocol, source: self.destination, destination: self.source }
    }
}

/// A tracked connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    /// `ct state`: one bit of [`crate::matches::ct_state`].
    pub state: u32,
    /// Which way the packet goes.
    pub direction: CtDirection,
    /// `ct status`.
    pub status: u32,
    /// `ct mark`.
    pub mark: u32,
    /// As its first packet came.
    pub original: Tuple,
    /// As answers come: the other way round, with what was translated.
    pub reply: Tuple,
}

impl Connection {
    /// One that this packet begins.
    pub const fn new(first: Tuple) -> Self {
        Self {
            state: ct_state::NEW,
            direction: CtDirection::Original,
            status: 0,
            mark: 0,
            original: first,
            reply: first.inverted(),
        }
    }

    /// One that was answered, with a packet of this direction. What differs between the tuples was translated.
    pub fn established(original: Tuple, reply: Tuple, direction: CtDirection) -> Self {
        let mut status = status::SEEN_REPLY
            | status::ASSURED
            | status::CONFIRMED
            | status::SOURCE_DONE
            | status::DESTINATION_DONE;
        if reply.source != original.destination {
            status |= status::DESTINATION;
        }
        if reply.destination != original.source {
            status |= status::SOURCE;
        }
        Self { state: ct_state::ESTABLISHED, direction, status, mark: 0, original, reply }
    }

    /// The tuple of packets in a direction, as they come in.
    pub const fn tuple(&self, direction: CtDirection) -> Tuple {
        match direction {
            CtDirection::Original => self.original,
            CtDirection::Reply => self.reply,
        }
    }

    /// How a packet of its direction looks once all is translated (`nf_nat_packet`).
    pub(super) const fn translated(&self) -> Tuple {
        match self.direction {
            CtDirection::Original => self.reply.inverted(),
            CtDirection::Reply => self.original.inverted(),
        }
    }

    /// Whether it was decided already what this side becomes.
    pub(super) const fn is_decided(&self, kind: NatKind) -> bool {
        self.status & done(kind) != 0
    }

    /// Decides it (`nf_nat_setup_info`): the status tells of a change only where one is.
    pub(super) fn decide(&mut self, kind: NatKind, to: SocketAddr) {
        let (side, bit) = match kind {
            NatKind::Source => (&mut self.reply.destination, status::SOURCE),
            NatKind::Destination => (&mut self.reply.source, status::DESTINATION),
        };
        if *side != to {
            *side = to;
            self.status |= bit;
        }
        self.status |= done(kind);
    }

    /// What this side is now.
    pub(super) const fn side(&self, kind: NatKind) -> SocketAddr {
        match kind {
            NatKind::Source => self.reply.destination,
            NatKind::Destination => self.reply.source,
        }
    }

    /// What happens to it when its packet leaves or arrives.
    pub(super) const fn confirm(&mut self) {
        self.status |= status::CONFIRMED;
    }
}

const fn done(kind: NatKind) -> u32 {
    match kind {
        NatKind::Source => status::SOURCE_DONE,
        NatKind::Destination => status::DESTINATION_DONE,
    }
}
