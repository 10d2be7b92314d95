//! What an instance sends from a mapped port leaves with the published port.
//!
//! Peers of games, calls and file exchanges answer to, and tell others, the endpoint that they saw. Without this a
//! packet which an instance sends first would show some other port of this machine, where nobody listens.
//!
//! In this order, so that the most particular mapping decides:
//!
//! | published | map | rule |
//! |---|---|---|
//! | port on one address | `reverse_at` | `snat` to that address and port |
//! | block on one address | `reverse_block_at` | `snat` to that address, same port |
//! | port on all addresses | `reverse` | `masquerade` to that port |
//! | block on all addresses | `reverse_256`, `reverse_32`, `reverse_4`, and `reverse` for what is left | `masquerade` to the same port |
//!
//! A block is stored as aligned runs of 256, 32 and 4 ports, found by masking the port: 4 elements for a block of 100
//! that begins at a multiple of 64, 12 for 1,000, each as cheap as any. One interval over address, protocol and port would be one element, in a `pipapo` set.
//!
//! "The same port" is said to the kernel as a range of one port (`masquerade to :th sport`). Left out, the kernel
//! would keep the port too, unless an older connection from the same port had another one (`find_appropriate_src` in
//! `nf_nat_core.c`); with the range it is this port or, if the same two endpoints talk already, a dropped packet.
//!
//! One port of an instance may be published several times. It can leave with one number only: the lowest. Which
//! mapping wins is the matter of `choice`.

use portolan_model::Protocol;
use portolan_nft::{
    Bitwise, Data, Expression, Lookup, LookupResult, Masquerade, Nat, NatFlags, NatKind, Register, Rule,
    Selector, load, matches, statement,
};

use crate::{Run, SetId, SetKind, Version, hairpin, outbound};

mod choice;

pub(crate) use choice::{Reverse, cut};

const fn key(version: Version) -> [Selector; 3] {
    [version.source(), Selector::L4Proto, Selector::SourcePort]
}

/// The rules of `outbound_v4` or `outbound_v6`.
pub(crate) fn to_outside(version: Version) -> Vec<Rule> {
    let rule = || Rule::new(outbound::chain_name(version));
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = on_one_address(rule, version);
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(statement::masquerade_map(&key(version), map(SetKind::Reverse)))
    }));
    rules.extend(runs().map(|(run, protocol)| {
        let port = Some(Register::R1);
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(in_run(version, run))
            .then(Selector::SourcePort.load(Register::R1))
            .then(Expression::Masquerade(Masquerade { port, port_last: None, flags: NatFlags::NONE }))
    }));
    rules
}

/// The rules of `between_v4` or `between_v6`: as [`to_outside`], with the address that the sender used for this machine
/// instead of the outgoing interface's.
pub(crate) fn between(version: Version) -> Vec<Rule> {
    let rule = || Rule::new(hairpin::chain_name(version));
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = on_one_address(rule, version);
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(version.original_destination().load(Register::R1))
            .then(look_up(&key(version), map(SetKind::Reverse), Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules.extend(runs().map(|(run, protocol)| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(in_run(version, run))
            .then(version.original_destination().load(Register::R1))
            .then(Selector::SourcePort.load(Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules
}

fn runs() -> impl Iterator<Item = (Run, Protocol)> {
    Run::ALL.into_iter().flat_map(|run| Protocol::ALL.map(|protocol| (run, protocol)))
}

/// `ip saddr . meta l4proto . th sport & MASK @reverse_N`.
fn in_run(version: Version, run: Run) -> Vec<Expression> {
    masked(key(version), run, SetId::new(SetKind::ReverseRun(run), version).name())
}

/// `ADDRESS . PROTOCOL . PORT & MASK @set`.
pub(crate) fn masked(key: [Selector; 3], run: Run, set: String) -> Vec<Expression> {
    let mut expressions = load(&key, Register::R1);
    // Where `load` has put the port: behind address and protocol.
    let port = key[..2].iter().fold(Register::R1, |at, field| at.after(field.data_type().length()));
    let (mask, xor) = (Data::new().port(run.mask()), Data::new().port(0));
    expressions.push(Expression::Bitwise(Bitwise { from: port, to: port, mask, xor }));
    expressions.push(Expression::Lookup(Lookup { set, key: Register::R1, result: LookupResult::Found }));
    expressions
}

/// Mappings of one address, the same to the outside and between instances.
fn on_one_address(rule: impl Fn() -> Rule, version: Version) -> Vec<Rule> {
    let map = |kind| SetId::new(kind, version).name();
    let mut rules = vec![rule().then(version.guard()).then(statement::snat_map(
        version.family(),
        &key(version),
        map(SetKind::ReverseAt),
    ))];
    rules.extend(Protocol::ALL.map(|protocol| {
        rule()
            .then(matches::protocol(protocol.number()))
            .then(version.guard())
            .then(look_up(&key(version), map(SetKind::ReverseBlockAt), Register::R1))
            .then(Selector::SourcePort.load(Register::R2))
            .then(source_nat(version, Some(Register::R2), None))
    }));
    rules
}

/// The value of the key's element into `to`; the rule ends where there is none.
fn look_up(key: &[Selector], map: String, to: Register) -> Vec<Expression> {
    let mut expressions = load(key, to);
    expressions.push(Expression::Lookup(Lookup { set: map, key: to, result: LookupResult::Data(to) }));
    expressions
}

/// `snat` to the address in the first register.
pub(crate) const fn source_nat(
    version: Version,
    port: Option<Register>,
    port_last: Option<Register>,
) -> Expression {
    Expression::Nat(Nat {
        kind: NatKind::Source,
        family: version.family(),
        address: Some(Register::R1),
        address_last: None,
        port,
        port_last,
        flags: NatFlags::NONE,
    })
}
