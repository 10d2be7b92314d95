//! The table on histories of its own: single promises first, then any history against what watchers see.

use std::{collections::BTreeMap, net::IpAddr};

use portolan_model::{CheckKind, InstancePort, PortRange, Protocols, Registered};
use proptest::prelude::*;

use super::*;
use crate::admit::{Accepted, Claim};

fn at(seconds: u64) -> Now {
    let elapsed = Duration::from_secs(seconds);
    // A wall clock that goes backwards: nothing may depend on it.
    Now { elapsed, wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 - seconds) }
}

fn accepted(name: &str, incarnation: Option<&str>) -> Accepted {
    Accepted {
        name: name.parse().unwrap(),
        incarnation: incarnation.map(|text| text.parse().unwrap()),
        service: "web".parse().unwrap(),
        node: "n".into(),
        addresses: vec![IpAddr::from([192, 0, 2, 1])],
        ports: vec![InstancePort {
            name: "http".parse().unwrap(),
            protocols: Protocols::TCP,
            port: PortRange::single(4000).unwrap(),
            container: None,
        }],
        labels: BTreeMap::new(),
        tags: Vec::new(),
        check: None,
        ttl: Duration::from_secs(30),
        claim: Claim::All,
    }
}

fn checked(name: &str, incarnation: Option<&str>) -> Accepted {
    Accepted { check: Some(CheckSpec::new(CheckKind::Tcp)), ..accepted(name, incarnation) }
}

fn table() -> Table {
    Table::new(&RegistryConfig { capacity: 5, ..RegistryConfig::default() }, 1)
}

fn register(table: &mut Table, from: Accepted, now: Now) -> Result<Registered, RegistryError> {
    let prepared = table.prepare(from, "fresh".parse().unwrap(), now)?;
    Ok(table.commit(prepared, now))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn life(text: &str) -> Incarnation {
    text.parse().unwrap()
}

fn state(table: &Table, of: &str) -> Option<State> {
    table.snapshot().get(of).map(|instance| instance.state)
}

#[test]
fn a_caller_without_a_token_changes_its_own_instances_only() {
    let mut table = table();
    let from = |address: [u8; 4]| Claim::Addresses(address.into(), [].into());
    let mine = |claim| Accepted { claim, ..accepted("a", None) };
    register(&mut table, mine(from([192, 0, 2, 1])), at(0)).unwrap();
    register(&mut table, mine(from([192, 0, 2, 1])), at(1)).unwrap();
    let stranger = register(&mut table, mine(from([192, 0, 2, 2])), at(2)).unwrap_err();
    assert_eq!(stranger.status(), http::StatusCode::FORBIDDEN, "{stranger}");
    assert!(table.may_change(&name("a"), &from([192, 0, 2, 2])).is_err());
    assert!(table.may_change(&name("nobodys"), &from([192, 0, 2, 2])).is_ok());
    let network = Claim::Addresses([192, 0, 2, 2].into(), ["192.0.2.0/24".parse().unwrap()].into());
    register(&mut table, mine(network), at(3)).unwrap();
}

#[test]
fn without_a_check_the_lease_alone_speaks() {
    let mut table = table();
    let registered = register(&mut table, accepted("a", None), at(0)).unwrap();
    assert_eq!((registered.state, registered.created), (State::Passing, true));
    assert_eq!(registered.incarnation, life("fresh"));
    assert_eq!(table.tick(at(29)), 0);
    table.renew(&name("a"), None, at(29)).unwrap();
    assert_eq!(table.tick(at(58)), 0, "renewed at 29, so good until 59");
    assert_eq!(table.tick(at(59)), 1, "and not longer: once the lease, not twice");
    assert_eq!(state(&table, "a"), Some(State::Expired));
    assert_eq!(table.tick(at(59 + 299)), 0);
    assert_eq!(state(&table, "a"), Some(State::Expired));
    table.tick(at(59 + 300));
    assert_eq!(state(&table, "a"), None, "removed after five minutes");
    assert!(matches!(table.renew(&name("a"), None, at(400)), Err(RegistryError::NotFound(_))));
}

#[test]
fn an_instance_that_renews_after_it_expired_is_looked_at_anew() {
    let mut table = table();
    register(&mut table, checked("a", None), at(0)).unwrap();
    let target = table.target(&name("a")).unwrap();
    assert!(table.observed(&target, State::Passing, "fine".into(), at(1)));
    table.tick(at(31));
    assert_eq!(table.target(&name("a")), None, "nobody looks at what has expired");
    assert!(
        !table.observed(&target, State::Critical, "late".into(), at(32)),
        "nor believes who looked before"
    );
    table.renew(&name("a"), None, at(33)).unwrap();
    assert_eq!(state(&table, "a"), Some(State::Unknown));
    assert!(table.target(&name("a")).is_some());
}

#[test]
fn a_new_life_replaces_the_old_one_whose_late_words_change_nothing() {
    let mut table = table();
    register(&mut table, accepted("a", Some("one")), at(0)).unwrap();
    assert!(register(&mut table, accepted("a", Some("two")), at(1)).unwrap().created);
    let before = table.snapshot().index();
    let replaced = |result: Result<(), RegistryError>| matches!(result, Err(RegistryError::Replaced { current, .. }) if current == life("two"));
    assert!(replaced(table.renew(&name("a"), Some(&life("one")), at(2))));
    assert!(replaced(table.may_leave(&name("a"), Some(&life("one")))));
    assert!(
        replaced(register(&mut table, accepted("a", Some("one")), at(2)).map(drop)),
        "nor can it come back"
    );
    assert_eq!(table.snapshot().index(), before);
    // The transitions were two beginnings.
    let kinds: Vec<_> =
        table.take_changes().iter().map(|c| matches!(c.transition, Transition::Added(_))).collect();
    assert_eq!(kinds, [true, true]);
}

#[test]
fn the_same_words_again_are_a_renewal_and_other_words_an_update() {
    let mut table = table();
    let first = register(&mut table, checked("a", None), at(0)).unwrap();
    let target = table.target(&name("a")).unwrap();
    table.observed(&target, State::Passing, String::new(), at(1));
    table.take_changes();

    let same = register(&mut table, checked("a", None), at(10)).unwrap();
    assert!(!same.created && same.incarnation == first.incarnation && same.state == State::Passing);
    assert!(table.take_changes().is_empty(), "nobody need hear of that");
    assert_eq!(table.tick(at(39)), 0, "but it was a renewal");

    let mut labelled = checked("a", None);
    labelled.labels.insert("k".into(), "v".into());
    assert_eq!(register(&mut table, labelled.clone(), at(11)).unwrap().state, State::Passing, "health holds");
    assert_eq!(table.target(&name("a")), Some(target), "and goes on as it was");

    let mut moved = labelled;
    moved.ports[0].port = PortRange::single(4001).unwrap();
    let moved = register(&mut table, moved, at(12)).unwrap();
    assert_eq!((moved.state, moved.created), (State::Unknown, false), "what moved is looked at anew");
    assert_eq!(table.target(&name("a")).unwrap().address.port(), 4001);
    assert_eq!(table.take_changes().len(), 2);
}

#[test]
fn a_full_catalog_refuses_new_names_only() {
    let mut table = table();
    for n in 0..5 {
        register(&mut table, accepted(&format!("i{n}"), None), at(0)).unwrap();
    }
    assert!(matches!(register(&mut table, accepted("more", None), at(0)), Err(RegistryError::Full(5))));
    register(&mut table, accepted("i3", Some("again")), at(0)).unwrap();
    table.leave(&name("i0"));
    register(&mut table, accepted("more", None), at(0)).unwrap();
}

#[test]
fn after_a_restart_everybody_is_as_before_and_has_a_whole_lease() {
    let mut before = table();
    register(&mut before, checked("a", Some("old")), at(0)).unwrap();
    register(&mut before, checked("a", Some("new")), at(0)).unwrap();
    let target = before.target(&name("a")).unwrap();
    before.observed(&target, State::Passing, "fine".into(), at(1));
    register(&mut before, accepted("gone", None), at(1)).unwrap();
    register(&mut before, Accepted { ttl: Duration::from_secs(90), ..checked("a", Some("new")) }, at(2))
        .unwrap();
    before.tick(at(31));
    let records: Vec<_> = ["a", "gone"].iter().filter_map(|n| before.record(&name(n))).collect();

    let mut table = table();
    table.load(records, at(1000));
    assert_eq!(state(&table, "a"), Some(State::Passing), "still served: no watcher sees a restart");
    assert_eq!(state(&table, "gone"), Some(State::Expired));
    assert!(table.take_changes().is_empty());
    let old = register(&mut table, accepted("a", Some("old")), at(1001));
    assert!(matches!(old, Err(RegistryError::Replaced { .. })), "a former life is remembered");
    assert_eq!(table.tick(at(1089)), 0);
    assert_eq!(table.tick(at(1090)), 1, "a whole lease of its own length");
    table.tick(at(1300));
    assert_eq!(state(&table, "gone"), None);
}

/// What may happen to a catalog.
#[derive(Clone, Debug)]
enum Step {
    Register { name: u8, life: Option<u8>, port: u16, checked: bool, ttl: u64 },
    Renew { name: u8, life: Option<u8> },
    Leave { name: u8, life: Option<u8> },
    Look { name: u8, state: State },
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let life = || prop::option::of(0u8..4);
    prop_oneof![
        4 => (0u8..7, life(), 1u16..3, any::<bool>(), 1u64..40).prop_map(|(name, life, port, checked, ttl)| {
            Step::Register { name, life, port, checked, ttl }
        }),
        2 => (0u8..7, life()).prop_map(|(name, life)| Step::Renew { name, life }),
        1 => (0u8..7, life()).prop_map(|(name, life)| Step::Leave { name, life }),
        3 => (0u8..7, prop::sample::select(&[State::Passing, State::Warning, State::Critical]))
            .prop_map(|(name, state)| Step::Look { name, state }),
        2 => prop_oneof![0u64..20, 100u64..400].prop_map(|seconds| Step::Pass { seconds }),
    ]
}

/// A watcher that knows nothing but the log.
#[derive(Default)]
struct Watcher {
    index: u64,
    seen: BTreeMap<Name, Instance>,
}

impl Watcher {
    fn replay(&mut self, change: &Change) {
        assert!(change.index > self.index, "the index rises with every change");
        self.index = change.index;
        let key = &change.transition.instance().key;
        let before = self.seen.get(&key.name).cloned();
        match &change.transition {
            Transition::Added(now) => {
                assert!(before.as_ref().is_none_or(|before| before.key != now.key), "added twice");
                self.seen.insert(key.name.clone(), now.clone());
            }
            Transition::Changed(now) => {
                assert_eq!(
                    before.as_ref().map(|before| &before.key),
                    Some(&now.key),
                    "changed without being there"
                );
                assert_ne!(before.as_ref(), Some(now), "a change that changes nothing");
                self.seen.insert(key.name.clone(), now.clone());
            }
            Transition::Removed(last) => {
                assert_eq!(before.as_ref(), Some(last), "removed as it was last");
                self.seen.remove(&key.name);
            }
        }
        if !matches!(change.transition, Transition::Removed(_)) {
            assert_eq!(change.previous.as_deref(), before.as_ref(), "what it was before");
        }
    }
}

fn check_against_watcher(table: &mut Table, watcher: &mut Watcher, lives: &BTreeMap<Name, Vec<Incarnation>>) {
    for change in table.take_changes() {
        watcher.replay(&change);
    }
    let snapshot = table.snapshot();
    assert!(snapshot.index() > 0 && (snapshot.index() == watcher.index || watcher.index == 0));
    let listed: Vec<_> = snapshot.iter().map(|instance| (**instance).clone()).collect();
    assert_eq!(
        listed,
        watcher.seen.values().cloned().collect::<Vec<_>>(),
        "the log leads to the snapshot, sorted"
    );
    assert_eq!(snapshot.len(), listed.len());
    let by_service: usize =
        snapshot.services().iter().map(|service| snapshot.service(service.as_str()).len()).sum();
    assert_eq!(by_service, listed.len(), "each instance is found by its service, once");
    for (state, count) in table.counts() {
        assert_eq!(count, listed.iter().filter(|instance| instance.state == state).count(), "{state}");
    }
    for instance in &listed {
        assert_eq!(lives.get(&instance.key.name).and_then(|l| l.last()), Some(&instance.key.incarnation));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: the index rises strictly, who replays the log has the snapshot, refused words change
    /// nothing, a life that was replaced never comes back, and the store has what the table has.
    #[test]
    fn any_history_is_told_without_gaps(steps in prop::collection::vec(step(), 1..120)) {
        let mut table = table();
        let mut watcher = Watcher::default();
        let mut lives: BTreeMap<Name, Vec<Incarnation>> = BTreeMap::new();
        let mut disk: BTreeMap<Name, Record> = BTreeMap::new();
        let mut clock = 0;
        for (number, step) in steps.into_iter().enumerate() {
            let now = at(clock);
            let before = table.snapshot().index();
            let called = |n: u8| name(&format!("i{n}"));
            let text = |l: Option<u8>| l.map(|l| life(&format!("l{l}")));
            let refused = match step {
                Step::Register { name, life: l, port, checked, ttl } => {
                    let mut from = accepted(called(name).as_str(), None);
                    from.incarnation = text(l);
                    from.ports[0].port = PortRange::single(port).unwrap();
                    from.check = checked.then(|| CheckSpec::new(CheckKind::Tcp));
                    from.ttl = Duration::from_secs(ttl);
                    match table.prepare(from, life(&format!("fresh-{number}")), now) {
                        Ok(prepared) => {
                            if prepared.must_store {
                                disk.insert(called(name), prepared.record.clone());
                            }
                            let registered = table.commit(prepared, now);
                            prop_assert_eq!(registered.index, table.snapshot().index());
                            let known = lives.entry(called(name)).or_default();
                            if registered.created {
                                let former = known.iter().rev().take(5).any(|l| *l == registered.incarnation);
                                prop_assert!(!former, "a former life came back");
                                known.push(registered.incarnation);
                            }
                            false
                        }
                        Err(_) => true,
                    }
                }
                Step::Renew { name, life } => table.renew(&called(name), text(life).as_ref(), now).is_err(),
                Step::Leave { name, life } => match table.may_leave(&called(name), text(life).as_ref()) {
                    Ok(()) => {
                        disk.remove(&called(name));
                        table.leave(&called(name));
                        lives.remove(&called(name));
                        false
                    }
                    Err(_) => true,
                },
                Step::Look { name, state } => match table.target(&called(name)) {
                    Some(target) => !table.observed(&target, state, format!("look {number}"), now),
                    None => true,
                },
                Step::Pass { seconds } => {
                    clock += seconds;
                    table.tick(at(clock));
                    false
                }
            };
            if refused {
                prop_assert_eq!(table.snapshot().index(), before, "what is refused changes nothing");
            }
            check_against_watcher(&mut table, &mut watcher, &lives);
            let gone: Vec<_> = lives.keys().filter(|n| table.state(n).is_none()).cloned().collect();
            gone.iter().for_each(|n| drop(lives.remove(n)));
            for (name, record) in table.take_unstored() {
                match record {
                    Some(record) => drop(disk.insert(name, record)),
                    None => drop(disk.remove(&name)),
                }
            }
            let stored: Vec<_> = disk.values().map(|record| &record.instance).collect();
            let truth: Vec<_> = table.snapshot().iter().map(|instance| &**instance).collect();
            prop_assert_eq!(stored, truth);
        }
    }
}
