//! `destroy` where the kernel does not have it or has it wrong: look first, then delete what is there.
//!
//! Kernels before 6.3 do not have it. And of intervals over one field, which the kernel holds as two elements, it
//! forgives each by itself: destroying 24-25 while 25-25 is there would remove the end of that one and leave 25-65535
//! (seen on 6.18). The look is before the transaction's first step, not where the step stands. Between the look and the transaction somebody else may remove the object; the transaction then
//! fails as a whole with ENOENT and may be tried again.

use super::{Kernel, socket};
use crate::{
    Elements, Error, Object, Operation, Set, Table, Transaction, Verb, encode,
    wire::{Kind, attribute as a},
};

/// A table nobody has: asking to destroy it changes nothing and shows whether the kernel knows how.
const NOBODYS: &str = "portolan-asks-whether-destroy-works";

impl Kernel {
    /// The same transaction in the verbs that this kernel has; `None` when it needs no change.
    pub(super) fn emulate_destroy(
        &mut self,
        transaction: &Transaction,
    ) -> Result<Option<Transaction>, Error> {
        let destroys = |operation: &&Operation| operation.verb == Verb::Destroy;
        let mut destroying = transaction.operations.iter().filter(destroys).peekable();
        if destroying.peek().is_none() || (!destroying.any(in_halves) && self.knows_destroy()?) {
            return Ok(None);
        }
        let mut result = Transaction::new(transaction.table.clone());
        for operation in &transaction.operations {
            if !destroys(&operation) || (!in_halves(operation) && self.knows_destroy()?) {
                result.operations.push(operation.clone());
            } else {
                // No elements are no message: so that the steps after it keep their numbers.
                let nothing = || Elements { set: Set::new("", []), elements: Vec::new() }.into();
                let there = self.existing(&transaction.table, &operation.object)?;
                result.push(Verb::Delete, there.unwrap_or_else(nothing));
            }
        }
        Ok(Some(result))
    }

    fn knows_destroy(&mut self) -> Result<bool, Error> {
        if let Some(known) = self.destroy {
            return Ok(known);
        }
        let mut question = Transaction::new(Table::new(crate::Family::Inet, NOBODYS));
        question.destroy_table();
        let batch = encode::encode(&question, || self.socket.next_sequence())?;
        let Some(last) = batch.last() else { return Ok(false) };
        let knows = match self.socket.exchange(batch.as_bytes(), last, |_| {}) {
            Ok(()) => true,
            // EINVAL: no such message type.
            Err(error) if error.errno() == Some(22) => false,
            Err(error) => return Err(socket(error)),
        };
        self.destroy = Some(knows);
        Ok(knows)
    }

    /// What of the object is there; `None` when nothing is.
    fn existing(&mut self, table: &Table, object: &Object) -> Result<Option<Object>, Error> {
        let family = Some(table.family);
        let found = match object {
            Object::Table => {
                self.get(Kind::GetTable, family, |to| to.str0(a::table::NAME, &table.name), |_| Ok(Some(())))?
            }
            Object::Chain(chain) => self.get(
                Kind::GetChain,
                family,
                |to| {
                    to.str0(a::chain::TABLE, &table.name);
                    to.str0(a::chain::NAME, &chain.name);
                },
                |_| Ok(Some(())),
            )?,
            Object::Rule(rule) => self.get(
                Kind::GetRule,
                family,
                |to| {
                    to.str0(a::rule::TABLE, &table.name);
                    to.str0(a::rule::CHAIN, &rule.chain);
                    to.be64(a::rule::HANDLE, rule.handle.unwrap_or_default());
                },
                |_| Ok(Some(())),
            )?,
            Object::Set(set) => self.get(
                Kind::GetSet,
                family,
                |to| {
                    to.str0(a::set::TABLE, &table.name);
                    to.str0(a::set::NAME, &set.name);
                },
                |_| Ok(Some(())),
            )?,
            Object::Elements(elements) => return self.existing_elements(table, elements),
        };
        Ok(found.map(|()| object.clone()))
    }

    fn existing_elements(&mut self, table: &Table, wanted: &Elements) -> Result<Option<Object>, Error> {
        let there = match self.elements_of(table, &wanted.set) {
            Ok(there) => there,
            // No such set or table: the verb forgives a missing element only, so let the kernel refuse the step.
            Err(error) if error.is_not_found() => return Ok(Some(wanted.clone().into())),
            Err(error) => return Err(error),
        };
        let there: std::collections::HashSet<_> =
            there.iter().map(|element| (&element.key, element.last())).collect();
        let elements: Vec<_> = wanted
            .elements
            .iter()
            .filter(|element| there.contains(&(&element.key, element.last())))
            .cloned()
            .collect();
        let some = !elements.is_empty();
        Ok(some.then(|| Elements { set: wanted.set.clone(), elements }.into()))
    }
}

/// Whether the kernel holds each of these elements as two.
fn in_halves(operation: &Operation) -> bool {
    match &operation.object {
        Object::Elements(elements) => elements.set.interval && !elements.set.is_concatenated(),
        _ => false,
    }
}
