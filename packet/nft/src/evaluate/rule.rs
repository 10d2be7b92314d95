//! One rule: its expressions in order, until one says that the rule does not match or gives a verdict.

use std::sync::Arc;

use super::{Choose, EvaluateError, Place, What, hash, registers::Registers, walk::Walk};
use crate::{
    Bitwise, Byteorder, Compare, ComparisonOperator, Data, Dynset, DynsetOperation, Element, ElementValue,
    Expression, Hash, HashKind, Lookup, LookupResult, Numgen, Range, Register, Reject, Verdict, encode,
};

/// How a rule ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It does not match.
    Next,
    /// It matched, and said no verdict.
    Matched,
    /// With a verdict.
    Verdict(Verdict),
    /// The packet is refused.
    Rejected(Reject),
}

/// A rule while it runs.
pub(super) struct Run<'a, 'w> {
    pub(super) walk: &'a mut Walk<'w>,
    pub(super) registers: Registers,
    /// Which of the machine's tables.
    pub(super) table: usize,
    pub(super) place: &'a Place,
}

impl Run<'_, '_> {
    pub(super) fn rule(
        &mut self,
        expressions: &[Expression],
        chooser: &mut dyn Choose,
    ) -> Result<End, EvaluateError> {
        for expression in expressions {
            match self.expression(expression, chooser)? {
                Some(End::Next) => return Ok(End::Next),
                Some(end) => return Ok(end),
                None => {}
            }
        }
        Ok(End::Matched)
    }

    /// `None`: on with the next expression; `Some(End::Next)`: the rule does not match.
    fn expression(
        &mut self,
        expression: &Expression,
        chooser: &mut dyn Choose,
    ) -> Result<Option<End>, EvaluateError> {
        let goes_on = match expression {
            Expression::Payload(one) => self.payload(one)?,
            Expression::Meta { key, to } => self.meta(*key, *to)?,
            Expression::MetaSet { key, from } => self.set_meta(*key, *from)?,
            Expression::Ct(one) => self.ct(one)?,
            Expression::CtSet { key, from } => self.set_ct(*key, *from)?,
            Expression::Fib(one) => self.fib(one)?,
            Expression::Compare(one) => self.compare(one)?,
            Expression::Range(one) => self.range(one)?,
            Expression::Bitwise(one) => self.bitwise(one)?,
            Expression::Byteorder(one) => self.byteorder(one)?,
            Expression::Numgen(one) => self.numgen(one, chooser)?,
            Expression::Hash(one) => self.hash(one, chooser)?,
            Expression::Lookup(one) => return self.lookup(one),
            Expression::Dynset(one) => self.dynset(one)?,
            Expression::Immediate { to, data } => {
                self.registers.store(*to, data.as_bytes());
                true
            }
            Expression::Verdict(Verdict::Continue) => true,
            Expression::Verdict(verdict) => return Ok(Some(End::Verdict(verdict.clone()))),
            Expression::Nat(one) => return self.nat(one),
            Expression::Masquerade(one) => return self.masquerade(one),
            Expression::Redirect(one) => return self.redirect(one),
            Expression::Counter(_) => self.step(What::Counted),
            Expression::Log(one) => self.step(What::Logged(one.prefix.clone())),
            Expression::Reject(one) => return self.reject(*one),
            Expression::Notrack => {
                self.walk.connection.untrack();
                self.step(What::NotTracked)
            }
            // They depend on time and on what came before.
            Expression::Limit(_)
            | Expression::Quota(_)
            | Expression::ConnectionLimit(_)
            | Expression::Unknown(_) => {
                return Err(self.unsupported(encode::expression_name(expression)));
            }
        };
        Ok(if goes_on { None } else { Some(End::Next) })
    }

    /// Writes down what happened; the rule goes on.
    pub(super) fn step(&mut self, what: What) -> bool {
        self.walk.step(Some(self.place), what);
        true
    }

    pub(super) fn unsupported(&self, what: impl Into<String>) -> EvaluateError {
        EvaluateError::Unsupported { place: self.place.clone(), what: what.into() }
    }

    pub(super) fn misplaced(&self, what: impl Into<String>) -> EvaluateError {
        EvaluateError::Misplaced { place: self.place.clone(), what: what.into() }
    }

    pub(super) fn load(&self, from: Register, length: usize, who: &str) -> Result<Vec<u8>, EvaluateError> {
        let unset = || EvaluateError::Unset { place: self.place.clone(), expression: who.to_owned() };
        self.registers.load(from, length).map(<[u8]>::to_vec).ok_or_else(unset)
    }

    /// `nft_cmp_eval`: the first differing byte decides.
    fn compare(&self, one: &Compare) -> Result<bool, EvaluateError> {
        let expected = one.value.as_bytes();
        let is = self.load(one.register, expected.len(), "cmp")?;
        let ordering = is.as_slice().cmp(expected);
        Ok(match one.operator {
            ComparisonOperator::Equal => ordering.is_eq(),
            ComparisonOperator::NotEqual => ordering.is_ne(),
            ComparisonOperator::Less => ordering.is_lt(),
            ComparisonOperator::LessOrEqual => ordering.is_le(),
            ComparisonOperator::Greater => ordering.is_gt(),
            ComparisonOperator::GreaterOrEqual => ordering.is_ge(),
        })
    }

    fn range(&self, one: &Range) -> Result<bool, EvaluateError> {
        let (first, last) = (one.first.as_bytes(), one.last.as_bytes());
        let is = self.load(one.register, first.len(), "range")?;
        Ok((first <= is.as_slice() && is.as_slice() <= last) != one.invert)
    }

    fn bitwise(&mut self, one: &Bitwise) -> Result<bool, EvaluateError> {
        let (mask, xor) = (one.mask.as_bytes(), one.xor.as_bytes());
        let mut value = self.load(one.from, mask.len(), "bitwise")?;
        for (byte, (mask, xor)) in value.iter_mut().zip(mask.iter().zip(xor)) {
            *byte = *byte & mask ^ xor;
        }
        self.registers.store(one.to, &value);
        Ok(true)
    }

    fn byteorder(&mut self, one: &Byteorder) -> Result<bool, EvaluateError> {
        let mut value = self.load(one.from, one.length as usize, "byteorder")?;
        if cfg!(target_endian = "little") {
            value.chunks_mut(one.size as usize).for_each(<[u8]>::reverse);
        }
        self.registers.store(one.to, &value);
        Ok(true)
    }

    fn numgen(&mut self, one: &Numgen, chooser: &mut dyn Choose) -> Result<bool, EvaluateError> {
        self.chosen(one.modulus, one.offset, one.to, chooser)
    }

    /// A number that only the kernel knows.
    fn chosen(
        &mut self,
        modulus: u32,
        offset: u32,
        to: Register,
        chooser: &mut dyn Choose,
    ) -> Result<bool, EvaluateError> {
        if modulus == 0 {
            return Err(self.misplaced("a modulus of 0, which the kernel refuses"));
        }
        let number = chooser.choose(modulus) % modulus;
        self.registers.store(to, &number.wrapping_add(offset).to_ne_bytes());
        Ok(self.step(What::Chose { number, modulus }))
    }

    fn hash(&mut self, one: &Hash, chooser: &mut dyn Choose) -> Result<bool, EvaluateError> {
        let HashKind::Jenkins { from, length, seed: Some(seed) } = one.kind else {
            return self.chosen(one.modulus, one.offset, one.to, chooser);
        };
        let key = self.load(from, length as usize, "hash")?;
        let number = hash::scale(hash::jhash(&key, seed), one.modulus);
        self.registers.store(one.to, &number.wrapping_add(one.offset).to_ne_bytes());
        Ok(self.step(What::Hashed { number, modulus: one.modulus }))
    }

    fn lookup(&mut self, one: &Lookup) -> Result<Option<End>, EvaluateError> {
        let set = self.contents(&one.set)?.set();
        let (length, fields) = (set.key_length(), set.key.len());
        let key = self.load(one.key, length, "lookup")?;
        let found = self.contents(&one.set)?.find(&key).cloned();
        let key = Data::from_wire(&key, fields);
        self.step(What::Looked { set: one.set.clone(), key, found: found.clone() });
        let value = found.as_ref().map(|element| element.value.as_ref());
        Ok(match (one.result, value) {
            (LookupResult::Found, Some(_)) | (LookupResult::NotFound, None) => None,
            (LookupResult::Data(to), Some(Some(ElementValue::Data(data)))) => {
                self.registers.store(to, data.as_bytes());
                None
            }
            (LookupResult::Verdict, Some(Some(ElementValue::Verdict(Verdict::Continue)))) => None,
            (LookupResult::Verdict, Some(Some(ElementValue::Verdict(verdict)))) => {
                Some(End::Verdict(verdict.clone()))
            }
            (LookupResult::Data(_) | LookupResult::Verdict, Some(_)) => {
                return Err(self.misplaced(format!("{} is not a map of the kind that is asked for", one.set)));
            }
            _ => Some(End::Next),
        })
    }

    /// `nft_dynset_eval`: an element that is there keeps its value, and a full set ends the rule.
    fn dynset(&mut self, one: &Dynset) -> Result<bool, EvaluateError> {
        if let Some(inner) = one.expressions.iter().find(|inner| !matches!(inner, Expression::Counter(_))) {
            return Err(self.unsupported(format!("{} for each element", encode::expression_name(inner))));
        }
        let set = self.contents(&one.set)?.set();
        let (key_length, fields) = (set.key_length(), set.key.len());
        let (value_length, values) = match &set.value {
            crate::SetValue::Data(types) => (set.value_length(), types.len()),
            crate::SetValue::None => (0, 0),
            crate::SetValue::Verdict => return Err(self.misplaced("a rule cannot add to a verdict map")),
        };
        let key = self.load(one.key, key_length, "dynset")?;
        if one.operation == DynsetOperation::Delete {
            self.contents_mut(&one.set)?.remove(&key);
            return Ok(self.step(What::Removed { set: one.set.clone(), key: Data::from_wire(&key, fields) }));
        }
        let mut element = Element::new(Data::from_wire(&key, fields));
        element.timeout = one.timeout;
        if let Some(from) = one.value {
            let value = self.load(from, value_length, "dynset")?;
            element = element.value(Data::from_wire(&value, values));
        }
        let fits = self.contents_mut(&one.set)?.add(element.clone());
        let set = one.set.clone();
        self.step(if fits { What::Added { set, element } } else { What::Full { set } });
        Ok(fits)
    }

    fn contents(&self, name: &str) -> Result<&super::sets::Contents, EvaluateError> {
        self.walk.sets[self.table].get(name).ok_or_else(|| self.missing(name))
    }

    fn contents_mut(&mut self, name: &str) -> Result<&mut super::sets::Contents, EvaluateError> {
        let missing = self.missing(name);
        Arc::make_mut(&mut self.walk.sets[self.table]).get_mut(name).ok_or(missing)
    }

    fn missing(&self, name: &str) -> EvaluateError {
        EvaluateError::Missing { place: self.place.clone(), what: "set", name: name.to_owned() }
    }
}
