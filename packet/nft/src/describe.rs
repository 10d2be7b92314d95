//! Steps in words: what errors and logs say.

use std::fmt;

use crate::{Object, Operation, Table, text};

impl Operation {
    /// `add element 6 . 20417 to map inet portolan host_v4`. With `element` it names that one of several.
    pub fn describe(&self, table: &Table, element: Option<usize>) -> String {
        let verb = self.verb;
        match &self.object {
            Object::Table => format!("{verb} table {table}"),
            Object::Chain(chain) => format!("{verb} chain {table} {}", chain.name),
            Object::Rule(rule) => match (rule.handle, &rule.comment) {
                (Some(handle), _) => format!("{verb} rule {table} {} handle {handle}", rule.chain),
                (None, Some(comment)) => format!("{verb} rule {table} {} ({comment})", rule.chain),
                (None, None) => format!("{verb} rule {table} {} {}", rule.chain, text::rule(rule)),
            },
            Object::Set(set) => format!("{verb} {} {table} {}", set.noun(), set.name),
            Object::Elements(elements) => {
                let place = Place(&elements.set, table);
                let preposition = match verb {
                    crate::Verb::Delete | crate::Verb::Destroy => "from",
                    _ => "to",
                };
                let one = match (element, elements.elements.as_slice()) {
                    (Some(index), all) => all.get(index),
                    (None, [only]) => Some(only),
                    (None, _) => None,
                };
                match one {
                    Some(one) => {
                        format!(
                            "{verb} element {} {preposition} {place}",
                            text::element_key(&elements.set, one)
                        )
                    }
                    None => format!("{verb} {} elements {preposition} {place}", elements.elements.len()),
                }
            }
        }
    }
}

struct Place<'a>(&'a crate::Set, &'a Table);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.noun(), self.1, self.0.name)
    }
}
