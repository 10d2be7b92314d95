//! Elements, and how those of interval sets come in pairs.

use std::time::Duration;

use portolan_netlink::attribute::Attribute;

use super::{expression, userdata, value, verdict};
use crate::{
    Data, Element, ElementValue, Error, Set,
    wire::{self, attribute as a},
};

/// An element as the kernel has it: in sets of intervals over one field, a first key or the key after a last one.
#[derive(Debug)]
pub(crate) struct Raw {
    element: Element,
    after_interval: bool,
}

impl Raw {
    /// What it is in sets where elements are whole.
    pub(crate) fn into_element(self) -> Element {
        self.element
    }
}

/// Reads one element of `set`. `None` for the catch-all element, which has no key.
pub(crate) fn element(attribute: Attribute<'_>, set: &Set) -> Result<Option<Raw>, Error> {
    let attributes = attribute.nested();
    let Some(key) = attributes.find(a::elem::KEY).and_then(|key| value(key, set.key.len())) else {
        return Ok(None);
    };
    let mut element = Element::new(key);
    if set.interval && set.is_concatenated() {
        let last = attributes.find(a::elem::KEY_END).and_then(|key| value(key, set.key.len()));
        element.key_end = last.filter(|last| *last != element.key);
    }
    let fields = match &set.value {
        crate::SetValue::Data(types) => types.len(),
        _ => 1,
    };
    element.value = attributes.find(a::elem::DATA).and_then(|data| {
        let verdict = verdict(data).map(ElementValue::Verdict);
        verdict.or_else(|| value(data, fields).map(ElementValue::Data))
    });
    let milliseconds = |kind| attributes.find(kind).and_then(|time| time.be64()).map(Duration::from_millis);
    // The kernel repeats the set's own timeout on no element, but older ones did.
    element.timeout =
        milliseconds(a::elem::TIMEOUT).filter(|timeout| !timeout.is_zero() && Some(*timeout) != set.timeout);
    element.expires = milliseconds(a::elem::EXPIRATION);
    element.counter = attributes.find(a::elem::EXPR).and_then(expression::counter_of);
    element.comment = attributes.find(a::elem::USERDATA).and_then(|data| userdata::comment(data.payload));
    let flags = attributes.find(a::elem::FLAGS).and_then(|flags| flags.be32()).unwrap_or(0);
    Ok(Some(Raw { element, after_interval: flags & wire::ELEMENT_INTERVAL_END != 0 }))
}

/// Elements as they were meant: where the set has intervals over one field, firsts and lasts are joined.
pub(crate) fn assemble(set: &Set, mut raw: Vec<Raw>) -> Vec<Element> {
    if !set.interval || set.is_concatenated() {
        return raw.into_iter().map(|raw| raw.element).collect();
    }
    // The end of one interval may be the beginning of the next: the end comes first.
    raw.sort_by(|one, two| {
        one.element.key.cmp(&two.element.key).then(two.after_interval.cmp(&one.after_interval))
    });
    let greatest = Data::new().field(&vec![u8::MAX; set.key_length()]);
    let mut elements: Vec<Element> = Vec::with_capacity(raw.len() / 2 + 1);
    let mut open = false;
    for raw in raw {
        if open && let Some(interval) = elements.last_mut() {
            let last = raw.element.key.predecessor();
            interval.key_end = last.filter(|last| *last != interval.key);
        }
        open = !raw.after_interval;
        if open {
            elements.push(raw.element);
        }
    }
    if open && let Some(interval) = elements.last_mut() {
        interval.key_end = Some(greatest).filter(|greatest| *greatest != interval.key);
    }
    elements
}
