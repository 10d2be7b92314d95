//! Our objects in nft's own words, as `nft list` prints them and `nft -f` reads them: for people, logs, snapshots and
//! to compare with nft itself. Reading is not needed, since nothing here is ever parsed.
//!
//! [`value`] prints single values, [`rule`](mod@rule) turns expressions back into statements, [`ruleset`] prints a whole table.

mod rule;
mod ruleset;
mod statement;
mod value;

pub(crate) use rule::rule;
pub(crate) use value::{element_key, field};

use std::time::Duration;

use crate::Transaction;

/// As nft writes times: `1d2h3m4s5ms`.
pub(crate) fn time(duration: Duration) -> String {
    let mut rest = duration.as_millis();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")] {
        if rest >= unit {
            text += &format!("{}{name}", rest / unit);
            rest %= unit;
        }
    }
    text
}

/// A text in quotes. nft has no escapes: a quote inside cannot be written and becomes an apostrophe.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "'"))
}

impl Transaction {
    /// In a few words, for errors about the whole of it.
    pub(crate) fn describe(&self) -> String {
        match self.operations.as_slice() {
            [only] => only.describe(&self.table, None),
            all => format!("transaction of {} steps on table {}", all.len(), self.table),
        }
    }
}
