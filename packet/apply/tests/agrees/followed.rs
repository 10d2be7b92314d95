//! What the kernel says of packets that it follows (nftrace) is what the plan in memory says: hop by hop, in the words
//! that `portolan trace --live` compares.

use std::{collections::BTreeSet, time::Duration};

use portolan_nft::{
    Kernel, Nft as _, Ruleset, Transaction,
    evaluate::{Machine, Origin, Packet, Step},
    trace::{TraceKind, Traced, Tracer, rules_to_follow},
};
use portolan_services::Services;
use portolan_testkit::need_root;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRunner},
};

use crate::{
    agree,
    judge::packets,
    reference::{self, Answer, Asked, World, random},
    site::Site,
};

const FOLLOWING: &str = "follow";
/// After so long without an event the packet has ended.
const QUIET: Duration = Duration::from_millis(60);
const PATIENCE: Duration = Duration::from_secs(3);

/// Chain and number of each rule that had a say.
type Hops = Vec<(String, usize)>;

fn follow(site: &Site, tracer: &mut Tracer, ours: &Ruleset, asked: &Asked) -> Hops {
    let kernel = &mut *site.kernel.borrow_mut();
    // No client is remembered, as in the plan.
    let mut transaction = Transaction::new(ours.table.clone());
    ours.sets.iter().filter(|filled| filled.set.dynamic).for_each(|filled| {
        transaction.flush(filled.set.clone());
    });
    kernel.run(&transaction).unwrap();
    let rules = rules_to_follow(FOLLOWING, asked.protocol.number(), asked.source, asked.destination);
    kernel.run(&rules.creation()).unwrap();
    let number = site.numbers(1).start;
    // The number is in the ports too: every packet begins a connection.
    let port = 10_000 + (number % 50_000) as u16;
    let packet = Packet::new(asked.protocol.number(), (asked.source, port).into(), asked.destination);
    site.send(&packet, asked.interface.as_deref(), number);
    let mut events: Vec<Traced> = Vec::new();
    while let Some(event) = tracer.next(if events.is_empty() { PATIENCE } else { QUIET }).unwrap() {
        // Answers are not followed, and nothing else is sent.
        assert!(events.is_empty() || event.is_of(&events), "{event:?} beside {events:?}");
        events.push(event);
    }
    let mut transaction = Transaction::new(rules.table);
    transaction.destroy_table();
    kernel.run(&transaction).unwrap();
    assert!(!events.is_empty(), "nothing was followed: {asked:?}");
    events.iter().filter_map(|event| hop(ours, event)).collect()
}

fn hop(ours: &Ruleset, event: &Traced) -> Option<(String, usize)> {
    // The end of a chain is told without a rule.
    if event.kind != TraceKind::Rule || event.rule.is_none() || event.table != ours.table.name {
        return None;
    }
    let rules = &ours.find_chain(&event.chain).unwrap().rules;
    let index = rules.iter().position(|rule| rule.handle == event.rule);
    let index = index.unwrap_or_else(|| panic!("{event:?} is of no rule of {rules:?}"));
    Some((event.chain.clone(), index))
}

fn hops(ours: &Ruleset, steps: &[Step]) -> Hops {
    let of_rules = steps.iter().filter(|step| step.is_rule()).filter_map(|step| step.place.as_ref());
    let places = of_rules.filter(|place| place.table == ours.table.to_string());
    places.filter_map(|place| Some((place.chain.clone(), place.rule?))).collect()
}

/// One packet for each kind of answer that this world has.
fn one_of_each(world: &World, all: Vec<Asked>, kinds: &mut BTreeSet<String>) -> Vec<Asked> {
    let mut chosen = Vec::new();
    for asked in all {
        let answers = reference::answers(world, &asked);
        let Some(first) = answers.first() else { continue };
        let answer = match first {
            Answer::To { masqueraded, endpoint } => {
                format!("to an endpoint, {masqueraded}, here: {}", world.own.contains(&endpoint.ip()))
            }
            other => format!("{other:?}"),
        };
        let from = asked.interface.as_deref().map_or("node", |interface| &interface[..3]).to_owned();
        let version = if asked.source.is_ipv4() { 4 } else { 6 };
        if kinds.insert(format!("{answer} from {from} by IPv{version}")) {
            chosen.push(asked);
        }
    }
    chosen
}

#[test]
fn the_kernel_follows_packets_as_the_plan_does() {
    need_root!();
    let site = Site::new();
    let mut tracer = site.node.run(|| Tracer::open().unwrap());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let mut kinds = BTreeSet::new();
    for _ in 0..8 {
        let world = random::worlds().new_tree(&mut runner).unwrap().current();
        let services =
            Services::load(agree::config(&world), world.services.clone(), world.slices.clone()).unwrap();
        let plane = site.apply(agree::config(&world), world.services.clone(), world.slices.clone());
        // With the handles that events name.
        let ours = site.node.run(|| Kernel::open().unwrap().dump(&services.table()).unwrap().unwrap());
        let machine: Machine = agree::machine(&world, &services.ruleset());
        for asked in one_of_each(&world, packets(&site, &world), &mut kinds) {
            let went = follow(&site, &mut tracer, &ours, &asked);
            let origin = asked.interface.clone().map_or(Origin::Here, Origin::Interface);
            let packet =
                Packet::new(asked.protocol.number(), (asked.source, 10_000).into(), asked.destination);
            let outcomes = machine.outcomes(&packet, &origin).unwrap();
            let planned: Vec<Hops> = outcomes.iter().map(|outcome| hops(&ours, &outcome.steps)).collect();
            assert!(planned.contains(&went), "{asked:?}\nkernel: {went:?}\nplan: {:?}\n{ours}", planned[0]);
        }
        plane.stop().unwrap();
    }
    assert!(kinds.len() >= 12, "{kinds:?}");
}
