//! From transactions to bytes. [`batch`] numbers the messages of one transaction, [`object`] writes tables, chains,
//! rules and sets, [`element`] writes elements, [`expression`] what rules do, [`userdata`] what only people read.

mod batch;
mod element;
mod expression;
mod object;
pub(crate) mod userdata;

pub(crate) use batch::{Batch, encode, fixed};
pub(crate) use expression::name as expression_name;

use portolan_netlink::attribute::Writer;

use crate::{Verdict, wire::attribute as a};

/// A `NFTA_DATA_VALUE` inside `kind`.
fn value(to: &mut Writer, kind: u16, bytes: &[u8]) {
    to.nest(kind, |to| to.bytes(a::data::VALUE, bytes));
}

/// A `NFTA_DATA_VERDICT` inside `kind`.
fn verdict(to: &mut Writer, kind: u16, verdict: &Verdict) {
    to.nest(kind, |to| {
        to.nest(a::data::VERDICT, |to| {
            to.be32(a::verdict::CODE, verdict.code() as u32);
            if let Some(chain) = verdict.chain() {
                to.str0(a::verdict::CHAIN, chain);
            }
        });
    });
}

#[cfg(test)]
mod tests;
