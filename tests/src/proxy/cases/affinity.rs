//! F26 and F27: which of the endpoints a new connection gets.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::json;

use super::{NODE, OUTSIDE, POD, family_name, kind};
use crate::proxy::{
    case::{Case, Scene},
    probe::ask,
    service::{Protocol, Service, Target, all_kinds},
    world::{FAMILIES, Family, Place, node_address},
};

const TCP: Protocol = Protocol::Tcp;
const FOUR: [&str; 4] = ["1a", "1b", "2a", "2b"];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = all_kinds().flat_map(|(family, protocol)| sticky(family, protocol)).collect();
    for family in FAMILIES {
        cases.extend(over_time(family));
        cases.push(even(family));
    }
    cases
}

/// Who answers in this many tries, or what went wrong.
fn who(scene: Scene<'_>, place: Place, target: Target, tries: usize) -> BTreeSet<String> {
    (0..tries)
        .map(|_| ask(scene.world, place, target).map_or_else(|failure| failure, |(name, _)| name))
        .collect()
}

/// `one`, `several`, or what went wrong.
fn number_of(answers: &BTreeSet<String>) -> String {
    let wrong: Vec<&str> =
        answers.iter().filter(|name| !FOUR.contains(&name.as_str())).map(String::as_str).collect();
    match (wrong.is_empty(), answers.len()) {
        (false, _) => wrong.join(" "),
        (true, 1) => "one".to_owned(),
        (true, _) => "several".to_owned(),
    }
}

fn sticky(family: Family, protocol: Protocol) -> Vec<Case> {
    let kind = kind(family, protocol);
    let short = family == Family::V4 && protocol != Protocol::Sctp;
    let new = || Service::new(family, protocol).balancer().affinity(10_800);
    let service = new().at(&FOUR);
    let node = node_address(1, family);
    let mut cases = Vec::new();
    let targets = [
        ("the cluster address", service.cluster(family, protocol)),
        ("a node port", service.at_node(node, protocol)),
        ("a load balancer", service.at_balancer(family, protocol)),
    ];
    for (number, (name, target)) in targets.into_iter().enumerate() {
        let mut case = Case::new(
            format!("F26 a client stays with its endpoint at {name}, {kind}"),
            if number == 0 { vec![&service] } else { vec![] }.as_slice(),
        );
        for (from, place) in [("pod", POD), ("node", NODE), ("outside", OUTSIDE)] {
            case = case.look(from, move |scene| number_of(&who(scene, place, target, 16)), "one");
        }
        cases.push(case.short_if(short));
    }
    let all: Vec<Target> = targets.iter().map(|(_, target)| *target).collect();
    cases.push(
        Case::new(format!("F26 and it is the same at every address of the Service, {kind}"), &[])
            .look(
                "outside",
                move |scene| {
                    number_of(&all.iter().flat_map(|target| who(scene, OUTSIDE, *target, 4)).collect())
                },
                "one",
            )
            .short_if(short),
    );
    let moved = new().at(&FOUR);
    let target = moved.cluster(family, protocol);
    cases.push(
        Case::new(
            format!("F26 a client whose endpoint has gone gets another and stays there, {kind}"),
            &[&moved],
        )
        .look(
            "then",
            move |scene: Scene<'_>| {
                let first = who(scene, POD, target, 8);
                if first.len() != 1 {
                    return format!("{first:?}");
                }
                let others: Vec<&str> = FOUR.into_iter().filter(|name| !first.contains(*name)).collect();
                moved.move_to(scene.api, &others);
                let gone = |answers: &BTreeSet<String>| answers.is_disjoint(&first);
                let waited = portolan_testkit::eventually_ok(Duration::from_secs(10), || {
                    let answers = who(scene, POD, target, 1);
                    if gone(&answers) { Ok(()) } else { Err(answers) }
                });
                let after = who(scene, POD, target, 16);
                moved.move_to(scene.api, &FOUR);
                match waited {
                    Ok(()) if gone(&after) => number_of(&after),
                    _ => "still the one that has gone".to_owned(),
                }
            },
            "one",
        )
        .short_if(short),
    );
    cases
}

fn over_time(family: Family) -> Vec<Case> {
    let name = family_name(family);
    let mut cases = Vec::new();
    // Eight Services: that all of them choose the same endpoint again by chance happens once in 65,536 times.
    let short: Vec<Service> = (0..8).map(|_| Service::new(family, TCP).affinity(2).at(&FOUR)).collect();
    let targets: Vec<Target> = short.iter().map(|service| service.cluster(family, TCP)).collect();
    cases.push(
        Case::new(format!("F26 affinity ends after its time, {name}"), &short.iter().collect::<Vec<_>>())
            .look(
                "again",
                move |scene: Scene<'_>| {
                    let choose =
                        || targets.iter().map(|target| who(scene, POD, *target, 1)).collect::<Vec<_>>();
                    let first = choose();
                    let start = Instant::now();
                    let again = portolan_testkit::eventually_ok(Duration::from_secs(3), || {
                        if start.elapsed() > Duration::from_millis(2_500) { Ok(choose()) } else { Err(()) }
                    });
                    if again.is_ok_and(|again| again != first) { "others" } else { "the same" }.to_owned()
                },
                "others",
            ),
    );
    let kept: Vec<Service> = (0..8).map(|_| Service::new(family, TCP).affinity(3).at(&FOUR)).collect();
    let targets: Vec<Target> = kept.iter().map(|service| service.cluster(family, TCP)).collect();
    cases.push(
        Case::new(
            format!("F26 each new connection renews affinity, {name}"),
            &kept.iter().collect::<Vec<_>>(),
        )
        .look(
            "for twice its time",
            move |scene: Scene<'_>| {
                let start = Instant::now();
                let mut seen: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
                while start.elapsed() < Duration::from_secs(6) {
                    for (number, target) in targets.iter().enumerate() {
                        seen.entry(number).or_default().extend(who(scene, POD, *target, 1));
                    }
                }
                seen.values()
                    .map(number_of)
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect::<Vec<_>>()
                    .join(" ")
            },
            "one",
        ),
    );
    let switched = Service::new(family, TCP).at(&FOUR);
    let target = switched.cluster(family, TCP);
    let path = switched.path();
    let switch = move |to: serde_json::Value| {
        let path = path.clone();
        move |scene: Scene<'_>| drop(scene.api.patch(&path, &to))
    };
    cases.push(
        Case::new(format!("F26 affinity is switched on and off, {name}"), &[&switched])
            .ask(POD, target, "1a 1b 2a 2b")
            .then(switch(json!({"spec": {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}})))
            .look("on", move |scene| number_of(&who(scene, POD, target, 16)), "one")
            .then(switch(json!({"spec": {"sessionAffinity": "None", "sessionAffinityConfig": null}})))
            .ask_times(64, POD, target, "1a 1b 2a 2b")
            .short_if(family == Family::V4),
    );
    cases
}

/// F27: each of three endpoints has a third of 600 connections; seven standard deviations are allowed.
fn even(family: Family) -> Case {
    let service = Service::new(family, TCP).at(&["1a", "1b", "2a"]);
    let target = service.cluster(family, TCP);
    Case::new(format!("F27 connections are spread evenly, {}", family_name(family)), &[&service])
        .look(
            "600",
            move |scene: Scene<'_>| {
                let mut counts: BTreeMap<String, i32> = BTreeMap::new();
                for _ in 0..600 {
                    let answer =
                        ask(scene.world, POD, target).map_or_else(|failure| failure, |(name, _)| name);
                    *counts.entry(answer).or_default() += 1;
                }
                let even = counts.len() == 3 && counts.values().all(|count| (count - 200).abs() < 81);
                if even { "evenly".to_owned() } else { format!("{counts:?}") }
            },
            "evenly",
        )
        .short_if(family == Family::V4)
}
