//! What namespaces promise, against the kernel. Each test has mounts of its own, so the names collide with nobody's.

use portolan_testkit::{need_root, net::private_machine};

use super::*;

fn interfaces() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
}

#[test]
fn a_named_namespace_is_one_of_its_own_and_ip_netns_finds_it() {
    need_root!();
    private_machine(|| {
        let here = Namespace::current().unwrap();
        let made = Namespace::create_named("portolan-a").unwrap();
        assert_ne!(here.inode(), made.inode());
        assert_eq!(Namespace::open_named("portolan-a").unwrap().inode(), made.inode());
        assert_eq!(made.run(interfaces).unwrap(), ["lo"]);
        let output =
            std::process::Command::new("ip").args(["netns", "exec", "portolan-a", "ip", "link"]).output();
        assert!(String::from_utf8(output.unwrap().stdout).unwrap().contains("lo:"));
        assert!(Namespace::delete_named("portolan-a").unwrap());
    });
}

#[test]
fn the_calling_thread_stays_where_it_is() {
    need_root!();
    private_machine(|| {
        let before = Namespace::current().unwrap().inode();
        let other = Namespace::create().unwrap();
        let inside = other.run(|| Namespace::current().unwrap().inode()).unwrap();
        assert_eq!(inside, other.inode());
        assert_eq!(Namespace::current().unwrap().inode(), before);
    });
}

#[test]
fn deleting_is_idempotent_and_listing_is_by_prefix() {
    need_root!();
    private_machine(|| {
        for name in ["portolan-b", "portolan-a", "other"] {
            Namespace::create_named(name).unwrap();
        }
        assert_eq!(Namespace::list_named("portolan-").unwrap(), ["portolan-a", "portolan-b"]);
        assert!(matches!(Namespace::create_named("portolan-a"), Err(NamespaceError::Exists { .. })));
        assert!(Namespace::delete_named("portolan-a").unwrap());
        assert!(!Namespace::delete_named("portolan-a").unwrap());
        assert!(Namespace::open_named("portolan-a").unwrap_err().is_absent());
        assert_eq!(Namespace::list_named("").unwrap(), ["other", "portolan-b"]);
    });
}

#[test]
fn what_a_crash_left_half_made_is_listed_absent_and_deleted() {
    need_root!();
    private_machine(|| {
        // The file without the mount.
        std::fs::write("/run/netns/portolan-half", "").unwrap();
        assert_eq!(Namespace::list_named("portolan-").unwrap(), ["portolan-half"]);
        assert!(Namespace::open_named("portolan-half").unwrap_err().is_absent());
        assert!(Namespace::delete_named("portolan-half").unwrap());
    });
}

#[test]
fn names_that_are_paths_are_refused() {
    for name in ["", ".", "..", "a/b", "../x", "a b", "a\0"] {
        assert!(matches!(Names::default().path(name), Err(NamespaceError::BadName { .. })), "{name:?}");
    }
}

#[test]
fn a_panic_inside_goes_on_outside() {
    need_root!();
    let result = std::panic::catch_unwind(|| Namespace::current().unwrap().run(|| panic!("inside")));
    assert_eq!(result.unwrap_err().downcast_ref::<&str>(), Some(&"inside"));
}
