//! The verbs, one by one, as `net/netfilter/nf_tables_api.c` (v6.12) does them.

use super::{
    Refusal, element,
    errno::{EBUSY, EEXIST, ENOENT},
    reference,
    state::{HeldChain, HeldSet, State},
};
use crate::{Chain, Object, Operation, Rule, Set, SetValue, Table, Verb, encode};

/// What cannot even be written, as the encoder says it: a step that no kernel would see.
pub(super) fn writable(operation: &Operation) -> Result<(), String> {
    let mut alone = crate::Transaction::new(Table::new(crate::Family::Inet, ""));
    alone.operations.push(operation.clone());
    match encode::encode(&alone, || 0) {
        Err(crate::Error::Invalid { why, .. }) => Err(why),
        _ => Ok(()),
    }
}

/// Does one step. `state` is the transaction's table, `None` when there is none.
pub(super) fn operation(
    table: &Table,
    state: &mut Option<State>,
    operation: &Operation,
) -> Result<(), Refusal> {
    let verb = operation.verb;
    if let Object::Table = operation.object {
        return self::table(table, state, verb);
    }
    // Also for destroy: the object may be missing, the table may not.
    let state = state.as_mut().ok_or(ENOENT)?;
    match &operation.object {
        Object::Table => Ok(()),
        Object::Chain(one) => chain(state, one, verb),
        Object::Rule(one) => rule(state, one, verb),
        Object::Set(one) => set(state, one, verb),
        Object::Elements(elements) => element::change(state, elements, verb),
    }
}

fn table(table: &Table, state: &mut Option<State>, verb: Verb) -> Result<(), Refusal> {
    match (verb, state.as_mut()) {
        (Verb::Add | Verb::Create, None) => *state = Some(State::new(table.clone())),
        (Verb::Create, Some(_)) => return Err(EEXIST.into()),
        // The kernel keeps the comment that is there and takes the flag.
        (Verb::Add, Some(there)) => there.table.dormant = table.dormant,
        (Verb::Delete, None) | (Verb::Flush, None) => return Err(ENOENT.into()),
        (Verb::Delete | Verb::Destroy, _) => *state = None,
        (Verb::Flush, Some(there)) => there.chains.iter_mut().for_each(|held| held.rules.clear()),
        (Verb::Insert | Verb::Replace, _) => {}
    }
    Ok(())
}

fn chain(state: &mut State, chain: &Chain, verb: Verb) -> Result<(), Refusal> {
    let there = state.chains.iter().position(|held| held.chain.name == chain.name);
    match (verb, there) {
        (Verb::Add | Verb::Create, None) => {
            state.chains.push(HeldChain { chain: chain.clone(), rules: Vec::new() });
        }
        (Verb::Create, Some(_)) => return Err(EEXIST.into()),
        (Verb::Add, Some(place)) => {
            let held = &mut state.chains[place].chain;
            match (&mut held.base, &chain.base) {
                (Some(old), Some(new)) => {
                    if (old.kind, old.hook, old.priority) != (new.kind, new.hook, new.priority) {
                        return Err(EEXIST.into());
                    }
                    old.policy = new.policy;
                }
                (None, Some(_)) => return Err(EEXIST.into()),
                (_, None) => {}
            }
        }
        (Verb::Destroy, None) => {}
        (Verb::Delete | Verb::Flush, None) => return Err(ENOENT.into()),
        (Verb::Delete | Verb::Destroy, Some(place)) => {
            if reference::chain_is_used(state, &chain.name) {
                return Err(EBUSY.into());
            }
            state.chains.remove(place);
        }
        (Verb::Flush, Some(place)) => state.chains[place].rules.clear(),
        (Verb::Insert | Verb::Replace, _) => {}
    }
    Ok(())
}

fn rule(state: &mut State, rule: &Rule, verb: Verb) -> Result<(), Refusal> {
    let base = match state.chain(&rule.chain) {
        Some(held) => held.chain.base.clone(),
        None if verb == Verb::Destroy => return Ok(()),
        None => return Err(ENOENT.into()),
    };
    let makes = !matches!(verb, Verb::Delete | Verb::Destroy);
    if makes {
        reference::rule(state, rule, base.as_ref())?;
    }
    let handle = if makes && verb != Verb::Replace { state.handle() } else { rule.handle.unwrap_or(0) };
    let rules = &mut state.chain_mut(&rule.chain)?.rules;
    let with_handle = |handle: Option<u64>| rules.iter().position(|held| held.handle == handle);
    let new = Rule { handle: Some(handle), position: None, ..rule.clone() };
    match verb {
        Verb::Add | Verb::Create | Verb::Insert => {
            let after = verb != Verb::Insert;
            let place = match rule.position {
                None if after => rules.len(),
                None => 0,
                position => with_handle(position).ok_or(ENOENT)? + usize::from(after),
            };
            rules.insert(place, new);
        }
        Verb::Replace => {
            let place = with_handle(rule.handle).ok_or(ENOENT)?;
            // The kernel makes a new rule in the old one's place.
            let handle = state.handle();
            state.chain_mut(&rule.chain)?.rules[place] = Rule { handle: Some(handle), ..new };
        }
        Verb::Delete => {
            let place = with_handle(rule.handle).ok_or(ENOENT)?;
            rules.remove(place);
        }
        Verb::Destroy => rules.retain(|held| held.handle != rule.handle),
        Verb::Flush => {}
    }
    Ok(())
}

fn set(state: &mut State, set: &Set, verb: Verb) -> Result<(), Refusal> {
    let there = state.sets.iter().position(|held| held.set.name == set.name);
    match (verb, there) {
        (Verb::Add | Verb::Create, None) => {
            let mut set = set.clone();
            // A timeout of its own brings the flag.
            set.timeouts |= set.timeout.is_some();
            state.sets.push(HeldSet { set, elements: std::collections::BTreeMap::new() });
        }
        (Verb::Create, Some(_)) => return Err(EEXIST.into()),
        (Verb::Add, Some(place)) if !same(&state.sets[place].set, set) => return Err(EEXIST.into()),
        (Verb::Destroy, None) => {}
        (Verb::Delete | Verb::Flush, None) => return Err(ENOENT.into()),
        (Verb::Delete | Verb::Destroy, Some(place)) => {
            if reference::set_is_used(state, &set.name) {
                return Err(EBUSY.into());
            }
            state.sets.remove(place);
        }
        (Verb::Flush, Some(place)) => state.sets[place].elements.clear(),
        (Verb::Add | Verb::Insert | Verb::Replace, _) => {}
    }
    Ok(())
}

/// What `nft_set_is_same` compares: not the comment and other userdata.
fn same(one: &Set, two: &Set) -> bool {
    let length = |set: &Set| match &set.value {
        SetValue::Data(_) => set.value_length(),
        _ => 0,
    };
    one.key == two.key
        && one.value == two.value
        && length(one) == length(two)
        && one.interval == two.interval
        && (one.timeouts || one.timeout.is_some()) == (two.timeouts || two.timeout.is_some())
        && one.timeout == two.timeout
        && one.dynamic == two.dynamic
        && one.constant == two.constant
        && one.size == two.size
        && one.counter == two.counter
}
