//! From any table to the one that is wanted, in one transaction, and in none when nothing differs.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Step, block, kubernetes, port, steps};
use portolan_model::{Mapping, Protocol};
use portolan_nft::{Chain, Data, DataType, Element, Fake, Nft as _, Object, Rule, Ruleset, Set, Verdict};
use portolan_plan::{Plan, PlanConfig, diff};
use proptest::prelude::*;

fn planned(mappings: &[Mapping]) -> Ruleset {
    let mut plan = Plan::new(PlanConfig::default()).unwrap();
    // What overlaps is left out: any set of mappings will do.
    mappings.iter().for_each(|mapping| drop(plan.add(mapping)));
    plan.ruleset()
}

fn after(history: &[Step]) -> Ruleset {
    let added = history.iter().filter_map(|step| match step {
        Step::Add(mapping) => Some(mapping.clone()),
        Step::Remove(_) => None,
    });
    planned(&added.collect::<Vec<_>>())
}

fn holding(ruleset: &Ruleset) -> Fake {
    let mut fake = Fake::default();
    fake.run(&ruleset.creation()).unwrap();
    fake
}

fn read(fake: &mut Fake, like: &Ruleset) -> Ruleset {
    let mut ruleset = fake.dump(&like.table).unwrap().unwrap();
    ruleset.sort();
    for rule in ruleset.chains.iter_mut().flat_map(|chain| &mut chain.rules) {
        (rule.handle, rule.position) = (None, None);
    }
    ruleset.sets.iter_mut().flat_map(|set| &mut set.elements).for_each(|element| element.counter = None);
    ruleset
}

/// Brings the table to `want` and says what was found.
fn mend(fake: &mut Fake, want: &Ruleset) -> Vec<String> {
    let have = fake.dump(&want.table).unwrap();
    let difference = diff(have.as_ref(), want);
    fake.run(&difference.transaction).unwrap();
    assert_eq!(&read(fake, want), want);
    let have = fake.dump(&want.table).unwrap();
    assert!(diff(have.as_ref(), want).is_empty(), "twice is once");
    difference.found
}

fn some() -> Vec<Mapping> {
    vec![port(Protocol::Udp, 20001, 2, 7777), block(Protocol::Udp, 21000, 21099, 2)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_plan_is_reached_from_any_other_by_elements_alone(one in steps(0..40), other in steps(0..40)) {
        let (from, to) = (after(&one), after(&other));
        let mut fake = holding(&from);
        let difference = diff(Some(&from), &to);
        let only_elements = |object: &Object| matches!(object, Object::Elements(_));
        prop_assert!(difference.transaction.operations.iter().all(|step| only_elements(&step.object)));
        prop_assert_eq!(difference.is_empty(), from == to);
        mend(&mut fake, &to);
    }
}

#[test]
fn another_configuration_is_reached_without_touching_a_mapping() {
    let mappings = [port(Protocol::Udp, 20417, 2, 7777), block(Protocol::Udp, 21000, 21099, 2)];
    let with = |config: PlanConfig| Plan::with(config, &mappings).unwrap().ruleset();
    let all = kubernetes();
    let fewer =
        PlanConfig { local: all.local[..1].to_vec(), sources: all.sources[1..].to_vec(), ..all.clone() };
    let none = PlanConfig { local: vec![], direct: vec![], sources: vec![], ..all.clone() };
    let configs = [all, none, fewer];
    for (from, to) in (0..3).flat_map(|from| (0..3).map(move |to| (from, to))) {
        let (from, to) = (with(configs[from].clone()), with(configs[to].clone()));
        let difference = diff(Some(&from), &to);
        for operation in &difference.transaction.operations {
            let name = match &operation.object {
                Object::Elements(elements) => elements.set.name.clone(),
                Object::Set(set) => set.name.clone(),
                Object::Chain(chain) => chain.name.clone(),
                Object::Rule(rule) => rule.chain.clone(),
                Object::Table => panic!("the table would be made anew"),
            };
            let may = ["local_", "direct_", "allowed_", "sources"].iter().any(|part| name.starts_with(part));
            assert!(may, "{operation:?}");
        }
        mend(&mut holding(&from), &to);
    }
    // What cannot be had in place is made anew, in one transaction too.
    let own = planned(&mappings);
    mend(&mut holding(&own), &with(kubernetes()));
    mend(&mut holding(&with(kubernetes())), &own);
}

#[test]
fn a_missing_table_is_made() {
    let want = planned(&some());
    assert_eq!(mend(&mut Fake::default(), &want), ["table inet portolan is missing"]);
}

#[test]
fn a_changed_and_a_foreign_element_are_named_and_mended() {
    let want = planned(&some());
    let mut fake = holding(&want);
    let host = want.find_set("host_v4").unwrap();
    let mut change = portolan_nft::Transaction::new(want.table.clone());
    let target = Data::new().ip([10, 213, 0, 9]).port(1);
    let moved = Element { value: None, ..host.elements[0].clone() }.value(target.clone());
    change.delete_elements(&host.set, host.elements.clone());
    change.add_elements(&host.set, [moved, Element::new(Data::new().protocol(6).port(1)).value(target)]);
    fake.run(&change).unwrap();
    assert_eq!(mend(&mut fake, &want), ["map host_v4: elements 1 changed, 1 foreign"]);
}

#[test]
fn an_interval_that_others_cut_in_pieces_is_whole_again() {
    let want = planned(&some());
    let mut fake = holding(&want);
    let blocks = want.find_set("block_udp_v4").unwrap();
    let piece = |first, last| {
        Element::interval(Data::new().port(first), Data::new().port(last))
            .value(Data::new().ip([10, 213, 0, 9]))
    };
    let mut change = portolan_nft::Transaction::new(want.table.clone());
    change.delete_elements(&blocks.set, blocks.elements.clone());
    change.add_elements(&blocks.set, [piece(20990, 21010), piece(21020, 21200)]);
    fake.run(&change).unwrap();
    assert_eq!(mend(&mut fake, &want), ["map block_udp_v4: elements 1 missing, 2 foreign"]);
}

#[test]
fn foreign_rules_chains_and_sets_go() {
    let want = planned(&some());
    let mut fake = holding(&want);
    let mut change = portolan_nft::Transaction::new(want.table.clone());
    let verdicts = Set::verdict_map("verdicts", [DataType::InetService]);
    change.add(Chain::regular("deep"));
    change.add(Chain::regular("theirs"));
    change.add(verdicts.clone());
    change.add_elements(&verdicts, [Element::new(Data::new().port(5)).verdict(Verdict::jump("deep"))]);
    change.add(Rule::new("theirs").jump("deep"));
    change.insert(Rule::new("ports").then(Verdict::goto("theirs")));
    fake.run(&change).unwrap();
    let found = mend(&mut fake, &want);
    for expected in [
        "chain deep is foreign",
        "chain theirs is foreign",
        "map verdicts is foreign",
        "chain ports: the rules are others",
    ] {
        assert!(found.iter().any(|found| found == expected), "{found:?}");
    }
}

#[test]
fn a_missing_chain_or_set_is_made() {
    let want = planned(&some());
    let mut less = want.clone();
    less.chains
        .retain(|filled| !["between_v4", "outbound_v4", "postrouting"].contains(&filled.chain.name.as_str()));
    less.sets.retain(|filled| filled.set.name != "hairpin_v4");
    let found = mend(&mut holding(&less), &want);
    assert_eq!(found.iter().filter(|found| found.ends_with("is missing")).count(), 4, "{found:?}");
}

#[test]
fn what_cannot_be_changed_in_place_is_made_anew() {
    let want = planned(&some());
    let mut other = want.clone();
    other
        .chains
        .iter_mut()
        .find(|filled| filled.chain.name == "output")
        .unwrap()
        .chain
        .base
        .as_mut()
        .unwrap()
        .priority = 7;
    assert_eq!(mend(&mut holding(&other), &want), ["chain output was declared in another way"]);
    let mut other = want.clone();
    let host = other.sets.iter_mut().find(|filled| filled.set.name == "host_at_v6").unwrap();
    host.set.comment = None;
    assert_eq!(mend(&mut holding(&other), &want), ["map host_at_v6 was declared in another way"]);
    let mut asleep = want.clone();
    asleep.table.dormant = true;
    assert_eq!(mend(&mut holding(&asleep), &want), ["table inet portolan was declared in another way"]);
}
