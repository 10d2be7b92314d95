//! What is promised about processes, with this test process and its children as the processes.

use std::{
    net::TcpListener,
    os::fd::AsRawFd,
    process::{Command, Stdio},
    time::Duration,
};

use portolan_testkit::{eventually, need_root, net::Namespace};

use super::*;

#[test]
fn a_socket_leads_to_the_process_that_has_it_open() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let inode =
        socket_inode(&fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap()).unwrap();
    let owner = owner_of(inode).unwrap();
    assert_eq!(owner.pid, std::process::id());
    assert!(owner.to_string().contains(&format!("(process {})", owner.pid)));
    assert!(inodes_of_tree(std::process::id()).contains(&inode));
    drop(listener);
    assert_eq!(owner_of(0), None);
}

#[test]
fn a_process_that_ended_is_not_alive_also_before_it_is_waited_for() {
    let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let identity = PidIdentity::of(child.id()).unwrap();
    assert!(identity.is_alive());
    assert!(tree(std::process::id()).contains(&child.id()));
    assert!(identity.signal(Signal::KILL).unwrap());
    eventually(Duration::from_secs(10), || !identity.is_alive());
    assert!(!identity.signal(Signal::KILL).unwrap());
    child.wait().unwrap();
    assert_eq!(PidIdentity::of(child.id()).filter(|now| *now == identity), None);
}

#[test]
fn a_number_with_another_start_is_another_process() {
    let own = PidIdentity::own().unwrap();
    assert!(own.is_alive());
    assert!(!PidIdentity { start_time: own.start_time + 1, ..own }.is_alive());
    assert!(!PidIdentity { pid: u32::MAX, ..own }.is_alive());
}

#[test]
fn a_name_with_brackets_and_blanks_does_not_shift_the_fields() {
    let line = b"42 (a) R 1 (\xff) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3\n";
    let stat = Stat::parse(line).unwrap();
    assert_eq!((stat.state, stat.parent, stat.start_time), (b'S', 7, 987_654));
    assert!(Stat::parse(b"42 (a").is_none() && Stat::parse(b"").is_none());
}

#[test]
fn processes_are_found_by_the_namespace_they_are_in() {
    need_root!();
    let namespace = Namespace::new();
    let inode = crate::namespace::Namespace::open(&namespace.path()).unwrap().inode();
    assert_eq!(processes_in_namespace(inode), []);
    let mut child = namespace.command("cat").stdin(Stdio::piped()).spawn().unwrap();
    eventually(Duration::from_secs(10), || !processes_in_namespace(inode).is_empty());
    assert_eq!(processes_in_namespace(inode)[0].pid, child.id());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(processes_in_namespace(inode), []);
}
