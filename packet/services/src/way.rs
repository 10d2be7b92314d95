//! The chains that choose an endpoint: one for each way of choosing that some Service needs, never one for a Service.
//!
//! `numgen` has its modulus in the rule, so Services with three endpoints share a chain and those with four another.
//! Everything else about a Service is in maps, and a chain finds it by the identity, which it has in registers:
//!
//! | words | IPv4 | IPv6 |
//! |---|---|---|
//! | client, with affinity only | 0 | 0-3 |
//! | identity | 1-3 | 4-9 |
//! | number, and then the endpoint | 4-5 | 10-14 |
//!
//! So client and identity are the key of `affinity`, identity and number the key of `backends`, identity and endpoint
//! the key of `members`, and no value is ever moved. Registers do not last from rule to rule, so each begins anew.
//!
//! A frontend's element names its way in 15 letters at most, and a small verdict map leads from the name to the chain.

use std::{fmt, time::Duration};

use ipnet::IpNet;
use portolan_model::AffinityScope;
use portolan_nft::{
    Chain, Data, Dynset, DynsetOperation, Element, Expression, FilledChain, Hash, HashKind, Lookup,
    LookupResult, Nat, NatFlags, NatKind, Register, Rule, Selector, Verdict, load, matches, statement,
};
use portolan_plan::Version;

use crate::{
    List, LocalDetector, ServicesConfig, SetId, SetKind, Space,
    arrange::mix,
    sets::{asked, suffix},
};

/// Bytes of a label: those of an interface's name without the zero.
const LABEL: usize = 15;
/// So that a client's place in Maglev's table is the same on all nodes and after a restart.
const SEED: u32 = 0x706f_7274;

/// How one of a list's slots is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Choice {
    /// How many slots the list has.
    pub slots: u32,
    /// By a hash of the client's address instead of at random.
    pub hashed: bool,
}

/// For how long a client stays with an endpoint, and with what of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sticky {
    /// One port or the whole Service.
    pub scope: AffinityScope,
    /// Since its last new connection.
    pub seconds: u32,
}

/// Through which frontend a packet came, and what its policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entrance {
    /// A cluster address.
    Cluster(List, Choice),
    /// An external address or node port, to all endpoints.
    External(Choice),
    /// The same, to endpoints of this node only; Pods of this node and the node itself get all of them.
    Local {
        /// For these.
        inside: Choice,
        /// For all others; `None`: this node has no endpoint, their packets are refused later.
        local: Option<Choice>,
    },
    /// Where [`Entrance::Local`] sends Pods of this node and the node itself.
    Inside(Choice),
}

/// A way of choosing: a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Way {
    /// The version of IP.
    pub version: Version,
    /// The kind of frontend.
    pub space: Space,
    /// Where packets come from, and the choices.
    pub entrance: Entrance,
    /// Affinity.
    pub sticky: Option<Sticky>,
}

impl Way {
    /// The chain that this one sends packets to.
    pub(crate) fn inner(self) -> Option<Self> {
        match self.entrance {
            Entrance::Local { inside, .. } => Some(Self { entrance: Entrance::Inside(inside), ..self }),
            _ => None,
        }
    }

    /// What it is called in maps of its space: at most 15 bytes, as an interface's name, which is how `nft` shows it.
    ///
    /// `all`: of a cluster address to all endpoints; `here`: to those of this node; `out`: of other addresses to all;
    /// `keep`: to those of this node, with the client's address kept. Then the number of endpoints (`h`: slots of a hash),
    /// after `keep` that of this node and that of all. After `~` the seconds of affinity, `s` for a whole Service's.
    pub fn label(&self) -> String {
        let text = self.text();
        if text.len() <= LABEL {
            return text;
        }
        let hash = text.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        format!("~{:014x}", hash >> 8)
    }

    fn text(&self) -> String {
        let choice = |choice: Choice| format!("{}{}", if choice.hashed { "h" } else { "" }, choice.slots);
        let entrance = match self.entrance {
            Entrance::Cluster(List::Cluster, of) => format!("all-{}", choice(of)),
            Entrance::Cluster(List::Local, of) => format!("here-{}", choice(of)),
            Entrance::External(of) => format!("out-{}", choice(of)),
            Entrance::Inside(of) => format!("inside-{}", choice(of)),
            Entrance::Local { inside, local } => {
                format!("keep-{}-{}", local.map_or("0".to_owned(), choice), choice(inside))
            }
        };
        let sticky = self.sticky.map_or(String::new(), |sticky| match sticky.scope {
            AffinityScope::Port => format!("~{}", sticky.seconds),
            AffinityScope::Service => format!("~s{}", sticky.seconds),
        });
        format!("{entrance}{sticky}")
    }

    /// The chain's name.
    pub fn name(&self) -> String {
        let space = match self.space {
            Space::Port => "port",
            Space::Node => "node",
            Space::Span => "span",
            Space::Address => "address",
        };
        // nft reads no tilde in a chain's name.
        format!("{space}{}-{}", suffix(self.version), self.text().replace('~', "-for-"))
    }

    /// The element that leads to the chain; none where another chain leads to it.
    pub(crate) fn element(&self) -> Option<(SetId, Element)> {
        let inside = matches!(self.entrance, Entrance::Inside(_));
        let element =
            || Element::new(Data::new().interface(&self.label())).verdict(Verdict::goto(self.name()));
        (!inside).then(|| (SetId::new(SetKind::Ways(self.space), self.version), element()))
    }

    /// The chain with its rules.
    pub(crate) fn chain(&self, config: &ServicesConfig) -> FilledChain {
        let mut rules = Vec::new();
        let rule = || Rule::new(self.name());
        let mark = config.masquerade_mark;
        match self.entrance {
            Entrance::Cluster(list, choice) => {
                if config.masquerade_all {
                    rules.push(rule().then(statement::mark_or(mark)));
                } else if let Some(elsewhere) = from_elsewhere(config, self.version) {
                    rules.push(rule().then(elsewhere).then(statement::mark_or(mark)));
                }
                rules.extend(self.choose(config, list, choice));
            }
            Entrance::External(choice) => {
                // Any endpoint may be on another node, whose answer has to come back through this one.
                rules.push(rule().then(statement::mark_or(mark)));
                rules.extend(self.choose(config, List::Cluster, choice));
            }
            Entrance::Inside(choice) => rules.extend(self.choose(config, List::Cluster, choice)),
            Entrance::Local { local, .. } => {
                let inside = self.inner().map(|inner| inner.name()).unwrap_or_default();
                for pod in from_pods(config, self.version) {
                    rules.push(rule().then(pod).goto(&inside));
                }
                // The load balancer's address may be the node's own, and then the source too.
                rules.push(
                    rule().then(matches::source_is_local()).then(statement::mark_or(mark)).goto(&inside),
                );
                if let Some(choice) = local {
                    rules.extend(self.choose(config, List::Local, choice));
                }
            }
        }
        FilledChain { chain: Chain::regular(self.name()), rules }
    }

    /// The rules that rewrite.
    fn choose(&self, config: &ServicesConfig, list: List, choice: Choice) -> Vec<Rule> {
        let places = Places::new(self);
        let rule = |expressions: Vec<Expression>| {
            Rule::new(self.name()).then(self.version.guard()).then(expressions)
        };
        let choice = self.chosen(config, &places, list, choice);
        let Some(sticky) = self.sticky else {
            return vec![rule([self.identity(&places), choice, self.rewrite(&places)].concat())];
        };
        let begin = [self.version.source().load(Register::R1), self.identity(&places)].concat();
        let sticky = self.sticky_map(sticky);
        let remember = |operation, timeout| {
            Expression::Dynset(Dynset {
                operation,
                set: self.set(sticky.map),
                key: Register::R1,
                value: Some(places.endpoint),
                timeout,
                expressions: Vec::new(),
            })
        };
        let update = || remember(DynsetOperation::Update, Some(sticky.timeout));
        let remembered = || self.lookup(sticky.map, Register::R1, places.endpoint);
        let still = match sticky.check {
            Check::Member(kind) => self.found(kind(list), places.identity),
            // The port goes behind the address, which is part of the key.
            Check::Target => self.lookup(SetKind::Targets(list), places.identity, places.port),
        };
        let mut back = begin.clone();
        back.extend([remembered(), still]);
        if config.is_counting() && !matches!(sticky.check, Check::Member(_)) {
            back.push(self.found(self.members(list), places.identity));
        }
        back.push(update());
        back.extend(self.rewrite(&places));
        // An update keeps the value, so what leads nowhere has to go first.
        let mut forget = begin.clone();
        forget.extend([remembered(), remember(DynsetOperation::Delete, None)]);
        let anew = [begin.clone(), choice.clone(), vec![update()], self.rewrite(&places)].concat();
        // With no room for more clients an update ends its rule.
        let forgotten = [begin, choice, self.rewrite(&places)].concat();
        vec![rule(back), rule(forget), rule(anew), rule(forgotten)]
    }

    /// Loads the identity: the packet's own destination, or whom the frontend belongs to.
    fn identity(&self, places: &Places) -> Vec<Expression> {
        if matches!(self.entrance, Entrance::Cluster(..)) {
            let selectors = if self.space.keeps_port() {
                vec![self.version.destination()]
            } else {
                asked(Space::Port, self.version)
            };
            return load(&selectors, places.identity);
        }
        let mut expressions = load(&asked(self.space, self.version), places.identity);
        expressions.push(self.lookup(SetKind::Identities(self.space), places.identity, places.identity));
        expressions
    }

    /// A number, the endpoint with that number, and, where it is counted, who was chosen.
    fn chosen(
        &self,
        config: &ServicesConfig,
        places: &Places,
        list: List,
        choice: Choice,
    ) -> Vec<Expression> {
        let backends =
            if self.space.keeps_port() { SetKind::AddressBackends(list) } else { SetKind::Backends(list) };
        let mut expressions = load_number(choice, self.version, places.endpoint);
        expressions.push(self.lookup(backends, places.identity, places.endpoint));
        if config.is_counting() {
            expressions.push(self.found(self.members(list), places.identity));
        }
        expressions
    }

    fn members(&self, list: List) -> SetKind {
        if self.space.keeps_port() { SetKind::AddressMembers(list) } else { SetKind::Members(list) }
    }

    fn rewrite(&self, places: &Places) -> Vec<Expression> {
        vec![Expression::Nat(Nat {
            kind: NatKind::Destination,
            family: self.version.family(),
            address: Some(places.endpoint),
            address_last: None,
            port: (!self.space.keeps_port()).then_some(places.port),
            port_last: None,
            flags: NatFlags::NONE,
        })]
    }

    fn sticky_map(&self, sticky: Sticky) -> StickyMap {
        let timeout = Duration::from_secs(sticky.seconds.into());
        match sticky.scope {
            // A range or a whole address has no port of its own: its clients keep the address.
            _ if self.space.keeps_port() => StickyMap {
                map: SetKind::ServiceAffinity,
                check: Check::Member(SetKind::AddressMembers),
                timeout,
            },
            AffinityScope::Port => {
                StickyMap { map: SetKind::Affinity, check: Check::Member(SetKind::Members), timeout }
            }
            AffinityScope::Service => {
                StickyMap { map: SetKind::ServiceAffinity, check: Check::Target, timeout }
            }
        }
    }

    fn set(&self, kind: SetKind) -> String {
        SetId::new(kind, self.version).name()
    }

    fn lookup(&self, kind: SetKind, key: Register, to: Register) -> Expression {
        Expression::Lookup(Lookup { set: self.set(kind), key, result: LookupResult::Data(to) })
    }

    fn found(&self, kind: SetKind, key: Register) -> Expression {
        Expression::Lookup(Lookup { set: self.set(kind), key, result: LookupResult::Found })
    }
}

/// Loads a number. A hash is made of the client's address in the number's own place: the kernel reads all of it before
/// it writes.
fn load_number(choice: Choice, version: Version, to: Register) -> Vec<Expression> {
    if !choice.hashed {
        return Selector::NumgenRandom(choice.slots).load(to);
    }
    let kind = HashKind::Jenkins { from: to, length: version.bytes() as u32, seed: Some(SEED) };
    let mut expressions = version.source().load(to);
    expressions.push(Expression::Hash(Hash { kind, modulus: choice.slots, offset: 0, to }));
    expressions
}

struct StickyMap {
    map: SetKind,
    check: Check,
    timeout: Duration,
}

enum Check {
    Member(fn(List) -> SetKind),
    Target,
}

/// Where everything is, see the table above.
struct Places {
    identity: Register,
    endpoint: Register,
    port: Register,
}

impl Places {
    fn new(way: &Way) -> Self {
        let address = way.version.bytes();
        let identity = if way.sticky.is_some() { Register::R1.after(address) } else { Register::R1 };
        let endpoint = identity.after(if way.space.keeps_port() { address } else { address + 8 });
        Self { identity, endpoint, port: endpoint.after(address) }
    }
}

/// Each matches some of the packets of Pods of this node, together all. Empty without a detector.
fn from_pods(config: &ServicesConfig, version: Version) -> Vec<Vec<Expression>> {
    match &config.detector {
        LocalDetector::None => Vec::new(),
        LocalDetector::Networks(_) => {
            let networks = config.local_networks(version).unwrap_or_default();
            networks.into_iter().map(matches::source_in).collect()
        }
        LocalDetector::Interface(name) => vec![matches::input_interface(name)],
        LocalDetector::InterfacePrefix(prefix) => vec![matches::input_interface(&format!("{prefix}*"))],
    }
}

/// Matches all other packets. `None` without a detector.
fn from_elsewhere(config: &ServicesConfig, version: Version) -> Option<Vec<Expression>> {
    match &config.detector {
        LocalDetector::None => None,
        LocalDetector::Networks(_) => {
            let networks = config.local_networks(version)?;
            Some(networks.into_iter().flat_map(|network: IpNet| matches::source_not_in(network)).collect())
        }
        LocalDetector::Interface(name) => Some(matches::input_interface_is_not(name)),
        LocalDetector::InterfacePrefix(prefix) => {
            Some(matches::input_interface_is_not(&format!("{prefix}*")))
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
