//! From the kernel's bytes to the types of this crate: the way of [`crate::encode`] backwards, for dumps.
//!
//! What this crate has no type for does not fail a dump, since other tables may hold anything: expressions become
//! [`crate::Unknown`], types [`crate::DataType::Other`].

mod element;
mod expression;
mod object;
pub(crate) mod userdata;

pub(crate) use element::{Raw, assemble, element};
pub(crate) use object::{chain, family, rule, set, table};

use portolan_netlink::attribute::{Attribute, Attributes};

use crate::{Data, Error, Register, Verdict, wire::attribute as a};

/// Reads attributes of one object, and says what is missing or wrong.
#[derive(Clone)]
struct Reader<'a> {
    what: &'static str,
    attributes: Attributes<'a>,
}

impl<'a> Reader<'a> {
    fn new(what: &'static str, attributes: Attributes<'a>) -> Self {
        Self { what, attributes }
    }

    fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes.find(kind)
    }

    fn need<T>(&self, kind: u16, read: impl FnOnce(Attribute<'a>) -> Option<T>) -> Result<T, Error> {
        self.find(kind).and_then(read).ok_or_else(|| Error::Malformed {
            what: self.what,
            why: format!("attribute {kind} is missing or of another form"),
        })
    }

    fn string(&self, kind: u16) -> Result<String, Error> {
        self.need(kind, |attribute| attribute.str().map(str::to_owned))
    }

    fn be32(&self, kind: u16) -> Result<u32, Error> {
        self.need(kind, |attribute| attribute.be32())
    }

    fn be32_or_0(&self, kind: u16) -> u32 {
        self.find(kind).and_then(|attribute| attribute.be32()).unwrap_or(0)
    }

    fn be64(&self, kind: u16) -> Result<u64, Error> {
        self.need(kind, |attribute| attribute.be64())
    }

    fn register(&self, kind: u16) -> Result<Register, Error> {
        self.need(kind, |attribute| attribute.be32().and_then(Register::from_number))
    }

    fn optional_register(&self, kind: u16) -> Result<Option<Register>, Error> {
        self.find(kind).map(|_| self.register(kind)).transpose()
    }

    /// The bytes of a `NFTA_DATA_VALUE`, as one field.
    fn value(&self, kind: u16) -> Result<Data, Error> {
        self.need(kind, |attribute| value(attribute, 1))
    }
}

fn value(attribute: Attribute<'_>, fields: usize) -> Option<Data> {
    Some(Data::from_wire(attribute.nested().find(a::data::VALUE)?.payload, fields))
}

fn verdict(attribute: Attribute<'_>) -> Option<Verdict> {
    let verdict = attribute.nested().find(a::data::VERDICT)?;
    let code = verdict.nested().find(a::verdict::CODE)?.be32()?;
    let chain = verdict.nested().find(a::verdict::CHAIN).and_then(|chain| chain.str().map(str::to_owned));
    Verdict::from_code(code as i32, chain)
}
