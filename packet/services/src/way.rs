//! The chains that choose an endpoint: one for each way of choosing that some Service needs, never one for a Service.
//!
//! `numgen` has its modulus in the rule, so Services with three endpoints share a chain and those with four another.
//! Everything else about a Service is in maps, and a chain finds it by the identity, which it has in registers:
//!
//! | words of | IPv4 | IPv6 |
//! |---|---|---|
//! | what a value begins with | 0 | 0 |
//! | endpoint: address, port | 1, 2 | 1-4, 5 |
//! | number | 2 | 5 |
//! | identity: protocol, port, cluster address | 3, 4, 5 | 6, 7, 8-11 |
//! | client | 6 | 12-15 |
//!
//! So number and identity are the key of `backends`, identity and client the key of `affinity`, endpoint and identity the
//! key of `members`, cluster address and client that of affinity to a whole Service; no value is ever moved. Registers do
//! not last from rule to rule, so each begins anew.
//!
//! `nft` 1.0.6 stops with an assertion when it lists a rule in which a key begins where another lookup wrote its value,
//! and `nft list ruleset` with it. It does not notice keys that begin behind that place. Therefore values that are part of
//! a key begin with a word that is not (`ipv4`, `ipv6`), and registers that are written by lookups only are loaded with
//! something of the same length before. What `nft` prints is this something, so such rules have a comment.
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
    /// Whether it is noted who was chosen: with affinity, or counted.
    pub noted: bool,
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
        let identity = self.identity(&places);
        if !self.noted {
            let number = places.load_number(choice, self.version, places.client);
            let found = self.lookup(self.backends(list), places.number, places.value);
            let rewrite = self.rewrite(places.value, places.value.after(self.version.bytes()));
            return vec![rule([identity, number, vec![found], rewrite].concat())];
        }
        let chosen = [identity.clone(), self.chosen(config, &places, list, choice)].concat();
        let rewrite = self.rewrite(places.address, places.port);
        let Some(sticky) = self.sticky else {
            let through = format!("an endpoint of @{}", self.set(self.backends(list)));
            return vec![rule([chosen, rewrite].concat()).comment(through)];
        };
        let sticky = self.affinity(sticky);
        let client = self.version.source().load(places.client);
        // The value's first word is always the same, but nft has to see it loaded.
        let remember = |operation, timeout, value: Register| {
            let mut expressions = Selector::NfProto.load(value);
            expressions.push(Expression::Dynset(Dynset {
                operation,
                set: self.set(sticky.map),
                key: sticky.key(&places),
                value: Some(value),
                timeout,
                expressions: Vec::new(),
            }));
            expressions
        };
        let update = |value| remember(DynsetOperation::Update, Some(sticky.timeout), value);
        // For a whole Service an address is remembered, and put beside the identity.
        let value = if sticky.to_address { Register::word(1) } else { places.value };
        let address = value.after(4);
        let mut begin = [identity, client.clone()].concat();
        begin.extend(self.version.destination().load(address));
        if !sticky.to_address && !self.space.keeps_port() {
            begin.extend(Selector::DestinationPort.load(places.port));
        }
        begin.push(self.lookup(sticky.map, sticky.key(&places), value));
        let back = if sticky.to_address {
            let port = self.lookup(SetKind::Targets(list), address, places.value);
            [vec![port], update(value), self.rewrite(address, places.value)].concat()
        } else {
            let still = self.found(self.members(list), places.address);
            [vec![still], update(value), rewrite.clone()].concat()
        };
        let back = [begin.clone(), back].concat();
        // An update keeps the value, so what leads nowhere has to go first.
        let forget = [begin, remember(DynsetOperation::Delete, None, value)].concat();
        let anew = [chosen.clone(), client, update(places.value), rewrite.clone()].concat();
        // With no room for more clients an update ends its rule.
        let unnoted = [chosen, rewrite].concat();
        vec![
            rule(back).comment("back to the endpoint of last time"),
            rule(forget).comment("which is not there any more"),
            rule(anew).comment("another endpoint, to come back to"),
            rule(unnoted).comment("there is no room to remember it"),
        ]
    }

    /// Loads the identity: the packet's own destination, or whom the frontend belongs to.
    fn identity(&self, places: &Places) -> Vec<Expression> {
        let whose = |asked_at| self.lookup(SetKind::Identities(self.space), asked_at, places.number);
        let cluster = matches!(self.entrance, Entrance::Cluster(..));
        let mut expressions = match self.space {
            Space::Span | Space::Address => self.version.destination().load(places.identity),
            // A node port's key is the beginning of this.
            Space::Port | Space::Node => load(&asked(Space::Port, self.version), places.identity),
        };
        match self.space {
            _ if cluster => {}
            // What is asked for is longer than what is found: it goes where nothing is yet.
            Space::Span => {
                expressions.extend(load(&asked(Space::Span, self.version), places.client));
                expressions.push(whose(places.client));
            }
            _ => expressions.push(whose(places.identity)),
        }
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
        let mut expressions = self.version.destination().load(places.address);
        expressions.extend(places.load_number(choice, self.version, places.address));
        expressions.push(self.lookup(self.backends(list), places.number, places.value));
        if config.is_counting() {
            expressions.push(self.found(self.members(list), places.address));
        }
        expressions
    }

    fn backends(&self, list: List) -> SetKind {
        match (self.noted, self.space.keeps_port()) {
            (false, false) => SetKind::Backends(list),
            (false, true) => SetKind::AddressBackends(list),
            (true, false) => SetKind::NotedBackends(list),
            (true, true) => SetKind::NotedAddressBackends(list),
        }
    }

    fn members(&self, list: List) -> SetKind {
        if self.space.keeps_port() { SetKind::AddressMembers(list) } else { SetKind::Members(list) }
    }

    fn rewrite(&self, address: Register, port: Register) -> Vec<Expression> {
        vec![Expression::Nat(Nat {
            kind: NatKind::Destination,
            family: self.version.family(),
            address: Some(address),
            address_last: None,
            port: (!self.space.keeps_port()).then_some(port),
            port_last: None,
            flags: NatFlags::NONE,
        })]
    }

    fn affinity(&self, sticky: Sticky) -> Affinity {
        let timeout = Duration::from_secs(sticky.seconds.into());
        // A range or a whole address has no port of its own: its clients keep the address.
        let wide = self.space.keeps_port();
        let to_address = !wide && sticky.scope == AffinityScope::Service;
        let map = if wide || to_address { SetKind::ServiceAffinity } else { SetKind::Affinity };
        Affinity { map, to_address, timeout }
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

/// Where a client's endpoint is remembered.
struct Affinity {
    map: SetKind,
    /// The address alone, for all ports of the Service.
    to_address: bool,
    timeout: Duration,
}

impl Affinity {
    const fn key(&self, places: &Places) -> Register {
        if matches!(self.map, SetKind::Affinity) { places.identity } else { places.cluster }
    }
}

/// Where everything is, see the table above.
struct Places {
    value: Register,
    address: Register,
    port: Register,
    number: Register,
    identity: Register,
    cluster: Register,
    client: Register,
}

impl Places {
    /// Where nothing is noted, the endpoint takes the place of the key. Where ports are kept, there is none.
    fn new(way: &Way) -> Self {
        let bytes = way.version.bytes();
        let value = Register::R1;
        let address = value.after(4);
        let port = address.after(bytes);
        let identity = match (way.noted, way.space.keeps_port()) {
            (false, _) => address,
            (true, false) => port.after(4),
            (true, true) => port,
        };
        let number = Register::word(identity.first_word() - 1);
        let cluster = if way.space.keeps_port() { identity } else { identity.after(8) };
        Self { value, address, port, number, identity, cluster, client: cluster.after(bytes) }
    }

    /// Loads a number. `free`: where the client's address may be put to be hashed.
    fn load_number(&self, choice: Choice, version: Version, free: Register) -> Vec<Expression> {
        let to = self.number;
        if !choice.hashed {
            return Selector::NumgenRandom(choice.slots).load(to);
        }
        let kind = HashKind::Jenkins { from: free, length: version.bytes() as u32, seed: Some(SEED) };
        let mut expressions = version.source().load(free);
        expressions.push(Expression::Hash(Hash { kind, modulus: choice.slots, offset: 0, to }));
        expressions
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
