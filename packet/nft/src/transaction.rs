//! Transactions: changes to one table that become true together or not at all.

use std::fmt;

use crate::{Chain, Element, Error, Rule, Ruleset, Set, Table};

/// What to do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// Make it; fine if the same is there already. A rule goes to its chain's end.
    Add,
    /// Make it; an error if it is there already.
    Create,
    /// Make a rule at its chain's beginning.
    Insert,
    /// Put another rule in the place of the one with its handle.
    Replace,
    /// Remove it; an error if it is not there. Of intervals, name exactly those that are there: the kernel holds one
    /// over one field as two elements, and 10-29 would take the first half of 10-19 and the second of 20-29.
    Delete,
    /// Remove it; fine if it is not there. What it is in (the table, an element's set) must be there.
    Destroy,
    /// Remove what is in it: a table's or chain's rules, a set's elements.
    Flush,
}

impl Verb {
    /// The word, as nft has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Create => "create",
            Self::Insert => "insert",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Destroy => "destroy",
            Self::Flush => "flush",
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Elements of one set. They carry the set's declaration, since it says how they are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elements {
    /// The set as it was declared.
    pub set: Set,
    /// Any number.
    pub elements: Vec<Element>,
}

/// What a verb is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// The transaction's table itself.
    Table,
    /// A chain.
    Chain(Chain),
    /// A rule.
    Rule(Rule),
    /// A set without elements.
    Set(Set),
    /// Elements of a set.
    Elements(Elements),
}

impl From<Chain> for Object {
    fn from(chain: Chain) -> Self {
        Self::Chain(chain)
    }
}

impl From<Rule> for Object {
    fn from(rule: Rule) -> Self {
        Self::Rule(rule)
    }
}

impl From<Set> for Object {
    fn from(set: Set) -> Self {
        Self::Set(set)
    }
}

impl From<Elements> for Object {
    fn from(elements: Elements) -> Self {
        Self::Elements(elements)
    }
}

/// One step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// What to do.
    pub verb: Verb,
    /// With what.
    pub object: Object,
}

/// Steps that become true together, in this order, or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The table all of them are about.
    pub table: Table,
    /// In order.
    pub operations: Vec<Operation>,
}

impl Transaction {
    /// Nothing yet, about this table.
    pub const fn new(table: Table) -> Self {
        Self { table, operations: Vec::new() }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// One more step.
    pub fn push(&mut self, verb: Verb, object: impl Into<Object>) -> &mut Self {
        self.operations.push(Operation { verb, object: object.into() });
        self
    }

    /// [`Verb::Add`] for the table itself.
    pub fn add_table(&mut self) -> &mut Self {
        self.push(Verb::Add, Object::Table)
    }

    /// [`Verb::Delete`] for the table itself, with all that is in it.
    pub fn delete_table(&mut self) -> &mut Self {
        self.push(Verb::Delete, Object::Table)
    }

    /// [`Verb::Destroy`] for the table itself, with all that is in it.
    pub fn destroy_table(&mut self) -> &mut Self {
        self.push(Verb::Destroy, Object::Table)
    }

    /// [`Verb::Add`].
    pub fn add(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Add, object)
    }

    /// [`Verb::Create`].
    pub fn create(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Create, object)
    }

    /// [`Verb::Insert`].
    pub fn insert(&mut self, rule: Rule) -> &mut Self {
        self.push(Verb::Insert, rule)
    }

    /// [`Verb::Replace`]; the rule's handle says which.
    pub fn replace(&mut self, rule: Rule) -> &mut Self {
        self.push(Verb::Replace, rule)
    }

    /// [`Verb::Delete`].
    pub fn delete(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Delete, object)
    }

    /// [`Verb::Destroy`].
    pub fn destroy(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Destroy, object)
    }

    /// [`Verb::Flush`].
    pub fn flush(&mut self, object: impl Into<Object>) -> &mut Self {
        self.push(Verb::Flush, object)
    }

    /// Adds elements; nothing for none.
    pub fn add_elements(&mut self, set: &Set, elements: impl Into<Vec<Element>>) -> &mut Self {
        self.elements(Verb::Add, set, elements)
    }

    /// Creates elements: an error if one is there already; nothing for none.
    pub fn create_elements(&mut self, set: &Set, elements: impl Into<Vec<Element>>) -> &mut Self {
        self.elements(Verb::Create, set, elements)
    }

    /// Deletes elements; nothing for none.
    pub fn delete_elements(&mut self, set: &Set, elements: impl Into<Vec<Element>>) -> &mut Self {
        self.elements(Verb::Delete, set, elements)
    }

    /// Deletes those elements which are there; nothing for none.
    pub fn destroy_elements(&mut self, set: &Set, elements: impl Into<Vec<Element>>) -> &mut Self {
        self.elements(Verb::Destroy, set, elements)
    }

    fn elements(&mut self, verb: Verb, set: &Set, elements: impl Into<Vec<Element>>) -> &mut Self {
        let elements = elements.into();
        if elements.is_empty() {
            return self;
        }
        self.push(verb, Elements { set: set.clone(), elements })
    }
}

/// Something that holds nftables tables: the kernel of a network namespace, or a [`crate::Fake`].
pub trait Nft {
    /// Makes the whole transaction true, or changes nothing and says which step failed.
    fn run(&mut self, transaction: &Transaction) -> Result<(), Error>;

    /// Reads a whole table as it was at one moment; `None` if there is none of that family and name.
    fn dump(&mut self, table: &Table) -> Result<Option<Ruleset>, Error>;

    /// The same without any element: what it costs does not depend on how many there are.
    fn dump_shape(&mut self, table: &Table) -> Result<Option<Ruleset>, Error>;

    /// The elements of one set, with what they have counted; an error (ENOENT) if there is no such set.
    fn elements(&mut self, table: &Table, set: &Set) -> Result<Vec<Element>, Error>;

    /// The same one by one, so that nobody holds all of them. `begin` is called before the first, and again when the
    /// reading began anew because of a change meanwhile. An element may come twice, and another not at all, while the
    /// kernel rehashes the set: whoever sees one twice reads again.
    fn visit_elements(
        &mut self,
        table: &Table,
        set: &Set,
        begin: &mut dyn FnMut(),
        each: &mut dyn FnMut(Element),
    ) -> Result<(), Error> {
        begin();
        self.elements(table, set)?.into_iter().for_each(each);
        Ok(())
    }

    /// The tables there are, of all families, ours and others'.
    fn tables(&mut self) -> Result<Vec<Table>, Error>;

    /// A number that changes with every transaction of anybody that changed something.
    fn generation(&mut self) -> Result<u32, Error>;
}
