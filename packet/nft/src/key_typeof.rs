//! nft's `typeof`: what a set's key is read from, in the userdata of the set.
//!
//! Types alone do not say how long an `integer` is, so a set keyed by `numgen` or `jhash` can only be listed and read
//! again with it. Layout and numbers as nft 1.0.6 writes them (`expr_build_udata` and `*_build_udata` in its sources);
//! a selector that is not known here is left out, which costs beauty and nothing else.

use crate::{
    CtDirection, CtKey, DataType, MetaKey, Selector,
    decode::userdata::find,
    encode::userdata::{put, put_number},
};

// NFTNL_UDATA_SET_TYPEOF_EXPR and _DATA of libnftnl.
const EXPRESSION: u8 = 0;
const DATA: u8 = 1;

// `enum expr_types` of nft's include/expression.h.
const PAYLOAD: u32 = 7;
const META: u32 = 9;
const CT: u32 = 12;
const CONCAT: u32 = 13;
const NUMGEN: u32 = 23;
const HASH: u32 = 24;
const FIB: u32 = 26;

/// `ct` without a direction.
const NO_DIRECTION: u32 = u32::MAX;

/// The key as `typeof` userdata; `None` when there is nothing to say or it cannot be said.
pub(crate) fn write(selectors: &[Selector]) -> Option<Vec<u8>> {
    match selectors {
        [] => None,
        [only] => one(only),
        several => {
            let mut fields = Vec::new();
            for (at, selector) in several.iter().enumerate() {
                put(&mut fields, u8::try_from(at).ok()?, &one(selector)?);
            }
            // Lengths have one byte: more than four or five fields cannot be said.
            (fields.len() < 240).then(|| expression(CONCAT, &fields))
        }
    }
}

fn expression(kind: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(data.len() + 8);
    put_number(&mut bytes, EXPRESSION, kind);
    put(&mut bytes, DATA, data);
    bytes
}

fn one(selector: &Selector) -> Option<Vec<u8>> {
    let (kind, numbers) = described(selector)?;
    let mut data = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        put_number(&mut data, at as u8, *number);
    }
    Some(expression(kind, &data))
}

/// An expression's kind and its attributes, numbered from 0.
fn described(selector: &Selector) -> Option<(u32, Vec<u32>)> {
    // Protocols and fields by nft's numbers: th 11 (sport 1, dport 2), ip 12 (saddr 11, daddr 12), ip6 13 (8, 9).
    let payload = |protocol, field| (PAYLOAD, vec![protocol, field]);
    let meta = |key: MetaKey| (META, vec![key as u32]);
    let ct = |key: CtKey, direction| (CT, vec![key as u32, direction]);
    // Kind (1: symmetric), offset, modulus, seed, whether there is a seed.
    let hash = |modulus| (HASH, vec![1, 0, modulus, 0, 0]);
    Some(match *selector {
        Selector::SourcePort => payload(11, 1),
        Selector::DestinationPort => payload(11, 2),
        Selector::IpSource => payload(12, 11),
        Selector::IpDestination => payload(12, 12),
        Selector::Ip6Source => payload(13, 8),
        Selector::Ip6Destination => payload(13, 9),
        Selector::L4Proto => meta(MetaKey::L4Proto),
        Selector::NfProto => meta(MetaKey::NfProto),
        Selector::Mark => meta(MetaKey::Mark),
        Selector::InputInterface => meta(MetaKey::InputInterfaceName),
        Selector::OutputInterface => meta(MetaKey::OutputInterfaceName),
        Selector::CtMark => ct(CtKey::Mark, NO_DIRECTION),
        Selector::CtState => ct(CtKey::State, NO_DIRECTION),
        Selector::CtStatus => ct(CtKey::Status, NO_DIRECTION),
        Selector::CtDirection => ct(CtKey::Direction, NO_DIRECTION),
        Selector::CtTuple(key, direction) => ct(key, direction as u32),
        Selector::NumgenIncremental(modulus) => (NUMGEN, vec![0, modulus, 0]),
        Selector::NumgenRandom(modulus) => (NUMGEN, vec![1, modulus, 0]),
        // nft 1.0.6 writes `typeof jhash ...` without what is hashed, and crashes when it lists its own set.
        Selector::HashIpSource(modulus, _)
        | Selector::HashIp6Source(modulus, _)
        | Selector::SymmetricHash(modulus) => hash(modulus),
        Selector::SourceType => (FIB, vec![3, 1]),
        Selector::DestinationType => (FIB, vec![3, 2]),
    })
}

/// Reads what [`fn@write`] wrote; empty for what it would not write.
pub(crate) fn read(bytes: &[u8]) -> Vec<Selector> {
    let Some((kind, data)) = open(bytes) else { return Vec::new() };
    if kind != CONCAT {
        return read_one(kind, data).into_iter().collect();
    }
    let mut selectors = Vec::new();
    for at in 0..=u8::MAX {
        let Some(field) = find(data, at) else { break };
        match open(field).and_then(|(kind, data)| read_one(kind, data)) {
            Some(selector) => selectors.push(selector),
            None => return Vec::new(),
        }
    }
    selectors
}

fn open(bytes: &[u8]) -> Option<(u32, &[u8])> {
    Some((number(bytes, EXPRESSION)?, find(bytes, DATA)?))
}

fn number(bytes: &[u8], kind: u8) -> Option<u32> {
    find(bytes, kind)?.try_into().ok().map(u32::from_ne_bytes)
}

fn read_one(kind: u32, data: &[u8]) -> Option<Selector> {
    let at = |index| number(data, index);
    let candidate = match kind {
        CT if at(1)? != NO_DIRECTION => {
            let direction = if at(1)? == 0 { CtDirection::Original } else { CtDirection::Reply };
            Selector::CtTuple(CtKey::from_number(at(0)?)?, direction)
        }
        NUMGEN if at(0)? == 0 => Selector::NumgenIncremental(at(1)?),
        NUMGEN => Selector::NumgenRandom(at(1)?),
        HASH => Selector::SymmetricHash(at(2)?),
        _ => {
            let numbers: Vec<u32> = (0..=u8::MAX).map_while(at).collect();
            return Selector::PLAIN
                .into_iter()
                .find(|selector| described(selector).is_some_and(|one| one.0 == kind && one.1 == numbers));
        }
    };
    // An offset, or anything else that has no place in a selector, shows here.
    described(&candidate)?
        .1
        .iter()
        .zip(0..)
        .all(|(value, index)| at(index) == Some(*value))
        .then_some(candidate)
}

/// Something of each of these types: a map whose key is said by `typeof` must say its values so too. Empty when a
/// type has no example here.
pub(crate) fn examples(types: &[DataType]) -> Vec<Selector> {
    let example =
        |data_type: &DataType| Selector::PLAIN.into_iter().find(|one| one.data_type() == *data_type);
    types.iter().map(example).collect::<Option<_>>().unwrap_or_default()
}

#[cfg(test)]
mod tests;
