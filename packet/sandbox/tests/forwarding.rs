//! Forwarding is on while it is wanted, and afterwards everything is as it was.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use portolan_netlink::sysctl::{self, read, write};
use portolan_sandbox::Forwarding;
use portolan_testkit::{need_root, net::private_machine};

/// Every setting that forwarding could touch.
fn settings() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (family, names) in [
        ("net/ipv4/conf", ["forwarding", "accept_redirects", "rp_filter"]),
        ("net/ipv6/conf", ["forwarding", "accept_ra", "accept_redirects"]),
    ] {
        for interface in sysctl::list(family).unwrap() {
            for name in names {
                let path = format!("{family}/{interface}/{name}");
                all.insert(path.clone(), read(&path).unwrap());
            }
        }
    }
    all.insert("net/ipv4/ip_forward".to_owned(), read("net/ipv4/ip_forward").unwrap());
    all
}

/// A machine that does not forward, with two interfaces: `up0` has its default route from advertisements, `odd0` is
/// set to forward although the machine does not.
fn machine(test: impl FnOnce(PathBuf) + Send) {
    private_machine(|| {
        let output = Command::new("ip").args("link add up0 type veth peer name odd0".split(' ')).output();
        assert!(output.unwrap().status.success());
        write("net/ipv4/ip_forward", "0").unwrap();
        write("net/ipv6/conf/all/forwarding", "0").unwrap();
        write("net/ipv6/conf/up0/accept_ra", "1").unwrap();
        write("net/ipv6/conf/odd0/accept_ra", "0").unwrap();
        write("net/ipv4/conf/odd0/forwarding", "1").unwrap();
        let folder = tempfile::tempdir().unwrap();
        test(folder.path().join("sysctls.json"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no file is left");
    });
}

#[test]
fn it_is_on_for_both_families_and_everything_is_put_back() {
    need_root!();
    machine(|file| {
        let before = settings();
        let forwarding = Forwarding::open(&file).unwrap();
        for path in ["net/ipv4/ip_forward", "net/ipv4/conf/up0/forwarding", "net/ipv6/conf/up0/forwarding"] {
            assert_eq!(read(path).unwrap(), "1", "{path}");
        }
        assert_eq!(read("net/ipv6/conf/up0/accept_ra").unwrap(), "2", "it goes on listening to its router");
        assert_eq!(read("net/ipv6/conf/odd0/accept_ra").unwrap(), "0", "it did not listen before");
        forwarding.restore().unwrap();
        assert_eq!(settings(), before);
    });
}

#[test]
fn after_a_crash_the_next_one_puts_back_what_was_before_the_first() {
    need_root!();
    machine(|file| {
        let before = settings();
        // Dropping does what a crash does: nothing.
        drop(Forwarding::open(&file).unwrap());
        drop(Forwarding::open(&file).unwrap());
        assert_eq!(read("net/ipv4/ip_forward").unwrap(), "1");
        Forwarding::open(&file).unwrap().restore().unwrap();
        assert_eq!(settings(), before);
    });
}

#[test]
fn a_crash_before_anything_was_changed_does_no_harm() {
    need_root!();
    machine(|file| {
        let before = settings();
        let forwarding = Forwarding::open(&file).unwrap();
        let stored = fs::read(&file).unwrap();
        forwarding.restore().unwrap();
        fs::write(&file, stored).unwrap();
        Forwarding::open(&file).unwrap().restore().unwrap();
        assert_eq!(settings(), before);
    });
}

#[test]
fn what_somebody_else_changed_meanwhile_is_left_alone() {
    need_root!();
    machine(|file| {
        let forwarding = Forwarding::open(&file).unwrap();
        write("net/ipv6/conf/up0/accept_ra", "0").unwrap();
        forwarding.restore().unwrap();
        assert_eq!(read("net/ipv6/conf/up0/accept_ra").unwrap(), "0");
        assert_eq!(read("net/ipv4/ip_forward").unwrap(), "0");
    });
}

#[test]
fn a_machine_that_forwards_already_is_left_as_it_is() {
    need_root!();
    machine(|file| {
        write("net/ipv4/ip_forward", "1").unwrap();
        write("net/ipv6/conf/all/forwarding", "1").unwrap();
        let before = settings();
        let forwarding = Forwarding::open(&file).unwrap();
        assert_eq!(settings(), before);
        forwarding.restore().unwrap();
        assert_eq!(settings(), before);
    });
}

#[test]
fn a_file_of_another_boot_or_one_that_is_cut_off_is_not_believed() {
    need_root!();
    machine(|file| {
        let before = settings();
        drop(Forwarding::open(&file).unwrap());
        let text = fs::read_to_string(&file).unwrap();
        let boot = read("kernel/random/boot_id").unwrap();
        Forwarding::open(&file).unwrap().restore().unwrap();
        assert_eq!(settings(), before);
        // The next boot came with forwarding on, by the administrator.
        write("net/ipv4/ip_forward", "1").unwrap();
        let before = settings();
        for stale in [text.replace(&boot, "another"), text[..text.len() / 2].to_owned(), String::new()] {
            fs::write(&file, stale).unwrap();
            Forwarding::open(&file).unwrap().restore().unwrap();
            assert_eq!(settings(), before);
        }
    });
}

#[test]
fn nothing_is_changed_when_the_values_cannot_be_stored() {
    need_root!();
    machine(|file| {
        let before = settings();
        let error = Forwarding::open(&file.join("no-such-folder/file")).unwrap_err();
        assert!(error.to_string().contains("Nothing was changed"), "{error}");
        assert_eq!(settings(), before);
    });
}
