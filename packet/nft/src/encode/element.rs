//! Elements: flat, one after the other into one buffer, since a transaction may have 100,000 of them.

use portolan_netlink::attribute::Writer;

use super::{userdata, value, verdict};
use crate::{
    Element, ElementValue, Set, Verb,
    element::milliseconds,
    wire::{self, attribute as a},
};

/// Writes one element of `set`.
///
/// A set of intervals over one field (the kernel's `rbtree`) wants two elements: the first key, and the key after the
/// last, marked; none when the interval reaches to the end. One over several fields (`pipapo`) wants both keys.
pub(super) fn write(to: &mut Writer, set: &Set, element: &Element, verb: Verb) -> Result<(), String> {
    check(set, element, verb)?;
    let pairs = set.interval && !set.is_concatenated();
    to.nest(a::LIST_ELEM, |to| {
        value(to, a::elem::KEY, element.key.as_bytes());
        if set.interval && !pairs {
            value(to, a::elem::KEY_END, element.last().as_bytes());
        }
        if matches!(verb, Verb::Add | Verb::Create) {
            content(to, element);
        }
    });
    if pairs && let Some(after) = element.last().successor() {
        to.nest(a::LIST_ELEM, |to| {
            to.be32(a::elem::FLAGS, wire::ELEMENT_INTERVAL_END);
            value(to, a::elem::KEY, after.as_bytes());
        });
    }
    Ok(())
}

fn content(to: &mut Writer, element: &Element) {
    match &element.value {
        None => {}
        Some(ElementValue::Data(data)) => value(to, a::elem::DATA, data.as_bytes()),
        Some(ElementValue::Verdict(one)) => verdict(to, a::elem::DATA, one),
    }
    if let Some(timeout) = element.timeout {
        to.be64(a::elem::TIMEOUT, milliseconds(timeout));
    }
    if let Some(comment) = &element.comment {
        to.bytes(a::elem::USERDATA, &userdata::comment(comment));
    }
}

/// What the kernel would refuse as EINVAL or, worse, take as another key.
fn check(set: &Set, element: &Element, verb: Verb) -> Result<(), String> {
    let (length, expected) = (element.key.as_bytes().len(), set.key_length());
    if length != expected {
        return Err(format!("its key has {length} bytes, the set's keys have {expected}"));
    }
    if let Some(last) = &element.key_end {
        if !set.interval {
            return Err("it is an interval, and the set has none".to_owned());
        }
        if last.as_bytes().len() != expected || *last < element.key {
            return Err("its last key is shorter or less than its first".to_owned());
        }
    }
    if !matches!(verb, Verb::Add | Verb::Create) {
        return Ok(());
    }
    match (&element.value, set.value_length(), &set.value) {
        (None, 0, _) | (Some(ElementValue::Verdict(_)), _, crate::SetValue::Verdict) => Ok(()),
        (Some(ElementValue::Data(data)), bytes, crate::SetValue::Data(_))
            if data.as_bytes().len() == bytes =>
        {
            Ok(())
        }
        (Some(ElementValue::Data(data)), bytes, crate::SetValue::Data(_)) => {
            Err(format!("its value has {} bytes, the map's values have {bytes}", data.as_bytes().len()))
        }
        _ => Err(format!("its value is not of the kind that the {} has", set.noun())),
    }
}
