//! The same questions to kube-proxy 1.36.3 in its nftables mode and to `portolan proxy`, in the same cluster: the answers
//! are those that Kubernetes describes, and the same from both, but for the differences below.
//!
//! The short set runs with all tests; every case takes some minutes:
//! `cargo test -p portolan-tests --test proxy_agrees_with_kube_proxy -- --include-ignored --nocapture` (`make conformance`).
//! `PORTOLAN_PROXY_CASES=F23` runs those cases whose names contain that, `PORTOLAN_PROXY=kube-proxy` one program only.

use std::{collections::BTreeMap, io::Write as _};

use portolan_testkit::need_root;
use portolan_tests::proxy::{
    api::Api,
    bench::{Ran, run},
    case::{Case, joined},
    cases,
    program::Program,
};

/// Where kube-proxy does something else, and what ours does is meant: the beginning of the names of the cases, and why.
const DIFFERENCES: [(&str, &str); 3] = [
    (
        "F34 a UDP flow ends with the last endpoint",
        "kube-proxy leaves Services without endpoints out of its sweep of conntrack, and flows go to a Pod that is gone \
         for as long as the client goes on (kubernetes/kubernetes#139628)",
    ),
    (
        "W5 a network that Services get is theirs at once",
        "kube-proxy writes a new ServiceCIDR down and programs it at the next full synchronization, in up to an hour",
    ),
    (
        "W6 an address that a node gets has node ports at once",
        "kube-proxy fills its set of addresses at full synchronizations only, in up to an hour",
    ),
];

#[test]
fn the_short_set_agrees() {
    compare("short", |case| case.short && case.nodes <= 2);
}

#[test]
#[ignore = "every case takes some minutes: `make conformance` runs it"]
fn every_case_agrees() {
    compare("every", |_| true);
}

#[track_caller]
fn compare(which: &str, chosen: impl Fn(&Case) -> bool) {
    need_root!();
    let filter = std::env::var("PORTOLAN_PROXY_CASES").unwrap_or_default();
    let all = cases::all();
    let (mut wanted, rest): (Vec<Case>, Vec<Case>) =
        all.into_iter().partition(|case| chosen(case) && case.name.contains(&filter));
    // Cases share Services: those of the cases that are left out are there too.
    let first = wanted.first_mut().unwrap_or_else(|| panic!("no case is called {filter}"));
    first.services.extend(rest.into_iter().flat_map(|case| case.services));
    let Some(api) = Api::start("proxy") else { return };
    let only = std::env::var("PORTOLAN_PROXY").unwrap_or_default();
    let programs = [Program::KubeProxy, Program::Portolan];
    let programs =
        programs.into_iter().filter(|program| only.is_empty() || program.name().eq_ignore_ascii_case(&only));
    let ran: Vec<Ran> = programs.map(|program| run(program, &api, &wanted)).collect();
    let wrong = report(which, &wanted, &ran);
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), wanted.len(), wrong.join("\n"));
}

/// Prints the table, and gives what is wrong in it.
fn report(which: &str, cases: &[Case], ran: &[Ran]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    // Not `println!`: the test harness swallows what that prints in tests that pass.
    let mut out = std::io::stdout().lock();
    let names: Vec<&str> = ran.iter().map(|ran| ran.program.name()).collect();
    let _ = writeln!(out, "\n{:<110} {}", "case", names.join("   =?   "));
    for case in cases {
        let outcomes: Vec<_> =
            ran.iter().filter_map(|ran| Some((ran.program, ran.outcomes.get(&case.name)?))).collect();
        let reason =
            DIFFERENCES.iter().find(|(name, _)| case.name.starts_with(name)).map(|(_, reason)| *reason);
        let same = outcomes.windows(2).all(|pair| pair[0].1.seen == pair[1].1.seen);
        let lines: Vec<String> = outcomes.iter().map(|(_, outcome)| outcome.line()).collect();
        let bad = outcomes.iter().find(|(program, outcome)| {
            !(outcome.good() || *program == Program::KubeProxy && reason.is_some())
        });
        let verdict = match (bad, same) {
            (Some(_), _) => "WRONG",
            (None, true) => "equal",
            (None, false) => "meant",
        };
        *counts.entry(verdict).or_default() += 1;
        let shown = if same { lines.first().cloned().unwrap_or_default() } else { lines.join("   /   ") };
        let _ = writeln!(out, "{verdict} {:<104} {shown}", case.name);
        if let Some((program, outcome)) = bad {
            let expected = joined(&outcome.expected);
            wrong.push(format!(
                "{}: {}: {} instead of {expected}",
                case.name,
                program.name(),
                outcome.line()
            ));
        }
    }
    for (name, reason) in DIFFERENCES {
        if cases.iter().any(|case| case.name.starts_with(name)) {
            let _ = writeln!(out, "meant: {name}: {reason}");
        }
    }
    for ran in ran {
        let _ = writeln!(
            out,
            "{}: programmed after {:.1} s, all after {:.1} s",
            ran.program.name(),
            ran.programmed.as_secs_f32(),
            ran.took.as_secs_f32()
        );
    }
    let counts: Vec<String> = counts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
    let _ = writeln!(out, "{which} set: {} cases: {}", cases.len(), counts.join(", "));
    wrong
}
