//! What refers to what: rules and elements to chains, rules to sets.

use std::collections::HashSet;

use super::{
    Refusal,
    errno::{EINVAL, EMLINK, ENOENT, EOPNOTSUPP},
    state::State,
};
use crate::{BaseChain, ChainKind, ElementValue, Expression, LookupResult, Rule, SetValue, Verdict};

/// Whether the verdict may be used: its chain is there, and is not called by the kernel itself.
pub(super) fn verdict(state: &State, verdict: &Verdict) -> Result<(), Refusal> {
    let Some(name) = verdict.chain() else { return Ok(()) };
    match state.chain(name) {
        None => Err(ENOENT.into()),
        Some(held) if held.chain.base.is_some() => Err(EOPNOTSUPP.into()),
        Some(_) => Ok(()),
    }
}

/// Whether the rule may be in a chain of this kind.
pub(super) fn rule(state: &State, rule: &Rule, base: Option<&BaseChain>) -> Result<(), Refusal> {
    rule.expressions.iter().try_for_each(|one| expression(state, one, base))
}

fn expression(state: &State, expression: &Expression, base: Option<&BaseChain>) -> Result<(), Refusal> {
    match expression {
        Expression::Verdict(one) => verdict(state, one),
        Expression::Lookup(lookup) => {
            let set = &state.set(&lookup.set).ok_or(ENOENT)?.set;
            let fits = match (lookup.result, &set.value) {
                (LookupResult::Found | LookupResult::NotFound, value) => *value == SetValue::None,
                (LookupResult::Data(_), SetValue::Data(_)) | (LookupResult::Verdict, SetValue::Verdict) => {
                    true
                }
                _ => false,
            };
            if fits { Ok(()) } else { Err(EINVAL.into()) }
        }
        Expression::Dynset(dynset) => {
            let set = &state.set(&dynset.set).ok_or(ENOENT)?.set;
            if !set.dynamic || (dynset.timeout.is_some() && !set.timeouts) {
                return Err(if set.dynamic { EINVAL } else { EOPNOTSUPP }.into());
            }
            Ok(())
        }
        Expression::Nat(_) | Expression::Masquerade(_) | Expression::Redirect(_) => match base {
            Some(base) if base.kind != ChainKind::Nat => Err(EOPNOTSUPP.into()),
            // A regular chain may be called from any: the kernel looks when it is.
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The chains a rule or element leads to.
fn targets<'a>(state: &'a State, chain: &str) -> Vec<&'a str> {
    let Some(held) = state.chain(chain) else { return Vec::new() };
    let mut targets = Vec::new();
    for expression in held.rules.iter().flat_map(|rule| &rule.expressions) {
        match expression {
            Expression::Verdict(verdict) => targets.extend(verdict.chain()),
            Expression::Lookup(lookup) if lookup.result == LookupResult::Verdict => {
                targets.extend(led_to_by(state, &lookup.set));
            }
            _ => {}
        }
    }
    targets
}

/// The chains that the elements of a verdict map lead to.
fn led_to_by<'a>(state: &'a State, set: &str) -> impl Iterator<Item = &'a str> {
    state.set(set).into_iter().flat_map(|held| held.elements.values()).filter_map(|element| {
        match &element.value {
            Some(ElementValue::Verdict(verdict)) => verdict.chain(),
            _ => None,
        }
    })
}

/// Whether a rule or an element leads to it. The kernel counts its own rules too, though they go with it.
pub(super) fn chain_is_used(state: &State, name: &str) -> bool {
    let direct = |rule: &Rule| {
        rule.expressions.iter().any(|one| matches!(one, Expression::Verdict(v) if v.chain() == Some(name)))
    };
    state.chains.iter().any(|held| held.rules.iter().any(direct))
        || state.sets.iter().any(|held| led_to_by(state, &held.set.name).any(|target| target == name))
}

/// Whether a rule looks into it or fills it.
pub(super) fn set_is_used(state: &State, name: &str) -> bool {
    state.chains.iter().flat_map(|held| &held.rules).flat_map(|rule| &rule.expressions).any(|one| match one {
        Expression::Lookup(lookup) => lookup.set == name,
        Expression::Dynset(dynset) => dynset.set == name,
        _ => false,
    })
}

/// The kernel follows all ways from its own chains and refuses those that come round or that lead from a chain which is
/// not for nat to a rule that is (`nft_chain_validate`).
pub(super) fn ways(state: &State) -> Result<(), Refusal> {
    for held in &state.chains {
        let Some(base) = &held.chain.base else { continue };
        let mut done = HashSet::new();
        follow(state, &held.chain.name, &mut Vec::new(), &mut done)?;
        let rewrites = |name: &&str| state.chain(name).is_some_and(|held| held.rules.iter().any(rewrites));
        if base.kind != ChainKind::Nat && done.iter().any(rewrites) {
            return Err(EOPNOTSUPP.into());
        }
    }
    Ok(())
}

fn rewrites(rule: &Rule) -> bool {
    let rewrites = |one: &Expression| {
        matches!(one, Expression::Nat(_) | Expression::Masquerade(_) | Expression::Redirect(_))
    };
    rule.expressions.iter().any(rewrites)
}

fn follow<'a>(
    state: &'a State,
    chain: &'a str,
    way: &mut Vec<&'a str>,
    done: &mut HashSet<&'a str>,
) -> Result<(), Refusal> {
    // NFT_JUMP_STACK_SIZE: how deep jumps may be.
    const DEEPEST: usize = 16;
    if way.contains(&chain) || way.len() >= DEEPEST {
        return Err(EMLINK.into());
    }
    if done.contains(chain) {
        return Ok(());
    }
    way.push(chain);
    for target in targets(state, chain) {
        follow(state, target, way, done)?;
    }
    way.pop();
    done.insert(chain);
    Ok(())
}
