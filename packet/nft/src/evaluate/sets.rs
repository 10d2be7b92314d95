//! Sets as the kernel looks into them: by key, by interval, by an interval in each field; and what rules add to them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::{Data, Element, FilledSet, Set};

/// A set that can be looked into. Copies share what it was filled with.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    filled: Arc<Filled>,
    // What rules did to it since: an element, or none where there was one.
    changed: BTreeMap<Vec<u8>, Option<Element>>,
    // How many there are now.
    count: usize,
}

#[derive(Debug)]
struct Filled {
    set: Set,
    elements: Vec<Element>,
    // Sets without intervals: which element has this key.
    exact: HashMap<Vec<u8>, usize>,
    // Intervals over one field: which element begins with this key.
    beginnings: BTreeMap<Vec<u8>, usize>,
}

impl Contents {
    pub(super) fn new(filled: &FilledSet) -> Self {
        let elements = filled.elements.clone();
        let keys = || elements.iter().enumerate().map(|(at, element)| (element.key.as_bytes().to_vec(), at));
        let interval = filled.set.interval;
        let exact = if interval { HashMap::new() } else { keys().collect() };
        let ordered = interval && !filled.set.is_concatenated();
        let beginnings = if ordered { keys().collect() } else { BTreeMap::new() };
        let count = elements.len();
        let held = Filled { set: filled.set.clone(), elements, exact, beginnings };
        Self { filled: Arc::new(held), changed: BTreeMap::new(), count }
    }

    /// Its declaration.
    pub(super) fn set(&self) -> &Set {
        &self.filled.set
    }

    /// The element that a key belongs to.
    pub(super) fn find(&self, key: &[u8]) -> Option<&Element> {
        if let Some(changed) = self.changed.get(key) {
            return changed.as_ref();
        }
        let filled = &*self.filled;
        if !self.set().interval {
            return filled.exact.get(key).map(|at| &filled.elements[*at]);
        }
        if self.set().is_concatenated() {
            return filled.elements.iter().find(|element| self.each_field_holds(element, key));
        }
        let (_, at) = filled.beginnings.range(..=key.to_vec()).next_back()?;
        let element = &filled.elements[*at];
        (key <= element.last().as_bytes()).then_some(element)
    }

    /// As the kernel's pipapo: field by field, without looking at the others.
    fn each_field_holds(&self, element: &Element, key: &[u8]) -> bool {
        let lengths: Vec<usize> = self.set().key.iter().map(|field| field.length()).collect();
        let key = Data::from_wire(key, lengths.len());
        let ends = element.key.split(&lengths).zip(element.last().split(&lengths));
        ends.zip(key.split(&lengths)).all(|((first, last), field)| first <= field && field <= last)
    }

    /// Adds an element unless its key is there: `false` when the set is full (`nft_dynset_new`).
    pub(super) fn add(&mut self, element: Element) -> bool {
        if self.find(element.key.as_bytes()).is_some() {
            return true;
        }
        if self.set().size.is_some_and(|size| self.count >= size as usize) {
            return false;
        }
        self.count += 1;
        self.changed.insert(element.key.as_bytes().to_vec(), Some(element));
        true
    }

    /// Removes the element with this key.
    pub(super) fn remove(&mut self, key: &[u8]) {
        if self.find(key).is_some() {
            self.count -= 1;
            self.changed.insert(key.to_vec(), None);
        }
    }

    /// All that is in it now.
    pub(super) fn elements(&self) -> Vec<Element> {
        let kept = self.filled.elements.iter();
        let kept = kept.filter(|element| !self.changed.contains_key(element.key.as_bytes()));
        kept.chain(self.changed.values().flatten()).cloned().collect()
    }
}
