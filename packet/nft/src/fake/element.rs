//! Elements: keys that are there, that overlap, that lead to chains.

use super::{
    Refusal,
    errno::{EBUSY, EEXIST, EINVAL, ENFILE, ENOENT},
    reference,
    state::{HeldSet, State},
};
use crate::{Counter, Element, ElementValue, Elements, Set, Verb};

/// Does the verb for each element in order; the first refusal names its element.
pub(super) fn change(state: &mut State, elements: &Elements, verb: Verb) -> Result<(), Refusal> {
    let name = &elements.set.name;
    // Also for destroy: the element may be missing, the set may not.
    state.set(name).ok_or(ENOENT)?;
    for (index, element) in elements.elements.iter().enumerate() {
        let one = match verb {
            Verb::Add | Verb::Create => add(state, name, element, verb),
            Verb::Delete => remove(state.set_mut(name)?, element),
            // An element that is not there is all that is forgiven.
            Verb::Destroy => remove(state.set_mut(name)?, element).or(Ok(())),
            Verb::Insert | Verb::Replace | Verb::Flush => Ok(()),
        };
        one.map_err(|refusal| Refusal { element: Some(index), ..refusal })?;
    }
    Ok(())
}

fn add(state: &mut State, name: &str, element: &Element, verb: Verb) -> Result<(), Refusal> {
    if let Some(ElementValue::Verdict(verdict)) = &element.value {
        reference::verdict(state, verdict)?;
    }
    let held = state.set_mut(name)?;
    if element.timeout.is_some() && !held.set.timeouts {
        return Err(EINVAL.into());
    }
    if held.set.constant {
        return Err(EBUSY.into());
    }
    if let Some(there) = held.elements.get(&element.key)
        && there.last() == element.last()
    {
        return match () {
            // v6.12 and before say EBUSY.
            () if there.value != element.value => Err(EEXIST.into()),
            () if verb == Verb::Create => Err(EEXIST.into()),
            () => Ok(()),
        };
    }
    if held.set.interval && overlaps(held, element) {
        return Err(EEXIST.into());
    }
    if held.set.size.is_some_and(|size| held.elements.len() >= size as usize) {
        return Err(ENFILE.into());
    }
    let mut new = element.clone();
    new.counter = held.set.counter.then(Counter::default);
    new.expires = None;
    new.timeout = new.timeout.filter(|timeout| Some(*timeout) != held.set.timeout);
    new.key_end = new.key_end.filter(|last| *last != new.key);
    held.elements.insert(new.key.clone(), new);
    Ok(())
}

fn remove(held: &mut HeldSet, element: &Element) -> Result<(), Refusal> {
    match held.elements.get(&element.key) {
        Some(there) if there.last() == element.last() => {
            held.elements.remove(&element.key);
            Ok(())
        }
        _ => Err(ENOENT.into()),
    }
}

/// Whether it shares a key with an element that is there.
fn overlaps(held: &HeldSet, element: &Element) -> bool {
    if !held.set.is_concatenated() {
        // What is there does not overlap, so only the last that begins before this one's end can.
        let before = held.elements.range(..=element.last()).next_back();
        return before.is_some_and(|(_, there)| there.last() >= &element.key);
    }
    held.elements.values().any(|there| overlap(&held.set, there, element))
}

/// Whether some key is in both: the intervals of each field meet.
fn overlap(set: &Set, one: &Element, two: &Element) -> bool {
    let lengths: Vec<usize> = set.key.iter().map(|field| field.length()).collect();
    let firsts = one.key.split(&lengths).zip(two.key.split(&lengths));
    let lasts = one.last().split(&lengths).zip(two.last().split(&lengths));
    firsts.zip(lasts).all(|((first1, first2), (last1, last2))| first1 <= last2 && first2 <= last1)
}
