//! Which cluster tests use, and what they do without one.

use std::sync::OnceLock;

use crate::Cluster;

/// The cluster of the test, or the test ends here with a printed reason.
///
/// The cluster is the one that `PORTOLAN_TEST_CLUSTER` names, `test` without it: `cargo xtask cluster up --name test`.
/// With `PORTOLAN_NO_SKIP` set a missing cluster is a failure. `need_cluster!(value)` returns `value`.
#[macro_export]
macro_rules! need_cluster {
    () => {
        $crate::need_cluster!(())
    };
    ($value:expr) => {
        match $crate::test_cluster() {
            Some(cluster) => cluster,
            None => return $value,
        }
    };
}

/// As the cluster's name: these tests are not for this run, as in the first part of `make test`.
const NONE: &str = "none";

/// The name of the tests' cluster.
pub fn test_cluster_name() -> String {
    std::env::var("PORTOLAN_TEST_CLUSTER").unwrap_or_else(|_| "test".to_owned())
}

/// The tests' cluster; without one prints that the current test is skipped, or panics when `PORTOLAN_NO_SKIP` is set.
pub fn test_cluster() -> Option<&'static Cluster> {
    use std::io::Write as _;
    static CLUSTER: OnceLock<Option<Cluster>> = OnceLock::new();
    let cluster = CLUSTER.get_or_init(|| Cluster::find(&test_cluster_name())).as_ref();
    if cluster.is_none() {
        let thread = std::thread::current();
        let (test, reason) = (thread.name().unwrap_or("a test").to_owned(), cluster_problem());
        assert!(
            std::env::var_os("PORTOLAN_NO_SKIP").is_none() || test_cluster_name() == NONE,
            "{test} would be skipped, and PORTOLAN_NO_SKIP forbids that: {reason}"
        );
        // Not `eprintln!`: the test harness swallows what that prints in tests that pass.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {reason}");
    }
    cluster
}

/// Why a test that needs a cluster is skipped.
pub fn cluster_problem() -> String {
    let name = test_cluster_name();
    if name == NONE {
        return "tests on a cluster are run by themselves (Makefile)".to_owned();
    }
    format!("the cluster {name} is not up: cargo xtask cluster up --name {name} --nodes 2")
}
