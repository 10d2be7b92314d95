//! The two shapes of exchange with the kernel: do this ([`Socket::transact`], [`Socket::exchange`] for a batch), and
//! tell me all ([`Socket::dump`]). Both go on after a refusal with a socket that is ready for the next one.

use std::time::Duration;

use crate::{
    error::NetlinkError,
    message::{self, Message, messages},
    socket::Socket,
};

/// How long an answer may take. The kernel works on a request inside `send`, so this only ends what would hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a dump is begun again when its subject changed meanwhile.
const DUMP_ATTEMPTS: u32 = 10;

impl Socket {
    /// Sends a batch, numbered one by one from its first message on, and waits until the one numbered `last` is
    /// acknowledged; that one must have [`message::ACK`]. The first refusal of any message in the batch is the error.
    /// Messages that are neither acknowledgement nor refusal go to `on_message`.
    pub fn exchange(
        &self,
        batch: &[u8],
        last: u32,
        mut on_message: impl FnMut(&Message<'_>),
    ) -> Result<(), NetlinkError> {
        let first = messages(batch).next().map_or(last, |message| message.sequence);
        self.send(batch)?;
        let mut refusal = None;
        self.answers(first, last, |message| {
            match message.outcome() {
                Some(Err(error)) => {
                    refusal.get_or_insert(error);
                }
                Some(Ok(())) => {}
                None => on_message(message),
            }
            match (&refusal, message.outcome()) {
                (_, Some(_)) if message.sequence == last => Next::Stop,
                (Some(_), _) => Next::Drain,
                _ => Next::Wait,
            }
        })?;
        refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// Writes one message with an acknowledgement and waits for it: `write` adds the fixed part and the attributes.
    pub fn transact(
        &self,
        kind: u16,
        flags: u16,
        write: impl FnOnce(&mut message::MessageWriter),
    ) -> Result<(), NetlinkError> {
        let sequence = self.next_sequence();
        let mut writer = message::MessageWriter::new();
        writer.begin(kind, flags | message::ACK, sequence);
        write(&mut writer);
        writer.finish()?;
        self.exchange(writer.as_bytes(), sequence, |_| {})
    }

    /// Asks for all objects and gives them to `each`, in the kernel's order, with a state that began as `fresh`. When
    /// the kernel says that the objects changed meanwhile, both begin again.
    pub fn dump<S>(
        &self,
        kind: u16,
        write: impl Fn(&mut message::MessageWriter),
        fresh: impl Fn() -> S,
        mut each: impl FnMut(&mut S, &Message<'_>),
    ) -> Result<S, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            let mut writer = message::MessageWriter::new();
            writer.begin(kind, message::DUMP, sequence);
            write(&mut writer);
            writer.finish()?;
            self.send(writer.as_bytes())?;
            let (mut state, mut interrupted, mut refusal) = (fresh(), false, None);
            self.answers(sequence, sequence, |message| {
                interrupted |= message.flags & message::DUMP_INTERRUPTED != 0;
                match message.outcome() {
                    Some(outcome) => refusal = outcome.err(),
                    None => each(&mut state, message),
                }
                if message.outcome().is_some() { Next::Stop } else { Next::Wait }
            })?;
            match refusal {
                Some(refusal) => return Err(refusal.into()),
                None if !interrupted => return Ok(state),
                None => tracing::debug!(kind, "the objects changed while they were read; reading again"),
            }
        }
        Err(NetlinkError::Interrupted { attempts: DUMP_ATTEMPTS })
    }

    /// Receives the answers to the requests `first` to `last` until `each` has enough. Answers to others, on which
    /// somebody gave up, are passed over.
    fn answers(
        &self,
        first: u32,
        last: u32,
        mut each: impl FnMut(&Message<'_>) -> Next,
    ) -> Result<(), NetlinkError> {
        let mut buffer =
            self.scratch.lock().map(|mut scratch| std::mem::take(&mut *scratch)).unwrap_or_default();
        let result = self.answers_into(&mut buffer, first, last, &mut each);
        if let Ok(mut scratch) = self.scratch.lock() {
            *scratch = buffer;
        }
        result
    }

    fn answers_into(
        &self,
        buffer: &mut Vec<u8>,
        first: u32,
        last: u32,
        each: &mut dyn FnMut(&Message<'_>) -> Next,
    ) -> Result<(), NetlinkError> {
        let mut next = Next::Wait;
        loop {
            let wait = if next == Next::Drain { Duration::ZERO } else { PATIENCE };
            if !self.receive(buffer, Some(wait))? {
                return match next {
                    Next::Drain => Ok(()),
                    _ => Err(NetlinkError::Timeout { sequence: last, seconds: PATIENCE.as_secs() }),
                };
            }
            let ours =
                |message: &Message<'_>| message.sequence.wrapping_sub(first) <= last.wrapping_sub(first);
            for message in messages(buffer).filter(ours) {
                next = each(&message);
                if next == Next::Stop {
                    return Ok(());
                }
            }
        }
    }
}

/// What is to be received after a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Nothing.
    Stop,
    /// What is there already. The kernel answers inside `send`, and a batch that it refuses as a whole (no privilege,
    /// another generation) is answered at its first message only.
    Drain,
    /// More, which will come.
    Wait,
}
