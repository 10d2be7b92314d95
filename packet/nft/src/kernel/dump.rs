//! Reading a whole table as it was at one moment.

use std::{collections::HashSet, time::Duration};

use portolan_netlink::message::{Message, MessageWriter};

use super::{Kernel, socket};
use crate::{
    Chain, Element, Error, FilledChain, FilledSet, Nft as _, Rule, Ruleset, Set, Table, decode, encode,
    wire::{self, Kind, attribute as a},
};

/// How often a table is read anew that changes while it is read.
const ATTEMPTS: u32 = 10;

impl Kernel {
    pub(super) fn dump_table(&mut self, table: &Table, elements: bool) -> Result<Option<Ruleset>, Error> {
        let mut last = None;
        for attempt in 0..ATTEMPTS {
            let before = self.generation()?;
            let ruleset = self.dump_once(table, elements);
            if self.generation()? == before {
                return ruleset;
            }
            // The number counts changes of any table, also those of others. What reads the same twice in a row was not
            // what they changed. An error, such as a set that has gone meanwhile, may be of two moments.
            let ruleset = ruleset.ok();
            if let (Some(now), Some(before)) = (&ruleset, &last)
                && now == before
            {
                return Ok(now.clone());
            }
            last = ruleset;
            // Somebody who writes rule by rule, as iptables does in a loop, is done in a while. All waits together are
            // one second.
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(Error::Unstable { table: table.to_string(), attempts: ATTEMPTS })
    }

    fn dump_once(&mut self, table: &Table, elements: bool) -> Result<Option<Ruleset>, Error> {
        let found = self.get(
            Kind::GetTable,
            Some(table.family),
            |to| to.str0(a::table::NAME, &table.name),
            decode::table,
        )?;
        let Some(table) = found else { return Ok(None) };
        let chains: Vec<Chain> =
            self.list(Kind::GetChain, &table, a::chain::TABLE, |message| decode::chain(message, &table))?;
        let rules: Vec<Rule> =
            self.list(Kind::GetRule, &table, a::rule::TABLE, |message| decode::rule(message, &table))?;
        let sets: Vec<Set> =
            self.list(Kind::GetSet, &table, a::set::TABLE, |message| decode::set(message, &table))?;
        let mut ruleset = Ruleset::new(table);
        for set in sets {
            let elements = if elements { self.elements_of(&ruleset.table, &set)? } else { Vec::new() };
            ruleset.sets.push(FilledSet { set, elements });
        }
        ruleset.chains = chains.into_iter().map(|chain| FilledChain { chain, rules: Vec::new() }).collect();
        for rule in rules {
            if let Some(filled) = ruleset.chains.iter_mut().find(|filled| filled.chain.name == rule.chain) {
                filled.rules.push(rule);
            }
        }
        Ok(Some(ruleset))
    }

    /// All objects of one kind in a table. `name` is the attribute that names the table.
    fn list<T>(
        &self,
        kind: Kind,
        table: &Table,
        name: u16,
        read: impl Fn(&Message<'_>) -> Result<Option<T>, Error>,
    ) -> Result<Vec<T>, Error> {
        self.collect(
            kind,
            |to| {
                to.raw(&encode::fixed(table.family));
                to.str0(name, &table.name);
            },
            |list: &mut Vec<T>, message| {
                list.extend(read(message)?);
                Ok(())
            },
        )
    }

    /// All elements of a set.
    ///
    /// The kernel writes them in parts and finds the beginning of each by counting. While a hash grows or shrinks in
    /// the background, which changes no generation, the order changes between parts: some come twice and as many not
    /// at all (`nf_tables_dump_set` and `nft_rhash_walk`, v6.12). Whoever sees one twice therefore reads again.
    pub(super) fn elements_of(&self, table: &Table, set: &Set) -> Result<Vec<Element>, Error> {
        for attempt in 0..ATTEMPTS {
            let elements = self.elements_once(table, set)?;
            if set.interval || all_differ(&elements) {
                return Ok(elements);
            }
            tracing::debug!(%table, %set, "the set was being rehashed while it was read; reading again");
            // Rehashing 20,000 elements takes milliseconds; all waits together are one second.
            std::thread::sleep(Duration::from_millis(1 << attempt));
        }
        Err(Error::Unstable { table: table.to_string(), attempts: ATTEMPTS })
    }

    /// All elements of a set, one by one as they are received; those of interval sets over one field, which come in
    /// halves, when all are there.
    pub(super) fn visit(
        &self,
        table: &Table,
        set: &Set,
        begin: &mut dyn FnMut(),
        each: &mut dyn FnMut(Element),
    ) -> Result<(), Error> {
        if set.interval && !set.is_concatenated() {
            begin();
            self.elements_of(table, set)?.into_iter().for_each(each);
            return Ok(());
        }
        let begin = std::cell::RefCell::new(begin);
        let error = self
            .socket
            .dump(
                Kind::GetElement.message(),
                |to| {
                    to.raw(&encode::fixed(table.family));
                    to.str0(a::list::TABLE, &table.name);
                    to.str0(a::list::SET, &set.name);
                },
                || {
                    (begin.borrow_mut())();
                    None
                },
                |error: &mut Option<Error>, message| {
                    let Some(elements) = message.attributes(wire::FIXED).find(a::list::ELEMENTS) else {
                        return;
                    };
                    for element in elements.nested() {
                        match decode::element(element, set) {
                            Ok(Some(raw)) => each(raw.into_element()),
                            Ok(None) => {}
                            Err(malformed) => *error = error.take().or(Some(malformed)),
                        }
                    }
                },
            )
            .map_err(socket)?;
        error.map_or(Ok(()), Err)
    }

    fn elements_once(&self, table: &Table, set: &Set) -> Result<Vec<Element>, Error> {
        let raw = self.collect(
            Kind::GetElement,
            |to| {
                to.raw(&encode::fixed(table.family));
                to.str0(a::list::TABLE, &table.name);
                to.str0(a::list::SET, &set.name);
            },
            |raw: &mut Vec<decode::Raw>, message| {
                if let Some(elements) = message.attributes(wire::FIXED).find(a::list::ELEMENTS) {
                    for element in elements.nested() {
                        raw.extend(decode::element(element, set)?);
                    }
                }
                Ok(())
            },
        )?;
        Ok(decode::assemble(set, raw))
    }

    fn collect<T>(
        &self,
        kind: Kind,
        write: impl Fn(&mut MessageWriter),
        mut each: impl FnMut(&mut Vec<T>, &Message<'_>) -> Result<(), Error>,
    ) -> Result<Vec<T>, Error> {
        let (list, error) = self
            .socket
            .dump(
                kind.message(),
                write,
                || (Vec::new(), None),
                |(list, error): &mut (Vec<T>, Option<Error>), message| {
                    if error.is_none() {
                        *error = each(list, message).err();
                    }
                },
            )
            .map_err(socket)?;
        error.map_or(Ok(list), Err)
    }
}

fn all_differ(elements: &[Element]) -> bool {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.iter().all(|element| seen.insert(&element.key))
}
