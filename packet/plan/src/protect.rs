//! What no instance may send: chain `protect`, present when [`crate::PlanConfig::interfaces`] is set.
//!
//! - Nothing to 127.0.0.0/8 of this machine. The kernel drops such packets as martians unless `route_localnet` is on,
//!   which other programs switch on (kube-proxy in its default mode does); then every service that trusts loopback
//!   would be open to the instances (CVE-2020-8558).
//! - Nothing from an address which this machine does not route to that very interface. Other instances' mappings and
//!   the reverse rules rely on source addresses. For IPv4 `rp_filter=1` would do it too; IPv6 has no such setting.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use portolan_nft::{
    BaseChain, Chain, ChainKind, Compare, ComparisonOperator, Data, Expression, Fib, FibFlags, FibResult,
    FilledChain, Hook, Policy, Register, Rule, matches, priority,
};

use crate::PlanConfig;

/// The chain's name.
pub const PROTECT: &str = "protect";

pub(crate) fn chain(config: &PlanConfig) -> Option<FilledChain> {
    const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let interfaces = format!("{}*", config.interfaces.as_deref()?);
    let from_instance = || Rule::new(PROTECT).then(matches::input_interface(&interfaces));
    let base = BaseChain {
        kind: ChainKind::Filter,
        hook: Hook::Prerouting,
        priority: priority::RAW,
        policy: Policy::Accept,
    };
    Some(FilledChain {
        chain: Chain { name: PROTECT.to_owned(), base: Some(base), comment: None },
        rules: vec![
            from_instance().then(matches::destination_in(LOOPBACK)).drop(),
            from_instance().then(no_route_back()).drop(),
        ],
    })
}

/// `fib saddr . iif oif missing`: the source is not reached through the interface by which the packet came.
fn no_route_back() -> [Expression; 2] {
    let flags = FibFlags::SADDR | FibFlags::IIF | FibFlags::PRESENT;
    let compare =
        Compare { operator: ComparisonOperator::Equal, register: Register::R1, value: Data::new().number(0) };
    [
        Expression::Fib(Fib { flags, result: FibResult::OutputInterface, to: Register::R1 }),
        Expression::Compare(compare),
    ]
}
