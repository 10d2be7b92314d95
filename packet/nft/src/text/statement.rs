//! Statements that use no register, and the flags of those that rewrite.

use super::quoted;
use crate::{Expression, Limit, LimitUnit, LogTarget, NatFlags, Reject};

/// ` random,persistent`, with a space before.
pub(super) fn flags(flags: NatFlags) -> String {
    let set: Vec<_> =
        [(flags.random, "random"), (flags.fully_random, "fully-random"), (flags.persistent, "persistent")]
            .into_iter()
            .filter_map(|(on, name)| on.then_some(name))
            .collect();
    if set.is_empty() { String::new() } else { format!(" {}", set.join(",")) }
}

/// Statements that use no register.
pub(super) fn statement(expression: &Expression) -> String {
    match expression {
        Expression::Verdict(verdict) => verdict.to_string(),
        Expression::Counter(counter) => {
            format!("counter packets {} bytes {}", counter.packets, counter.bytes)
        }
        Expression::Limit(one) => limit(one),
        Expression::Quota(quota) => {
            format!("quota {}{} bytes", if quota.over { "over " } else { "" }, quota.bytes)
        }
        Expression::ConnectionLimit(one) => {
            format!("ct count {}{}", if one.over { "over " } else { "" }, one.count)
        }
        Expression::Log(log) => {
            let prefix = if log.prefix.is_empty() {
                String::new()
            } else {
                format!(" prefix {}", quoted(&log.prefix))
            };
            match log.target {
                LogTarget::Kernel { level } => {
                    let levels = ["emerg", "alert", "crit", "err", "warn", "notice", "info", "debug"];
                    format!("log{prefix} level {}", levels.get(level as usize).unwrap_or(&"warn"))
                }
                LogTarget::Group { group, snap_length: 0 } => format!("log{prefix} group {group}"),
                LogTarget::Group { group, snap_length } => {
                    format!("log{prefix} group {group} snaplen {snap_length}")
                }
            }
        }
        Expression::Reject(Reject::TcpReset) => "reject with tcp reset".to_owned(),
        Expression::Reject(Reject::Icmpx(code)) => {
            let names = ["no-route", "port-unreachable", "host-unreachable", "admin-prohibited"];
            match names.get(usize::from(*code)) {
                Some(name) => format!("reject with icmpx type {name}"),
                None => format!("reject with icmpx type {code}"),
            }
        }
        Expression::Reject(Reject::Icmp(code)) => format!("reject with icmp type {code}"),
        Expression::Notrack => "notrack".to_owned(),
        other => format!("[ {other} ]"),
    }
}

fn limit(limit: &Limit) -> String {
    let period = match limit.period {
        1 => "second",
        60 => "minute",
        3_600 => "hour",
        86_400 => "day",
        _ => "week",
    };
    let (unit, burst) = match limit.unit {
        LimitUnit::Packets => ("", "packets"),
        LimitUnit::Bytes => (" bytes", "bytes"),
    };
    let over = if limit.over { "over " } else { "" };
    format!("limit rate {over}{}{unit}/{period} burst {} {burst}", limit.rate, limit.burst)
}
