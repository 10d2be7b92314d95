//! `destroy` on kernels before 6.3, which do not have it: look first, then delete what is there.
//!
//! Between the look and the transaction somebody else may remove the object; the transaction then fails as a whole
//! with ENOENT and may be tried again. Newer kernels get the real verb.

use super::{Kernel, socket};
use crate::{
    Elements, Error, Object, Operation, Table, Transaction, Verb, encode,
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
        let destroys = |operation: &Operation| operation.verb == Verb::Destroy;
        if !transaction.operations.iter().any(destroys) || self.knows_destroy()? {
            return Ok(None);
        }
        let mut result = Transaction::new(transaction.table.clone());
        for operation in &transaction.operations {
            if !destroys(operation) {
                result.operations.push(operation.clone());
            } else if let Some(object) = self.existing(&transaction.table, &operation.object)? {
                result.push(Verb::Delete, object);
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
        let there = match self.elements(table, &wanted.set) {
            Ok(there) => there,
            // No such set or table: then no such element.
            Err(error) if error.is_not_found() => return Ok(None),
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
