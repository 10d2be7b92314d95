//! Expressions back into statements.
//!
//! A rule is run over, with texts in place of values: each register knows what was put there, and what uses a
//! register takes the text. What has no words comes as bytecode in brackets.

use super::{
    field,
    statement::{flags, statement},
    time,
    value::{BOOLEAN, ones_from_left},
};
use crate::{
    Bitwise, Compare, ComparisonOperator, Data, DataType, DynsetOperation, Expression, Family, Fib, FibFlags,
    FibResult, Hash, HashKind, LookupResult, MetaKey, NatFlags, NatKind, Payload, PayloadBase, Register,
    Rule, Selector,
};

/// A rule's statements in one line, without its comment.
pub(crate) fn rule(rule: &Rule) -> String {
    let mut reader = Reader::default();
    for expression in &rule.expressions {
        reader.read(expression);
    }
    reader.statements.join(" ")
}

/// What a register holds.
#[derive(Clone, Debug)]
struct Loaded {
    text: String,
    data_type: Option<DataType>,
    mask: Option<(Data, Data)>,
    words: u8,
    /// A constant, not yet in words: its type shows in its use.
    constant: Option<Data>,
}

#[derive(Default)]
struct Reader {
    registers: [Option<Loaded>; Register::WORDS as usize],
    statements: Vec<String>,
}

impl Reader {
    fn say(&mut self, text: impl Into<String>) {
        self.statements.push(text.into());
    }

    fn put(&mut self, to: Register, text: impl Into<String>, data_type: Option<DataType>, bytes: usize) {
        let words = bytes.div_ceil(4).max(1) as u8;
        let loaded = Loaded { text: text.into(), data_type, mask: None, words, constant: None };
        self.registers[usize::from(to.first_word())] = Some(loaded);
    }

    fn get(&self, register: Register) -> Option<&Loaded> {
        self.registers[usize::from(register.first_word())].as_ref()
    }

    fn text(&self, register: Register) -> String {
        self.get(register).map_or_else(|| register.to_string(), |loaded| loaded.text.clone())
    }

    /// All that lies side by side from `register` on; the registers are free again then.
    fn take_key(&mut self, register: Register) -> String {
        let mut fields = Vec::new();
        let mut word = usize::from(register.first_word());
        while let Some(loaded) = self.registers.get_mut(word).and_then(Option::take) {
            word += usize::from(loaded.words);
            fields.push(loaded.text);
        }
        if fields.is_empty() { register.to_string() } else { fields.join(" . ") }
    }

    fn read(&mut self, expression: &Expression) {
        match expression {
            Expression::Payload(payload) => self.payload(payload, expression),
            Expression::Meta { to, .. } | Expression::Fib(Fib { to, .. }) => self.load(*to, expression),
            Expression::Ct(ct) => self.load(ct.to, expression),
            Expression::Numgen(numgen) => self.load(numgen.to, expression),
            Expression::Hash(hash) => self.hash(hash, expression),
            Expression::Byteorder(_) => {}
            Expression::Bitwise(bitwise) => self.bitwise(bitwise),
            Expression::Compare(compare) => self.compare(compare),
            Expression::Range(range) => {
                let data_type = self.get(range.register).and_then(|loaded| loaded.data_type);
                let text = |data: &Data| field(data_type.unwrap_or(DataType::Other(0, 0)), data.as_bytes());
                let sign = if range.invert { "!= " } else { "" };
                let statement = format!(
                    "{} {sign}{}-{}",
                    self.text(range.register),
                    text(&range.first),
                    text(&range.last)
                );
                self.say(statement);
            }
            Expression::Lookup(lookup) => {
                let key = self.take_key(lookup.key);
                match lookup.result {
                    LookupResult::Found => self.say(format!("{key} @{}", lookup.set)),
                    LookupResult::NotFound => self.say(format!("{key} != @{}", lookup.set)),
                    LookupResult::Verdict => self.say(format!("{key} vmap @{}", lookup.set)),
                    LookupResult::Data(to) => self.put(to, format!("{key} map @{}", lookup.set), None, 4),
                }
            }
            Expression::Immediate { to, data } => {
                self.put(*to, "", None, data.as_bytes().len());
                if let Some(loaded) = &mut self.registers[usize::from(to.first_word())] {
                    loaded.constant = Some(data.clone());
                }
            }
            Expression::MetaSet { key, from } => {
                let text = self.assigned(*from);
                self.say(format!("meta {} set {text}", key.as_str()));
            }
            Expression::CtSet { key, from } => {
                let text = self.assigned(*from);
                self.say(format!("ct {} set {text}", key.as_str()));
            }
            Expression::Nat(nat) => {
                let kind = if nat.kind == NatKind::Source { "snat" } else { "dnat" };
                let family = if nat.family == Family::Ip6 { "ip6" } else { "ip" };
                let address_type =
                    if nat.family == Family::Ip6 { DataType::Ipv6Addr } else { DataType::Ipv4Addr };
                let mapped = nat.address.is_some_and(|r| self.get(r).is_some_and(|l| l.constant.is_none()));
                let pair = if mapped && nat.port.is_some() { " addr . port" } else { "" };
                let mut target = nat.address.map_or_else(String::new, |r| self.as_type(r, address_type));
                if let (Some(port), false) = (nat.port, mapped) {
                    if nat.family == Family::Ip6 && nat.address.is_some() {
                        target = format!("[{target}]");
                    }
                    target += &format!(":{}", self.ports(port, nat.port_last));
                }
                self.say(format!("{kind} {family}{pair} to {target}{}", flags(nat.flags)));
            }
            Expression::Masquerade(masq) => self.rewrite("masquerade", masq.port, masq.port_last, masq.flags),
            Expression::Redirect(one) => self.rewrite("redirect", one.port, one.port_last, one.flags),
            Expression::Dynset(dynset) => {
                let operation = match dynset.operation {
                    DynsetOperation::Add => "add",
                    DynsetOperation::Update => "update",
                    DynsetOperation::Delete => "delete",
                };
                let value = dynset.value.map(|value| self.take_key(value));
                let mut inside = self.take_key(dynset.key);
                if let Some(timeout) = dynset.timeout {
                    inside += &format!(" timeout {}", time(timeout));
                }
                for one in &dynset.expressions {
                    inside += &format!(" {}", statement(one));
                }
                if let Some(value) = value {
                    inside += &format!(" : {value}");
                }
                self.say(format!("{operation} @{} {{ {inside} }}", dynset.set));
            }
            other => self.say(statement(other)),
        }
    }

    fn load(&mut self, to: Register, expression: &Expression) {
        match recognise(expression) {
            Some(selector) => {
                let data_type = selector.data_type();
                self.put(to, selector.to_string(), Some(data_type), data_type.length());
            }
            None => {
                let (text, data_type) = other_load(expression);
                self.put(to, text, data_type, 4);
            }
        }
    }

    /// Fewer bytes of an address than it has are a prefix.
    fn payload(&mut self, payload: &Payload, expression: &Expression) {
        let prefix_of = [
            (Selector::IpSource, 12),
            (Selector::IpDestination, 16),
            (Selector::Ip6Source, 8),
            (Selector::Ip6Destination, 24),
        ];
        let found = recognise(expression).or_else(|| {
            let fits = |(selector, offset): &(Selector, u32)| {
                payload.base == PayloadBase::Network
                    && payload.offset == *offset
                    && (payload.length as usize) < selector.data_type().length()
            };
            // Offsets 12 and 16 of an IPv6 header lie inside its source address: never the start of a prefix.
            prefix_of.iter().find(|candidate| fits(candidate)).map(|(selector, _)| *selector)
        });
        match found {
            Some(selector) => self.put(
                payload.to,
                selector.to_string(),
                Some(selector.data_type()),
                payload.length as usize,
            ),
            None => {
                let base = match payload.base {
                    PayloadBase::Link => "ll",
                    PayloadBase::Network => "nh",
                    PayloadBase::Transport => "th",
                    PayloadBase::Inner => "ih",
                };
                let text = format!("@{base},{},{}", payload.offset * 8, payload.length * 8);
                self.put(payload.to, text, None, payload.length as usize);
            }
        }
    }

    fn hash(&mut self, hash: &Hash, expression: &Expression) {
        match hash.kind {
            HashKind::Symmetric => self.load(hash.to, expression),
            HashKind::Jenkins { from, seed, .. } => {
                let key = self.take_key(from);
                let seed = seed.map_or_else(String::new, |seed| format!(" seed {seed:#x}"));
                self.put(
                    hash.to,
                    format!("jhash {key} mod {}{seed}", hash.modulus),
                    Some(DataType::Integer),
                    4,
                );
            }
        }
    }

    fn bitwise(&mut self, bitwise: &Bitwise) {
        if let Some(loaded) = &mut self.registers[usize::from(bitwise.to.first_word())] {
            loaded.mask = Some((bitwise.mask.clone(), bitwise.xor.clone()));
        }
    }

    /// What is assigned to a mark: a constant, or what was loaded with and and xor.
    fn assigned(&self, from: Register) -> String {
        let Some(loaded) = self.get(from) else { return from.to_string() };
        if let Some(data) = &loaded.constant {
            return field(DataType::Mark, data.as_bytes());
        }
        let Some((mask, xor)) = &loaded.mask else { return loaded.text.clone() };
        let number = |data: &Data| data.as_bytes().try_into().map(u32::from_ne_bytes).unwrap_or_default();
        match (number(mask), number(xor)) {
            (mask, xor) if mask == !xor => format!("{} | {xor:#010x}", loaded.text),
            (u32::MAX, xor) => format!("{} ^ {xor:#010x}", loaded.text),
            (mask, 0) => format!("{} & {mask:#010x}", loaded.text),
            (mask, xor) => format!("{} & {mask:#010x} ^ {xor:#010x}", loaded.text),
        }
    }

    fn compare(&mut self, compare: &Compare) {
        let Some(loaded) = self.get(compare.register) else {
            return self.say(format!("[ {} ]", Expression::Compare(compare.clone())));
        };
        let data_type = loaded.data_type.unwrap_or(DataType::Other(0, 0));
        let (text, sign) = (loaded.text.clone(), compare.operator.sign());
        let value = compare.value.as_bytes();
        let words = |bytes: &[u8]| field(data_type, bytes);
        let statement = match &loaded.mask {
            Some((mask, _)) => {
                let address = matches!(data_type, DataType::Ipv4Addr | DataType::Ipv6Addr);
                let zero = value.iter().all(|byte| *byte == 0);
                match ones_from_left(mask.as_bytes()) {
                    Some(length) if address => format!("{text} {sign}{}/{length}", words(value)),
                    _ if zero && compare.operator == ComparisonOperator::NotEqual => {
                        format!("{text} {}", words(mask.as_bytes()))
                    }
                    _ => {
                        let equal = if sign.is_empty() { "== " } else { sign };
                        format!("{text} & {} {equal}{}", words(mask.as_bytes()), words(value))
                    }
                }
            }
            // A prefix of whole bytes.
            None if matches!(data_type, DataType::Ipv4Addr | DataType::Ipv6Addr)
                && value.len() < data_type.length() =>
            {
                let mut whole = value.to_vec();
                whole.resize(data_type.length(), 0);
                format!("{text} {sign}{}/{}", words(&whole), value.len() * 8)
            }
            None => format!("{text} {sign}{}", words(value)),
        };
        // `>= a` and `<= b` of one value are an interval.
        let lower = format!("{text} {}", ComparisonOperator::GreaterOrEqual.sign());
        if compare.operator == ComparisonOperator::LessOrEqual
            && let Some(first) = self.statements.last().and_then(|last| last.strip_prefix(&lower))
        {
            let joined = format!("{text} {first}-{}", words(value));
            self.statements.pop();
            return self.say(joined);
        }
        self.say(statement);
    }

    fn as_type(&self, register: Register, data_type: DataType) -> String {
        match self.get(register) {
            Some(Loaded { constant: Some(data), .. }) => field(data_type, data.as_bytes()),
            _ => self.text(register),
        }
    }

    fn ports(&self, first: Register, last: Option<Register>) -> String {
        let mut text = self.as_type(first, DataType::InetService);
        if let Some(last) = last {
            text += &format!("-{}", self.as_type(last, DataType::InetService));
        }
        text
    }

    fn rewrite(&mut self, verb: &str, port: Option<Register>, last: Option<Register>, with: NatFlags) {
        let to = port.map_or_else(String::new, |port| {
            let mapped = self.get(port).is_none_or(|loaded| loaded.constant.is_none());
            format!(" to :{}{}", if mapped { " " } else { "" }, self.ports(port, last))
        });
        self.say(format!("{verb}{to}{}", flags(with)));
    }
}

/// The selector that loads exactly so.
fn recognise(expression: &Expression) -> Option<Selector> {
    let to = match expression {
        Expression::Payload(payload) => payload.to,
        Expression::Meta { to, .. } => *to,
        Expression::Ct(ct) => match ct.direction {
            Some(direction) => return Some(Selector::CtTuple(ct.key, direction)),
            None => ct.to,
        },
        Expression::Fib(fib) => fib.to,
        Expression::Numgen(numgen) if numgen.offset == 0 => {
            return Some(match numgen.kind {
                crate::NumgenKind::Incremental => Selector::NumgenIncremental(numgen.modulus),
                crate::NumgenKind::Random => Selector::NumgenRandom(numgen.modulus),
            });
        }
        Expression::Hash(hash) if hash.kind == HashKind::Symmetric && hash.offset == 0 => {
            return Some(Selector::SymmetricHash(hash.modulus));
        }
        _ => return None,
    };
    Selector::PLAIN.into_iter().find(|selector| selector.load(to).first() == Some(expression))
}

/// Loads that have no selector.
fn other_load(expression: &Expression) -> (String, Option<DataType>) {
    match expression {
        Expression::Meta { key, .. } => {
            let data_type = match key {
                MetaKey::InputInterface | MetaKey::OutputInterface => Some(DataType::InterfaceIndex),
                _ => None,
            };
            (format!("meta {}", key.as_str()), data_type)
        }
        Expression::Ct(ct) => (format!("ct {}", ct.key.as_str()), None),
        Expression::Fib(fib) => {
            let names = [
                (FibFlags::SADDR, "saddr"),
                (FibFlags::DADDR, "daddr"),
                (FibFlags::MARK, "mark"),
                (FibFlags::IIF, "iif"),
                (FibFlags::OIF, "oif"),
            ];
            let asked: Vec<_> =
                names.iter().filter(|(flag, _)| fib.flags.contains(*flag)).map(|(_, name)| *name).collect();
            let result = match fib.result {
                FibResult::OutputInterface => "oif",
                FibResult::OutputInterfaceName => "oifname",
                FibResult::AddressType => "type",
            };
            let data_type = fib.flags.contains(FibFlags::PRESENT).then_some(BOOLEAN);
            (format!("fib {} {result}", asked.join(" . ")), data_type)
        }
        Expression::Numgen(numgen) => {
            let kind = if numgen.kind == crate::NumgenKind::Random { "random" } else { "inc" };
            let text = format!("numgen {kind} mod {} offset {}", numgen.modulus, numgen.offset);
            (text, Some(DataType::Integer))
        }
        other => (format!("[ {other} ]"), None),
    }
}
