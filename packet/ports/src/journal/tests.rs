//! A journal after every kind of accident.

use std::ffi::CStr;

use portolan_testkit::{need_root, net::private_machine};
use rustix::mount::{MountFlags, mount};
use tempfile::TempDir;

use super::*;

type Opened = (Journal, Vec<String>, Vec<Damage>);

fn open(folder: &TempDir) -> Opened {
    Journal::open(&folder.path().join("leases.journal")).unwrap()
}

fn with(records: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).0.append(records).unwrap();
    folder
}

fn bytes(folder: &TempDir) -> Vec<u8> {
    fs::read(folder.path().join("leases.journal")).unwrap()
}

fn put(folder: &TempDir, bytes: &[u8]) {
    fs::write(folder.path().join("leases.journal"), bytes).unwrap();
}

#[test]
fn what_was_written_is_read_in_order() {
    let folder = with(&["one", "two\nlines"]);
    open(&folder).0.append(&["three"]).unwrap();
    let (_, records, damage) = open(&folder);
    assert_eq!(records, ["one", "two\nlines", "three"]);
    assert_eq!(damage, []);
}

#[test]
fn a_journal_cut_anywhere_loses_only_what_was_cut() {
    let folder = with(&["one", "two", "three"]);
    let all = bytes(&folder);
    let ends: Vec<usize> = (0..all.len()).filter(|&i| all[i] == b'\n').map(|i| i + 1).collect();
    for cut in 0..=all.len() {
        put(&folder, &all[..cut]);
        let (mut journal, records, damage) = open(&folder);
        let whole = ends.iter().filter(|&&end| end <= cut).count();
        assert_eq!(records, ["one", "two", "three"][..whole], "cut at {cut}");
        assert_eq!(damage.is_empty(), cut == 0 || ends.contains(&cut), "cut at {cut}: {damage:?}");
        journal.append(&["after"]).unwrap();
        let (_, records, damage) = open(&folder);
        assert_eq!(records.last().unwrap(), "after");
        assert_eq!((records.len(), damage.len()), (whole + 1, 0), "cut at {cut}");
    }
}

#[test]
fn a_flipped_bit_anywhere_costs_that_record_and_no_other_and_is_told() {
    let folder = with(&["one", "two", "three"]);
    let all = bytes(&folder);
    for index in 0..all.len() {
        let mut flipped = all.clone();
        flipped[index] ^= 0x10;
        put(&folder, &flipped);
        let (mut journal, records, damage) = open(&folder);
        // A line break that became something else joins two lines, and one within a line parts it.
        assert!(records.len() == 2 || records.len() == 1, "{index}: {records:?}");
        assert!(records.iter().all(|r| ["one", "two", "three"].contains(&r.as_str())));
        assert!(!damage.is_empty(), "{index}");
        for damage in damage {
            if let Damage::Corrupt { copy, .. } = damage {
                assert_eq!(fs::read(&copy).unwrap(), flipped, "the file as it was is kept");
                fs::remove_file(copy).unwrap();
            }
        }
        journal.rewrite(&records).unwrap();
        let (_, again, damage) = open(&folder);
        assert_eq!((again, damage), (records, vec![]));
    }
}

#[test]
fn rewriting_keeps_what_it_is_given_and_goes_on() {
    let folder = with(&["one", "two"]);
    let (mut journal, _, _) = open(&folder);
    journal.rewrite(&["two"]).unwrap();
    journal.append(&["three"]).unwrap();
    assert_eq!(open(&folder).1, ["two", "three"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file is left");
}

#[test]
fn it_asks_to_be_rewritten_when_most_of_it_is_history() {
    let folder = with(&[]);
    let (mut journal, _, _) = open(&folder);
    let long = "x".repeat(600 << 10);
    journal.append(&[&long]).unwrap();
    assert!(!journal.wants_rewrite(), "small");
    journal.rewrite(&[&long]).unwrap();
    journal.append(&[&long]).unwrap();
    assert!(!journal.wants_rewrite(), "half of it may be current");
    journal.append(&[&long, &long, &long]).unwrap();
    assert!(journal.wants_rewrite());
}

#[test]
fn a_full_disk_refuses_the_record_and_keeps_the_rest() {
    need_root!();
    private_machine(|| {
        let folder = tempfile::tempdir().unwrap();
        let options: &CStr = c"size=64k";
        mount("portolan-test", folder.path(), "tmpfs", MountFlags::empty(), options).unwrap();
        let (mut journal, _, _) = open(&folder);
        journal.append(&["one"]).unwrap();
        let before = bytes(&folder);
        let error = journal.append(&["x".repeat(100 << 10)]).unwrap_err().to_string();
        assert!(error.ends_with("nothing was changed: make room on that disk"), "{error}");
        assert_eq!(bytes(&folder), before);
        let error = journal.rewrite(&["x".repeat(100 << 10)]).unwrap_err().to_string();
        assert!(error.contains("No space left on device"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "the attempt is removed");
        journal.append(&["two"]).unwrap();
        drop(journal);
        let (_, records, damage) = open(&folder);
        assert_eq!((records, damage), (vec!["one".to_owned(), "two".to_owned()], vec![]));
        rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    });
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_that_names_the_file() {
    let error = Journal::open::<String>(Path::new("/proc/nowhere/leases.journal")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the journal of leases /proc/nowhere/leases.journal: "), "{error}");
}
