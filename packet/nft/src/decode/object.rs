//! Tables, chains, rules and the declarations of sets.

use std::time::Duration;

use portolan_netlink::{attribute::Attribute, message::Message};

use super::{Reader, expression, userdata};
use crate::{
    BaseChain, Chain, ChainKind, DataType, Error, Family, Hook, Policy, Rule, Set, SetValue, Table,
    wire::{self, attribute as a, set_flag},
};

/// The family in a message's fixed part.
pub(crate) fn family(message: &Message<'_>) -> Option<Family> {
    message.payload.first().and_then(|&number| Family::from_number(number))
}

/// A table; `None` for one of a family that this crate does not know.
pub(crate) fn table(message: &Message<'_>) -> Result<Option<Table>, Error> {
    let Some(family) = family(message) else { return Ok(None) };
    let reader = Reader::new("a table", message.attributes(wire::FIXED));
    let comment = reader.find(a::table::USERDATA).and_then(|data| userdata::comment(data.payload));
    let dormant = reader.be32_or_0(a::table::FLAGS) & wire::TABLE_DORMANT != 0;
    Ok(Some(Table { family, name: reader.string(a::table::NAME)?, dormant, comment }))
}

/// A chain of `table`; `None` for one of another table.
pub(crate) fn chain(message: &Message<'_>, table: &Table) -> Result<Option<Chain>, Error> {
    let reader = Reader::new("a chain", message.attributes(wire::FIXED));
    if family(message) != Some(table.family) || reader.string(a::chain::TABLE)? != table.name {
        return Ok(None);
    }
    let base =
        reader.find(a::chain::HOOK).map(|hook| base(&reader, &hook, table.family)).transpose()?.flatten();
    let comment = reader.find(a::chain::USERDATA).and_then(|data| userdata::comment(data.payload));
    Ok(Some(Chain { name: reader.string(a::chain::NAME)?, base, comment }))
}

/// How the kernel calls the chain; `None` for a hook or kind that has no name here, in tables of others.
fn base(chain: &Reader<'_>, hook: &Attribute<'_>, family: Family) -> Result<Option<BaseChain>, Error> {
    let hook = Reader::new("a chain's hook", hook.nested());
    let kind = ChainKind::from_word(&chain.string(a::chain::TYPE)?);
    let place = Hook::from_number(family, hook.be32(a::hook::HOOKNUM)?);
    let priority = hook.be32(a::hook::PRIORITY)? as i32;
    let policy = if chain.be32(a::chain::POLICY)? == 0 { Policy::Drop } else { Policy::Accept };
    Ok(kind.zip(place).map(|(kind, hook)| BaseChain { kind, hook, priority, policy }))
}

/// A rule of `table`; `None` for one of another table.
pub(crate) fn rule(message: &Message<'_>, table: &Table) -> Result<Option<Rule>, Error> {
    let reader = Reader::new("a rule", message.attributes(wire::FIXED));
    if family(message) != Some(table.family) || reader.string(a::rule::TABLE)? != table.name {
        return Ok(None);
    }
    let expressions = reader.find(a::rule::EXPRESSIONS).map(expression::list).transpose()?;
    Ok(Some(Rule {
        chain: reader.string(a::rule::CHAIN)?,
        expressions: expressions.unwrap_or_default(),
        comment: reader.find(a::rule::USERDATA).and_then(|data| userdata::comment(data.payload)),
        handle: Some(reader.be64(a::rule::HANDLE)?),
        // A dump tells the rule before; the order tells it too.
        position: None,
    }))
}

/// A set's declaration, of `table`; `None` for one of another table.
pub(crate) fn set(message: &Message<'_>, table: &Table) -> Result<Option<Set>, Error> {
    let reader = Reader::new("a set", message.attributes(wire::FIXED));
    if family(message) != Some(table.family) || reader.string(a::set::TABLE)? != table.name {
        return Ok(None);
    }
    let flags = reader.be32_or_0(a::set::FLAGS);
    let key = DataType::split(reader.be32_or_0(a::set::KEY_TYPE), reader.be32(a::set::KEY_LEN)? as usize);
    let value = if flags & set_flag::MAP == 0 {
        SetValue::None
    } else {
        match reader.be32(a::set::DATA_TYPE)? {
            wire::DATA_VERDICT => SetValue::Verdict,
            number => SetValue::Data(DataType::split(number, reader.be32(a::set::DATA_LEN)? as usize)),
        }
    };
    let size = reader.find(a::set::DESC).and_then(|desc| desc.nested().find(a::desc::SIZE)?.be32());
    let timeout =
        reader.find(a::set::TIMEOUT).and_then(|timeout| timeout.be64()).filter(|&timeout| timeout != 0);
    let data = reader.find(a::set::USERDATA).map(|data| data.payload).unwrap_or_default();
    Ok(Some(Set {
        name: reader.string(a::set::NAME)?,
        key,
        value,
        interval: flags & set_flag::INTERVAL != 0,
        timeouts: flags & set_flag::TIMEOUT != 0,
        timeout: timeout.map(Duration::from_millis),
        dynamic: flags & set_flag::EVAL != 0,
        constant: flags & set_flag::CONSTANT != 0,
        size,
        counter: reader.find(a::set::EXPR).and_then(expression::counter_of).is_some(),
        key_typeof: userdata::key_typeof(data),
        comment: userdata::set_comment(data),
    }))
}
