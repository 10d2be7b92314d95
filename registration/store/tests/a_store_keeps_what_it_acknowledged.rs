//! What any store promises, and what only a file can show: that a crash, a lock, a damaged file and a full disk end
//! as they should.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use portolan_registry::store::{Record, Store, Stored, Write};
use portolan_store::{MemoryStore, RedbStore};
use proptest::prelude::*;

fn record(name: &str, note: u32) -> Record {
    let instance = serde_json::from_value(serde_json::json!({
        "name": name, "incarnation": format!("i{note}"), "service": "s", "node": "n", "addresses": ["192.0.2.1"],
        "ports": [], "state": "passing", "since": "2026-01-01T00:00:00Z", "registered": "2026-01-01T00:00:00Z",
    }));
    Record { instance: instance.unwrap(), ttl_ms: 30_000, former: Vec::new() }
}

fn put(name: &str, note: u32) -> Write {
    Write::Put(Box::new(record(name, note)))
}

fn sorted(stored: Stored) -> (Vec<Record>, u64) {
    let mut records = stored.records;
    records.sort_by(|a, b| a.instance.key.cmp(&b.instance.key));
    (records, stored.index)
}

fn arbitrary_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        4 => (0u8..6, 0u32..100).prop_map(|(n, note)| put(&format!("i{n}"), note)),
        2 => (0u8..6).prop_map(|n| Write::Remove(format!("i{n}").parse().unwrap())),
        1 => (0u64..1000).prop_map(Write::Index),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Memory and file agree with a plain map after any batches, and the file also after it was opened again.
    #[test]
    fn any_history_of_writes_is_kept(batches in prop::collection::vec(prop::collection::vec(arbitrary_write(), 0..6), 0..8)) {
        let folder = tempfile::tempdir().unwrap();
        let mut file = RedbStore::open(folder.path()).unwrap();
        let mut memory = MemoryStore::new();
        let (mut model, mut index) = (BTreeMap::new(), 0);
        for batch in &batches {
            file.write(batch).unwrap();
            memory.write(batch).unwrap();
            for write in batch {
                match write {
                    Write::Put(record) => drop(model.insert(record.instance.key.name.clone(), (**record).clone())),
                    Write::Remove(name) => drop(model.remove(name)),
                    Write::Index(to) => index = *to,
                }
            }
        }
        let expected = (model.into_values().collect::<Vec<_>>(), index);
        prop_assert_eq!(&sorted(memory.load_all().unwrap()), &expected);
        prop_assert_eq!(&sorted(file.load_all().unwrap()), &expected);
        drop(file);
        prop_assert_eq!(&sorted(RedbStore::open(folder.path()).unwrap().load_all().unwrap()), &expected);
    }
}

#[test]
fn a_second_process_is_told_that_the_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let _first = RedbStore::open(folder.path()).unwrap();
    let error = RedbStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("catalog.redb is in use by another process"), "{error}");
}

#[test]
fn a_missing_folder_and_a_damaged_file_are_said_to_be_so() {
    let folder = tempfile::tempdir().unwrap();
    let error = RedbStore::open(&folder.path().join("none")).unwrap_err().to_string();
    assert!(error.ends_with("its folder does not exist"), "{error}");

    let file = folder.path().join("catalog.redb");
    fs::write(&file, "this was a catalog once").unwrap();
    let error = RedbStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("is no catalog or is damaged") && error.contains("move it away"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"this was a catalog once", "a file that is not ours is left alone");
}

#[test]
fn a_file_cut_short_is_an_error_and_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(folder.path()).unwrap();
    store.write(&(0..200).map(|n| put(&format!("i{n}"), n)).collect::<Vec<_>>()).unwrap();
    drop(store);
    let file = folder.path().join("catalog.redb");
    let whole = fs::read(&file).unwrap();
    for length in [1, 100, 4096, 8192, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        let result = RedbStore::open(folder.path()).and_then(|mut store| store.load_all());
        assert!(result.is_err(), "a file cut to {length} of {} bytes was read: {result:?}", whole.len());
    }
}

#[test]
fn a_later_layout_is_refused_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    drop(RedbStore::open(folder.path()).unwrap());
    let database = redb::Database::open(folder.path().join("catalog.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(redb::TableDefinition::<&str, u64>::new("meta"))
        .unwrap()
        .insert("version", 2)
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = RedbStore::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has layout 2, and this program reads layout 1"), "{error}");
}

/// The other half of the next test: writes one record after the other and says after each that it was acknowledged.
#[test]
#[ignore = "is run by everything_acknowledged_survives_kill_minus_nine"]
fn child_that_writes_until_it_is_killed() {
    let Ok(folder) = std::env::var("PORTOLAN_TEST_FOLDER") else { return };
    let mut store = RedbStore::open(Path::new(&folder)).unwrap();
    for n in 0..100_000 {
        store.write(&[put(&format!("i{n}"), n), Write::Index(u64::from(n))]).unwrap();
        eprintln!("acknowledged {n}");
    }
}

#[test]
fn everything_acknowledged_survives_kill_minus_nine() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3_u32 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env("PORTOLAN_TEST_FOLDER", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let acknowledged =
            |line: &str| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u32>().ok());
        let mut last = None;
        for line in lines.by_ref() {
            last = acknowledged(&line.unwrap()).or(last);
            if last >= Some(40 + round * 7) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said between our decision and its death counts too.
        for line in lines.map_while(Result::ok) {
            last = acknowledged(&line).or(last);
        }
        let last = last.expect("the child acknowledged something");
        let stored = RedbStore::open(folder.path()).unwrap().load_all().unwrap();
        assert!(stored.index >= u64::from(last), "round {round}: {} < {last}", stored.index);
        for n in 0..=last {
            let name = format!("i{n}");
            assert!(stored.records.iter().any(|r| r.instance.key.name.as_str() == name), "{name} is gone");
        }
    }
}

/// After an I/O error redb refuses everything until the file is opened again: room on the disk must be enough.
#[test]
fn a_full_disk_is_said_and_writes_go_on_when_there_is_room() {
    portolan_testkit::need_root!();
    let folder = tempfile::tempdir().unwrap();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(folder.path()).status().unwrap();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "portolan-test"]).success());
    let result = std::panic::catch_unwind(|| {
        let mut store = RedbStore::open(folder.path()).unwrap();
        store.write(&[put("kept", 1)]).unwrap();
        let ballast = folder.path().join("ballast");
        let fill = || fs::write(&ballast, vec![1; 8 << 20]).is_err();
        assert!(fill(), "the disk is full");
        let mut note = 0;
        let error = loop {
            note += 1;
            assert!(note < 10_000, "the full disk was never noticed");
            if let Err(error) = store.write(&[put(&format!("more-{note}"), note)]) {
                break error.to_string();
            }
        };
        assert!(error.contains("the disk is full") && error.contains("catalog.redb"), "{error}");
        assert!(store.write(&[put("still-full", 1)]).is_err());
        fs::remove_file(&ballast).unwrap();
        store.write(&[put("after", 1)]).unwrap();
        let names: Vec<_> =
            store.load_all().unwrap().records.iter().map(|r| r.instance.key.name.to_string()).collect();
        for expected in (1..note).map(|n| format!("more-{n}")).chain(["kept".to_owned(), "after".to_owned()])
        {
            assert!(names.contains(&expected), "{expected} is gone");
        }
    });
    assert!(mount(&["umount"]).success());
    result.unwrap();
}
