//! One transaction as one datagram: a begin, any number of messages, an end.
//!
//! Only the last message asks for an acknowledgement: the kernel answers each that asks, and 20,000 answers overflow
//! any receive buffer although the transaction was done (siderolabs/talos#14001). Refusals come without asking.

use std::ops::Range;

use portolan_netlink::{
    attribute::{Oversize, Writer, attributes},
    message::{self, MessageWriter},
};

use super::{element, object};
use crate::{
    Error, Family, Object, Operation, Set, Transaction, Verb,
    wire::{self, Kind, attribute as a},
};

/// Elements of one message take at most this; an attribute ends at 65,535 bytes (`nla_len` has 16 bits). An element
/// with the longest keys, data and comment stays far below the rest.
const ELEMENTS_AT_MOST: usize = 60_000;

/// One message of a batch: which step it belongs to.
#[derive(Debug)]
struct Part {
    sequence: u32,
    operation: usize,
    // Which of the step's elements it holds.
    first_element: usize,
    bytes: Range<usize>,
}

/// A whole transaction, ready to be sent.
#[derive(Debug)]
pub(crate) struct Batch {
    writer: MessageWriter,
    parts: Vec<Part>,
}

impl Batch {
    /// What to send.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.writer.as_bytes()
    }

    /// The number of the message that is acknowledged; `None` when there is nothing to do.
    pub(crate) fn last(&self) -> Option<u32> {
        self.parts.last().map(|part| part.sequence)
    }

    /// How many messages it has, begin and end not counted.
    pub(crate) fn messages(&self) -> usize {
        self.parts.len()
    }

    /// Which step, and which of its elements, the message with this number and the attribute at `offset` are about.
    pub(crate) fn locate(&self, sequence: u32, offset: Option<u32>) -> Option<(usize, Option<usize>)> {
        let part = self.parts.iter().find(|part| part.sequence == sequence)?;
        Some((part.operation, offset.and_then(|offset| self.element_at(part, offset as usize))))
    }

    /// Finds the element by walking the message as the kernel did.
    fn element_at(&self, part: &Part, offset: usize) -> Option<usize> {
        let message = self.writer.as_bytes().get(part.bytes.clone())?;
        let start = message.as_ptr() as usize;
        let fixed = message.get(message::HEADER + wire::FIXED..)?;
        let list = attributes(fixed).find(a::list::ELEMENTS)?;
        let mut elements = 0;
        for one in list.nested() {
            // The key after an interval belongs to the element before it.
            let flags = one.nested().find(a::elem::FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
            if flags & wire::ELEMENT_INTERVAL_END == 0 {
                elements += 1;
            }
            let end = one.payload.as_ptr() as usize - start + one.payload.len();
            if offset < end {
                return Some(part.first_element + elements - 1);
            }
        }
        None
    }
}

/// Writes the whole transaction; `next_sequence` numbers the messages.
pub(crate) fn encode(
    transaction: &Transaction,
    mut next_sequence: impl FnMut() -> u32,
) -> Result<Batch, Error> {
    let mut batch = Encoder {
        writer: MessageWriter::new(),
        parts: Vec::new(),
        next_sequence: &mut next_sequence,
        transaction,
    };
    batch.mark(wire::BATCH_BEGIN);
    for (index, operation) in transaction.operations.iter().enumerate() {
        batch.operation(index, operation).map_err(|why| Error::Invalid {
            index,
            operation: operation.describe(&transaction.table, None),
            why,
        })?;
    }
    if let Some(last) = batch.parts.last() {
        batch.writer.acknowledge(&last.bytes);
    }
    batch.mark(wire::BATCH_END);
    Ok(Batch { writer: batch.writer, parts: batch.parts })
}

struct Encoder<'a> {
    writer: MessageWriter,
    parts: Vec<Part>,
    next_sequence: &'a mut dyn FnMut() -> u32,
    transaction: &'a Transaction,
}

impl Encoder<'_> {
    /// A begin or an end: their fixed part names the subsystem where others have a resource id.
    fn mark(&mut self, kind: u16) {
        self.writer.begin(kind, 0, (self.next_sequence)());
        let [high, low] = wire::SUBSYSTEM.to_be_bytes();
        self.writer.raw(&[0, 0, high, low]);
        // Four bytes are never too long.
        let _ = self.writer.finish();
    }

    fn operation(&mut self, index: usize, operation: &Operation) -> Result<(), String> {
        let table = &self.transaction.table;
        let verb = operation.verb;
        match &operation.object {
            Object::Table if verb == Verb::Flush => {
                self.message(index, Kind::DeleteRule, 0, |to| to.str0(a::rule::TABLE, &table.name))
            }
            Object::Table => {
                let kind = kind(verb, Kind::NewTable, Kind::DeleteTable, Kind::DestroyTable)?;
                self.message(index, kind, flags(verb), |to| object::table(to, table, verb))
            }
            Object::Chain(chain) if verb == Verb::Flush => self.message(index, Kind::DeleteRule, 0, |to| {
                to.str0(a::rule::TABLE, &table.name);
                to.str0(a::rule::CHAIN, &chain.name);
            }),
            Object::Chain(chain) => {
                let kind = kind(verb, Kind::NewChain, Kind::DeleteChain, Kind::DestroyChain)?;
                self.message(index, kind, flags(verb), |to| object::chain(to, table, chain, verb))
            }
            Object::Rule(rule) => {
                let kind = match verb {
                    Verb::Insert | Verb::Replace => Kind::NewRule,
                    verb => kind(verb, Kind::NewRule, Kind::DeleteRule, Kind::DestroyRule)?,
                };
                // Without a handle the kernel would remove all rules of the chain.
                if rule.handle.is_none() && !matches!(verb, Verb::Add | Verb::Create | Verb::Insert) {
                    return Err("it has no handle; dump the table to learn it".to_owned());
                }
                let flags = match verb {
                    Verb::Add | Verb::Create => message::CREATE | message::APPEND,
                    Verb::Insert => message::CREATE,
                    Verb::Replace => message::REPLACE,
                    _ => 0,
                };
                self.message(index, kind, flags, |to| object::rule(to, table, rule, verb))
            }
            Object::Set(set) if verb == Verb::Flush => self.message(index, Kind::DeleteElement, 0, |to| {
                to.str0(a::list::TABLE, &table.name);
                to.str0(a::list::SET, &set.name);
            }),
            Object::Set(set) => {
                object::check_set(set)?;
                let kind = kind(verb, Kind::NewSet, Kind::DeleteSet, Kind::DestroySet)?;
                let id = index as u32 + 1;
                self.message(index, kind, flags(verb), |to| object::set(to, table, set, id, verb))
            }
            Object::Elements(elements) => {
                let kind = kind(verb, Kind::NewElement, Kind::DeleteElement, Kind::DestroyElement)?;
                self.elements(index, kind, verb, &elements.set, &elements.elements)
            }
        }
    }

    /// Writes elements into as many messages as they need.
    fn elements(
        &mut self,
        index: usize,
        kind: Kind,
        verb: Verb,
        set: &Set,
        elements: &[crate::Element],
    ) -> Result<(), String> {
        let mut first = 0;
        while first < elements.len() {
            let sequence = self.begin(kind, flags(verb));
            self.writer.str0(a::list::TABLE, &self.transaction.table.name);
            self.writer.str0(a::list::SET, &set.name);
            let list = self.writer.begin_nest(a::list::ELEMENTS);
            let start = self.writer.len();
            let mut next = first;
            while let Some(one) = elements.get(next)
                && self.writer.len() - start < ELEMENTS_AT_MOST
            {
                element::write(&mut self.writer, set, one, verb)
                    .map_err(|why| format!("element {next}: {why}"))?;
                next += 1;
            }
            self.writer.end_nest(list);
            self.end(index, sequence, first)?;
            first = next;
        }
        Ok(())
    }

    fn message(
        &mut self,
        index: usize,
        kind: Kind,
        flags: u16,
        write: impl FnOnce(&mut Writer),
    ) -> Result<(), String> {
        let sequence = self.begin(kind, flags);
        write(&mut self.writer);
        self.end(index, sequence, 0)
    }

    fn begin(&mut self, kind: Kind, flags: u16) -> u32 {
        let sequence = (self.next_sequence)();
        self.writer.begin(kind.message(), flags, sequence);
        self.writer.raw(&fixed(self.transaction.table.family));
        sequence
    }

    fn end(&mut self, operation: usize, sequence: u32, first_element: usize) -> Result<(), String> {
        let bytes = self.writer.finish().map_err(|oversize: Oversize| oversize.to_string())?;
        self.parts.push(Part { sequence, operation, first_element, bytes });
        Ok(())
    }
}

/// `struct nfgenmsg` of an object's message.
pub(crate) const fn fixed(family: Family) -> [u8; wire::FIXED] {
    [family.number(), 0, 0, 0]
}

fn kind(verb: Verb, new: Kind, delete: Kind, destroy: Kind) -> Result<Kind, String> {
    match verb {
        Verb::Add | Verb::Create => Ok(new),
        Verb::Delete => Ok(delete),
        Verb::Destroy => Ok(destroy),
        Verb::Insert | Verb::Replace => Err(format!("{verb} is for rules only")),
        Verb::Flush => Err("flush is for tables, chains and sets".to_owned()),
    }
}

const fn flags(verb: Verb) -> u16 {
    match verb {
        Verb::Add => message::CREATE,
        Verb::Create => message::CREATE | message::EXCLUSIVE,
        _ => 0,
    }
}
