//! The log and what filters see of it.

use portolan_model::State;

use super::*;

fn instance(name: &str, state: State) -> Arc<Instance> {
    let mut instance: Instance = serde_json::from_value(serde_json::json!({
        "name": name, "incarnation": "i", "service": "s", "node": "n", "addresses": ["192.0.2.1"], "ports": [],
        "state": "unknown", "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
    }))
    .unwrap();
    instance.state = state;
    Arc::new(instance)
}

fn change(index: u64, from: Option<State>, to: State) -> Change {
    let transition = match from {
        Some(_) => Transition::Changed((*instance("a", to)).clone()),
        None => Transition::Added((*instance("a", to)).clone()),
    };
    Change { index, transition, previous: from.map(|state| instance("a", state)) }
}

#[test]
fn who_watches_the_served_ones_sees_the_others_come_and_go() {
    let served = Filter { states: vec![State::Passing, State::Warning], ..Filter::default() };
    let seen = |from, to| {
        change(1, from, to).seen_through(&served).map(|transition| match transition {
            Transition::Added(_) => "added",
            Transition::Changed(_) => "changed",
            Transition::Removed(_) => "removed",
        })
    };
    assert_eq!(seen(None, State::Unknown), None);
    assert_eq!(seen(None, State::Passing), Some("added"));
    assert_eq!(seen(Some(State::Unknown), State::Passing), Some("added"));
    assert_eq!(seen(Some(State::Passing), State::Warning), Some("changed"));
    assert_eq!(seen(Some(State::Warning), State::Critical), Some("removed"));
    assert_eq!(seen(Some(State::Critical), State::Expired), None);
}

#[test]
fn the_log_hands_out_what_it_has_and_says_when_it_has_not() {
    let board = Board::new(Snapshot::new(10), 3);
    let publish = |index| {
        let mut snapshot = Snapshot::new(index);
        snapshot.put(instance("a", State::Passing), index);
        board.publish(snapshot, vec![change(index, None, State::Passing)]);
    };
    let since = |index| match board.changes(index) {
        Changes::Since(changes) => Some(changes.iter().map(|change| change.index).collect::<Vec<_>>()),
        Changes::Resync => None,
    };
    assert_eq!(since(10), Some(vec![]), "nothing has happened");
    assert_eq!(since(9), None, "before this catalog");
    assert_eq!(since(11), None, "not of this catalog");
    (11..=13).for_each(publish);
    assert_eq!(since(10), Some(vec![11, 12, 13]));
    publish(14);
    assert_eq!(since(10), None, "11 was forgotten");
    assert_eq!(since(11), Some(vec![12, 13, 14]));
    assert_eq!(since(14), Some(vec![]));
    assert_eq!(board.snapshot().index(), 14);
    assert_eq!(*board.subscribe().borrow(), 14);
}
