//! Made, found, mended, removed: also when a crash or somebody else came between.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Duration,
};

use portolan_model::Name;
use portolan_netlink::{namespace::Namespace, route::Rtnl};
use portolan_sandbox::{Sandbox, SandboxConfig, SandboxError, Sandboxes};
use portolan_testkit::{eventually, need_root, net::private_machine};

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn open() -> Sandboxes {
    Sandboxes::open(SandboxConfig::default()).unwrap()
}

fn create(sandboxes: &Sandboxes, text: &str) -> Sandbox {
    try_create(sandboxes, text).unwrap()
}

fn try_create(sandboxes: &Sandboxes, text: &str) -> Result<Sandbox, SandboxError> {
    let name = name(text);
    let (v4, v6) = sandboxes.choose_addresses(&name, &[].into()).unwrap();
    sandboxes.create(&name, v4, v6)
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// All that a sandbox leaves traces in, to be compared before and after.
fn traces() -> (BTreeSet<String>, BTreeSet<String>, Vec<String>) {
    let rtnl = Rtnl::open().unwrap();
    (
        rtnl.links().unwrap().into_iter().map(|link| link.name).collect(),
        rtnl.routes().unwrap().into_iter().map(|route| route.destination.to_string()).collect(),
        Namespace::list_named("").unwrap(),
    )
}

#[test]
fn what_was_made_is_listed_and_destroying_leaves_nothing() {
    need_root!();
    private_machine(|| {
        let before = traces();
        let sandboxes = open();
        let (one, other) = (create(&sandboxes, "web-0"), create(&sandboxes, "web-1"));
        assert!(one.link.starts_with("pt-") && one.link.len() == 11 && one.link != other.link);
        assert_eq!(sandboxes.list().unwrap(), [name("web-0"), name("web-1")]);
        assert_eq!(sandboxes.path(&one.name), one.namespace);
        for name in sandboxes.list().unwrap() {
            sandboxes.destroy(&name).unwrap();
            sandboxes.destroy(&name).unwrap();
        }
        assert_eq!(sandboxes.list().unwrap(), []);
        sandboxes.close().unwrap();
        assert_eq!(traces(), before);
        assert_eq!(Rtnl::open().unwrap().addresses().unwrap().len(), 2, "127.0.0.1 and ::1");
    });
}

#[test]
fn a_sandbox_is_made_once() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        create(&sandboxes, "web-0");
        let before = traces();
        assert!(matches!(try_create(&sandboxes, "web-0"), Err(SandboxError::Exists(_))));
        assert_eq!(traces(), before, "the one that was there is untouched");
    });
}

#[test]
fn processes_that_are_still_inside_are_killed_and_no_others() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        let (one, other) = (create(&sandboxes, "web-0"), create(&sandboxes, "web-1"));
        let start = |sandbox: &Sandbox| {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped());
            Namespace::open(&sandbox.namespace).unwrap().run(|| command.spawn().unwrap()).unwrap()
        };
        let (mut victim, mut survivor) = (start(&one), start(&other));
        sandboxes.destroy(&one.name).unwrap();
        eventually(Duration::from_secs(5), || victim.try_wait().unwrap().is_some());
        assert!(survivor.try_wait().unwrap().is_none());
        survivor.kill().unwrap();
        survivor.wait().unwrap();
    });
}

#[test]
fn leaves_of_a_crash_are_found_and_destroyed() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        let whole = create(&sandboxes, "whole");
        // The name went, and a process keeps the namespace with the link in it.
        let hidden = create(&sandboxes, "hidden");
        let handle = Namespace::open(&hidden.namespace).unwrap();
        assert!(Namespace::delete_named("portolan-hidden").unwrap());
        // The namespace without a link, the file without a namespace.
        Namespace::create_named("portolan-bare").unwrap();
        std::fs::write("/run/netns/portolan-empty", "").unwrap();
        // Not ours.
        Namespace::create_named("other").unwrap();
        std::fs::write("/run/netns/portolan-Not_A_Name", "").unwrap();
        drop(sandboxes);

        let sandboxes = open();
        let found = sandboxes.list().unwrap();
        assert_eq!(found, ["bare", "empty", "hidden", "whole"].map(name));
        for name in found {
            sandboxes.destroy(&name).unwrap();
        }
        assert_eq!(sandboxes.list().unwrap(), []);
        assert_eq!(Namespace::list_named("").unwrap(), ["other", "portolan-Not_A_Name"]);
        let rtnl = Rtnl::open().unwrap();
        assert_eq!((rtnl.link(&whole.link).unwrap(), rtnl.link(&hidden.link).unwrap()), (None, None));
        drop(handle);
    });
}

#[test]
fn a_name_whose_old_namespace_lives_on_without_it_gets_a_new_one() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        let old = create(&sandboxes, "web-0");
        let handle = Namespace::open(&old.namespace).unwrap();
        Namespace::delete_named("portolan-web-0").unwrap();
        let new = create(&sandboxes, "web-0");
        assert_eq!(new, old);
        assert_ne!(Namespace::open(&new.namespace).unwrap().inode(), handle.inode());
        let left = handle.run(|| Rtnl::open().unwrap().link("eth0").unwrap()).unwrap();
        assert_eq!(left, None, "the old one has no way out any more");
    });
}

#[test]
fn what_is_missing_is_mended_while_the_processes_run_on() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        let made = create(&sandboxes, "web-0");
        let inode = Namespace::open(&made.namespace).unwrap().inode();
        let own = made.v4.unwrap();
        let rtnl = Rtnl::open().unwrap();
        let half_made = || {
            ip(&format!("link del {}", made.link));
            ip(&format!("link add {} type veth peer name eth0 netns portolan-web-0", made.link));
        };
        let breakages: [&dyn Fn(); 4] = [
            &half_made,
            &|| ip(&format!("route del {own}/32")),
            &|| ip(&format!("link set {} down", made.link)),
            &|| ip(&format!("link del {}", made.link)),
        ];
        for (number, breakage) in breakages.into_iter().enumerate() {
            breakage();
            let mended = sandboxes.ensure(&made.name, made.v4, made.v6).unwrap();
            assert_eq!(mended, made, "breakage {number}");
            let way = rtnl.lookup(own.into()).unwrap().unwrap();
            assert_eq!(way.interface, Some(rtnl.link(&made.link).unwrap().unwrap().index));
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.send_to(b"x", (own, 9)).unwrap();
        }
        assert_eq!(Namespace::open(&made.namespace).unwrap().inode(), inode, "it is the same namespace");
    });
}

#[test]
fn nothing_is_left_of_a_sandbox_that_could_not_be_made() {
    need_root!();
    private_machine(|| {
        let sandboxes = Sandboxes::open(SandboxConfig { mtu: Some(1), ..SandboxConfig::default() }).unwrap();
        let before = traces();
        let error = try_create(&sandboxes, "web-0").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("cannot make the network of web-0") && !text.contains("could not remove"),
            "{text}"
        );
        assert_eq!(traces(), before);
    });
}

#[test]
fn a_link_name_that_another_has_is_passed_over() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        let first = create(&sandboxes, "web-0").link;
        sandboxes.destroy(&name("web-0")).unwrap();
        ip(&format!("link add {first} type veth peer name x"));
        ip(&format!("link set {first} alias somebody"));
        let second = create(&sandboxes, "web-0");
        assert_ne!(second.link, first);
        sandboxes.destroy(&second.name).unwrap();
        let rtnl = Rtnl::open().unwrap();
        assert!(rtnl.link(&first).unwrap().is_some() && rtnl.link(&second.link).unwrap().is_none());
    });
}

#[test]
fn a_subnet_that_another_interface_uses_is_refused() {
    need_root!();
    private_machine(|| {
        ip("link add lan0 type veth peer name x");
        ip("address add 10.213.7.7/24 dev lan0");
        let error = Sandboxes::open(SandboxConfig::default()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the subnet 10.213.0.0/16 for instances is in use: lan0 has 10.213.7.7/24. Choose another subnet"
        );
        let narrow = SandboxConfig { v4: "192.0.2.0/31".parse().ok(), ..SandboxConfig::default() };
        assert!(matches!(Sandboxes::open(narrow), Err(SandboxError::SubnetTooSmall(_))));
        let none = SandboxConfig { v4: None, v6: None, ..SandboxConfig::default() };
        assert!(matches!(Sandboxes::open(none), Err(SandboxError::NoSubnet)));
    });
}

#[test]
fn the_gateways_can_be_bound_before_there_is_a_sandbox_and_stay_while_there_is_one() {
    need_root!();
    private_machine(|| {
        let sandboxes = open();
        for gateway in sandboxes.config().gateways() {
            std::net::UdpSocket::bind((gateway, 53)).unwrap();
        }
        let made = create(&sandboxes, "web-0");
        sandboxes.close().unwrap();
        assert!(Rtnl::open().unwrap().lookup(made.v4.unwrap().into()).unwrap().is_some());
        let sandboxes = open();
        sandboxes.destroy(&made.name).unwrap();
        sandboxes.close().unwrap();
        std::net::UdpSocket::bind("10.213.0.1:53").unwrap_err();
    });
}
