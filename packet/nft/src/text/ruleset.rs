//! A whole table, as `nft list table` prints it.

use std::fmt;

use super::{quoted, rule, time, value};
use crate::{BaseChain, DataType, FilledChain, FilledSet, Ruleset, Selector, SetValue, key_typeof};

impl fmt::Display for Ruleset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.table)?;
        if let Some(comment) = &self.table.comment {
            writeln!(f, "\tcomment {}", quoted(comment))?;
        }
        if self.table.dormant {
            writeln!(f, "\tflags dormant")?;
        }
        let mut first = true;
        for filled in &self.sets {
            separate(f, &mut first)?;
            set(f, filled)?;
        }
        for filled in &self.chains {
            separate(f, &mut first)?;
            chain(f, filled)?;
        }
        writeln!(f, "}}")
    }
}

/// An empty line between objects.
fn separate(f: &mut fmt::Formatter<'_>, first: &mut bool) -> fmt::Result {
    if std::mem::take(first) { Ok(()) } else { writeln!(f) }
}

fn types(types: &[DataType]) -> String {
    types.iter().map(|one| one.name()).collect::<Vec<_>>().join(" . ")
}

fn selected(selectors: &[Selector]) -> String {
    selectors.iter().map(Selector::to_string).collect::<Vec<_>>().join(" . ")
}

fn set(f: &mut fmt::Formatter<'_>, filled: &FilledSet) -> fmt::Result {
    let set = &filled.set;
    writeln!(f, "\t{} {} {{", set.noun(), set.name)?;
    // A declaration is by types or by `typeof` as a whole.
    let (word, key) = match set.key_typeof.as_slice() {
        [] => ("type", types(&set.key)),
        selectors => ("typeof", selected(selectors)),
    };
    match &set.value {
        SetValue::None => writeln!(f, "\t\t{word} {key}")?,
        SetValue::Data(data) if word == "typeof" => {
            writeln!(f, "\t\t{word} {key} : {}", selected(&key_typeof::examples(data)))?;
        }
        SetValue::Data(data) => writeln!(f, "\t\t{word} {key} : {}", types(data))?,
        SetValue::Verdict => writeln!(f, "\t\t{word} {key} : verdict")?,
    }
    if let Some(size) = set.size {
        writeln!(f, "\t\tsize {size}")?;
    }
    let flags: Vec<&str> = [
        (set.constant, "constant"),
        (set.interval, "interval"),
        (set.dynamic, "dynamic"),
        (set.timeouts || set.timeout.is_some(), "timeout"),
    ]
    .into_iter()
    .filter_map(|(on, flag)| on.then_some(flag))
    .collect();
    if !flags.is_empty() {
        writeln!(f, "\t\tflags {}", flags.join(","))?;
    }
    if let Some(timeout) = set.timeout {
        writeln!(f, "\t\ttimeout {}", time(timeout))?;
    }
    if set.counter {
        writeln!(f, "\t\tcounter")?;
    }
    if let Some(comment) = &set.comment {
        writeln!(f, "\t\tcomment {}", quoted(comment))?;
    }
    let mut separator = "\t\telements = { ";
    for element in &filled.elements {
        write!(f, "{separator}{}", value::element(set, element))?;
        separator = ",\n\t\t\t     ";
    }
    if !filled.elements.is_empty() {
        writeln!(f, " }}")?;
    }
    writeln!(f, "\t}}")
}

fn chain(f: &mut fmt::Formatter<'_>, filled: &FilledChain) -> fmt::Result {
    writeln!(f, "\tchain {} {{", filled.chain.name)?;
    if let Some(comment) = &filled.chain.comment {
        writeln!(f, "\t\tcomment {}", quoted(comment))?;
    }
    if let Some(BaseChain { kind, hook, priority, policy }) = &filled.chain.base {
        let (kind, hook, policy) = (kind.as_str(), hook.as_str(), policy.as_str());
        writeln!(f, "\t\ttype {kind} hook {hook} priority {priority}; policy {policy};")?;
    }
    for one in &filled.rules {
        write!(f, "\t\t{}", rule(one))?;
        match &one.comment {
            Some(comment) => writeln!(f, " comment {}", quoted(comment))?,
            None => writeln!(f)?,
        }
    }
    writeln!(f, "\t}}")
}
