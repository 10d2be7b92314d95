//! Who may reach a range of host ports: chain `sources`, present when [`crate::PlanConfig::sources`] is not empty.
//!
//! Before the destination is rewritten, and so before anybody else's rule too: a packet to an address of this machine
//! and a port of the range, from nowhere of the allowed networks, is dropped if it begins something. Answers to what
//! instances sent first, and everything of a connection that was let in, passes: it is `established` for connection
//! tracking. What connection tracking does not know (untracked, invalid) is treated as a beginning.
//!
//! What the machine sends to itself, by whatever address, comes in by `lo` and passes; nothing else can come in there.
//! Instances of this machine are sources like any other.

use ipnet::IpNet;
use portolan_model::{PortRange, Protocols};
use portolan_nft::{
    BaseChain, Chain, ChainKind, Element, FilledChain, Hook, Policy, Rule, matches, matches::ct_state,
    priority,
};

use crate::{PlanConfig, SetId, SetKind, Version, networks};

/// The chain's name.
pub const SOURCES: &str = "sources";

/// Who may reach some host ports. A port of several policies is reached by those whom all of them allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePolicy {
    /// The host ports.
    pub ports: PortRange,
    /// Of these protocols.
    pub protocols: Protocols,
    /// Clients of these networks, of both versions of IP. None: nobody but this machine. A pool that everybody may
    /// reach has no policy.
    pub allowed: Vec<IpNet>,
}

pub(crate) fn chain(config: &PlanConfig) -> Option<FilledChain> {
    if config.sources.is_empty() {
        return None;
    }
    let base = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        // After connection tracking (-200), before all that rewrites.
        priority: priority::MANGLE,
        policy: Policy::Accept,
    };
    let rule = || Rule::new(SOURCES);
    let mut rules = vec![
        rule().then(matches::ct_state_any(ct_state::ESTABLISHED | ct_state::RELATED)).returns(),
        rule().then(matches::input_interface("lo")).returns(),
        rule().then(matches::destination_is_not_local()).returns(),
    ];
    for (number, policy) in (0..).zip(&config.sources) {
        for protocol in policy.protocols.iter() {
            rules.extend(Version::ALL.map(|version| {
                let allowed = SetId::new(SetKind::Allowed(number), version).name();
                rule()
                    .then(matches::protocol(protocol.number()))
                    .then(version.guard())
                    .then(matches::destination_port_between(policy.ports.first(), policy.ports.last()))
                    .then(matches::not_in_set(&[version.source()], allowed))
                    .drop()
            }));
        }
    }
    Some(FilledChain { chain: Chain { name: SOURCES.to_owned(), base: Some(base), comment: None }, rules })
}

pub(crate) fn elements(config: &PlanConfig) -> impl Iterator<Item = (SetId, Element)> {
    (0..)
        .zip(&config.sources)
        .flat_map(|(number, policy)| networks::elements(SetKind::Allowed(number), &policy.allowed))
}
