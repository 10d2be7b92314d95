//! `kill -9` between any two transactions of a start; the next start finishes it.

use std::process::{Command, Stdio};

use portolan_testkit::{
    need_root,
    net::{Namespace, private_namespace},
};

use crate::{
    assert_planned, in_kernel,
    objects::{many, some},
    start,
};

const CHILD: &str = "PORTOLAN_TEST_SERVICES_CHILD";

/// Not a test: what the child process of the others does.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let (services, slices) = objects();
    start(&services, &slices).leave();
}

fn objects() -> (Vec<portolan_model::Service>, Vec<portolan_model::EndpointSlice>) {
    let ((mut services, mut slices), (plain, theirs)) = (some(), many(1_500));
    services.extend(plain.into_iter().skip(100));
    slices.extend(theirs.into_iter().skip(100));
    (services, slices)
}

/// Starts a child in the namespace of the calling thread; says whether it ended by itself.
fn run_child(kill_at: Option<u64>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["crash::child", "--exact"]).env(CHILD, "1").stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(number) = kill_at {
        command.env("PORTOLAN_TEST_KILL_AT", format!("services.start.{number}"));
    }
    command.status().unwrap().success()
}

#[test]
fn a_start_that_is_killed_at_any_step_is_finished_by_the_next_one() {
    need_root!();
    let (services, slices) = objects();
    let mut killed = 0;
    loop {
        let ended = private_namespace(|| {
            let ended = run_child(Some(killed));
            // At no moment is a packet led to a backend that is not there.
            if let Some(table) = in_kernel() {
                let count = |name: &str| table.find_set(name).map_or(0, |filled| filled.elements.len());
                assert!(count("services4") == 0 || count("backends4") >= 2 * 1_400, "killed at {killed}");
            }
            let _plane = start(&services, &slices);
            assert_planned(&services, &slices);
            ended
        });
        if ended {
            break;
        }
        killed += 1;
    }
    assert!(killed > 3, "only {killed} steps");
}

#[test]
fn a_killed_owner_leaves_packets_flowing_and_a_table_that_the_next_one_leaves_alone() {
    need_root!();
    let namespace = Namespace::new();
    let (services, slices) = objects();
    namespace.run(|| {
        assert!(run_child(None));
        assert_planned(&services, &slices);
        let before = crate::generation();
        let _plane = start(&services, &slices);
        assert_eq!(crate::generation(), before);
    });
}
