//! Tables, chains, rules and the declarations of sets. What rules hold is written by [`super::expression`].

use portolan_netlink::attribute::Writer;

use super::{expression, userdata};
use crate::{
    Chain, DataType, Rule, Set, SetValue, Table, Verb,
    element::milliseconds,
    wire::{self, attribute as a, set_flag},
};

/// Whether the verb makes something, and so needs more than a name.
const fn makes(verb: Verb) -> bool {
    matches!(verb, Verb::Add | Verb::Create | Verb::Insert | Verb::Replace)
}

pub(super) fn table(to: &mut Writer, table: &Table, verb: Verb) {
    to.str0(a::table::NAME, &table.name);
    if !makes(verb) {
        return;
    }
    to.be32(a::table::FLAGS, if table.dormant { wire::TABLE_DORMANT } else { 0 });
    if let Some(comment) = &table.comment {
        to.bytes(a::table::USERDATA, &userdata::comment(comment));
    }
}

pub(super) fn chain(to: &mut Writer, table: &Table, chain: &Chain, verb: Verb) {
    to.str0(a::chain::TABLE, &table.name);
    to.str0(a::chain::NAME, &chain.name);
    if !makes(verb) {
        return;
    }
    if let Some(base) = &chain.base {
        to.nest(a::chain::HOOK, |to| {
            to.be32(a::hook::HOOKNUM, base.hook as u32);
            to.be32(a::hook::PRIORITY, base.priority as u32);
        });
        to.be32(a::chain::POLICY, base.policy as u32);
        to.str0(a::chain::TYPE, base.kind.as_str());
    }
    if let Some(comment) = &chain.comment {
        to.bytes(a::chain::USERDATA, &userdata::comment(comment));
    }
}

pub(super) fn rule(to: &mut Writer, table: &Table, rule: &Rule, verb: Verb) {
    to.str0(a::rule::TABLE, &table.name);
    to.str0(a::rule::CHAIN, &rule.chain);
    if let Some(handle) = rule.handle.filter(|_| !matches!(verb, Verb::Add | Verb::Create | Verb::Insert)) {
        to.be64(a::rule::HANDLE, handle);
    }
    if !makes(verb) {
        return;
    }
    if let Some(position) = rule.position {
        to.be64(a::rule::POSITION, position);
    }
    to.nest(a::rule::EXPRESSIONS, |to| {
        for one in &rule.expressions {
            expression::write(to, a::LIST_ELEM, one);
        }
    });
    if let Some(comment) = &rule.comment {
        to.bytes(a::rule::USERDATA, &userdata::comment(comment));
    }
}

/// What the kernel would refuse without saying why.
pub(super) fn check_set(set: &Set) -> Result<(), String> {
    // NFT_DATA_VALUE_MAXLEN, which is also all that registers hold.
    const KEY_AT_MOST: usize = 64;
    if set.key.is_empty() || set.key_length() == 0 {
        return Err("its key has no field".to_owned());
    }
    if set.key_length() > KEY_AT_MOST || set.value_length() > KEY_AT_MOST {
        return Err(format!("its key or value is longer than {KEY_AT_MOST} bytes"));
    }
    // A type's number has 6 bits, and the kernel keeps 32 of them.
    if set.key.len() > (u32::BITS / DataType::BITS) as usize {
        return Err(format!("its key has {} fields, five are the most", set.key.len()));
    }
    Ok(())
}

pub(super) fn set(to: &mut Writer, table: &Table, set: &Set, id: u32, verb: Verb) {
    to.str0(a::set::TABLE, &table.name);
    to.str0(a::set::NAME, &set.name);
    if !makes(verb) {
        return;
    }
    to.be32(a::set::FLAGS, set_flags(set));
    to.be32(a::set::KEY_TYPE, DataType::concatenated(&set.key));
    to.be32(a::set::KEY_LEN, set.key_length() as u32);
    match &set.value {
        SetValue::None => {}
        SetValue::Data(types) => {
            to.be32(a::set::DATA_TYPE, DataType::concatenated(types));
            to.be32(a::set::DATA_LEN, set.value_length() as u32);
        }
        SetValue::Verdict => {
            to.be32(a::set::DATA_TYPE, wire::DATA_VERDICT);
            to.be32(a::set::DATA_LEN, set.value_length() as u32);
        }
    }
    // Required for every set, though names identify ours.
    to.be32(a::set::ID, id);
    to.nest(a::set::DESC, |to| {
        if let Some(size) = set.size {
            to.be32(a::desc::SIZE, size);
        }
        if set.interval && set.is_concatenated() {
            // Only sets of the pipapo kind want the fields; others refuse them with EINVAL (seen on 6.18).
            to.nest(a::desc::CONCAT, |to| {
                for field in &set.key {
                    to.nest(a::LIST_ELEM, |to| to.be32(a::field::LEN, field.length() as u32));
                }
            });
        }
    });
    if let Some(timeout) = set.timeout {
        to.be64(a::set::TIMEOUT, milliseconds(timeout));
    }
    to.bytes(a::set::USERDATA, &userdata::set(set));
    if set.counter {
        to.nest(a::set::EXPR, |to| {
            to.str0(a::expr::NAME, "counter");
            to.nest(a::expr::DATA, |_| {});
        });
    }
}

fn set_flags(set: &Set) -> u32 {
    let flag = |on: bool, flag: u32| if on { flag } else { 0 };
    flag(set.constant, set_flag::CONSTANT)
        | flag(set.interval, set_flag::INTERVAL)
        | flag(set.value != SetValue::None, set_flag::MAP)
        | flag(set.timeouts || set.timeout.is_some(), set_flag::TIMEOUT)
        | flag(set.dynamic, set_flag::EVAL)
        | flag(set.interval && set.is_concatenated(), set_flag::CONCAT)
}
