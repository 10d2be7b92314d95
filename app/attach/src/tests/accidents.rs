//! What is left when a process is killed in the middle, when the machine's rules are flushed, when the holder dies.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

use portolan_testkit::ask as client;
use rustix::process::{Pid, Signal, kill_process};

use super::{
    site::{ROLE, Site, ask, config, held_for, names, on_host, this_program, wish},
    *,
};

/// How often a process is killed, each time a little later in its work.
const KILLS: u32 = 60;

/// Not a test by itself: attaches and detaches without end, and says each time what it has done. Every second one is
/// what a CNI plugin does alone, every other what an agent does.
#[test]
fn the_victim() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let Some(rest) = role.strip_prefix("victim,") else { return };
    let words: Vec<&str> = rest.split(',').collect();
    let [plane, folder, namespace] = words[..] else { panic!("{role}") };
    let plane = if plane == "live" { Plane::Live } else { Plane::OneShot };
    let open = || match plane {
        Plane::Live => Attach::open(config(folder.as_ref(), plane)).unwrap().0,
        Plane::OneShot => Attach::take_turn(config(folder.as_ref(), plane)).unwrap(),
    };
    let mut attach = Some(open());
    println!("open");
    for turn in 0.. {
        let mut now = attach.take().unwrap_or_else(open);
        let name = format!("default/web-{}", turn % 3);
        // Each of them comes, is taken over by its next sandbox, asks for something else, and goes.
        let life = format!("life-{}", turn / 3);
        let step = (turn / 3) % 4;
        let specs: &[&str] =
            if step == 2 { &["http=:80", "more/udp:20"] } else { &["http=:80", "game/tcp+udp"] };
        if step == 3 {
            let last: Incarnation = format!("life-{}", turn / 3 - 1).parse().unwrap();
            now.detach(&name.parse().unwrap(), &last).unwrap();
        } else {
            now.attach(wish(namespace.as_ref(), 1, &name, &life, specs)).unwrap();
        }
        match plane {
            Plane::Live => attach = Some(now),
            Plane::OneShot => now.close(),
        }
        println!("{name} {}", if step == 3 { "gone" } else { &life });
    }
}

struct Victim {
    child: Child,
    said: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Victim {
    fn start(site: &Site, plane: Plane) -> Self {
        let plane = if plane == Plane::Live { "live" } else { "turn" };
        let role =
            format!("victim,{plane},{},{}", site.folder.path().display(), site.pod(1).path().display());
        let words = this_program("accidents::the_victim", &role);
        let mut child = Command::new("env").args(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        while said.next().unwrap().unwrap() != "open" {}
        Self { child, said }
    }

    /// Kills it and says what it has said it has done: the last word about each instance.
    fn kill(mut self) -> std::collections::BTreeMap<String, String> {
        kill_process(Pid::from_child(&self.child), Signal::KILL).unwrap();
        self.child.wait().unwrap();
        let lines = self.said.map_while(Result::ok);
        lines.filter_map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()))).collect()
    }
}

#[test]
fn wherever_a_process_is_killed_journal_holds_and_rules_agree_afterwards() {
    need_root!();
    for plane in [Plane::OneShot, Plane::Live] {
        on_host(2, |site| {
            let (mut attach, _) = site.open(plane);
            let survivor =
                attach.attach(site.wish(0, "default/db-0", "s", &["db=:80", "db6/udp=9000:80"])).unwrap();
            let port = survivor.ports[0].host.first();
            let _servers = [site.serve(0, &[80]), site.serve(1, &[80])];
            attach.close();
            let mut random = 7_u64;
            for round in 0..KILLS {
                let victim = Victim::start(site, plane);
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                std::thread::sleep(Duration::from_micros(random >> 49));
                let done = victim.kill();
                // Packets flow on, also before anybody has looked.
                assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-0"), "{plane:?} {round}");

                let (mut attach, recovered) = site.open(plane);
                let why = format!("{plane:?} {round}: {done:?} {:?}", names(&attach));
                assert!(recovered.unheld.is_empty() && recovered.dropped.is_empty(), "{why} {recovered:?}");
                assert!(attach.leases().any(|lease| *lease == survivor), "{why}");
                assert_eq!(site.held(), held_for(&attach), "{why}");
                for lease in attach.leases().cloned().collect::<Vec<_>>() {
                    attach.check(&lease.request.instance, &lease.request.incarnation).expect(&why);
                }
                // What was said to be done is done; only the step in the middle may be or not.
                let wrong = done.iter().filter(|(name, life)| {
                    let lease = attach.get(&name.parse().unwrap());
                    lease.map_or("gone", |lease| lease.request.incarnation.as_str()) != life.as_str()
                });
                assert!(wrong.count() <= 1, "{why}");
                if let Some(other) = attach.leases().find(|lease| **lease != survivor) {
                    let port = other.ports[0].host.first();
                    assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-1"), "{why}");
                }
                for name in (0..3).map(|n| format!("default/web-{n}").parse::<InstanceId>().unwrap()) {
                    if let Some(lease) = attach.get(&name).cloned() {
                        attach.detach(&name, &lease.request.incarnation).unwrap();
                    }
                }
                assert_eq!(names(&attach), ["default/db-0"]);
                assert_eq!(site.held(), held_for(&attach), "{why}");
                attach.close();
            }
            site.open(plane).0.remove();
            assert_eq!((site.rules(), site.held()), (String::new(), Vec::new()));
        });
    }
}

#[test]
fn a_flush_of_the_rules_is_repaired_and_by_the_next_process_where_none_stays() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let _servers = site.serve(0, &[80]);
        attach.attach(site.wish(0, "default/a", "a", &["http=8080:80"])).unwrap();
        site.nft("flush ruleset");
        eventually(Duration::from_secs(5), || ask(site, Protocol::Tcp, 8080).is_ok());
        attach.close();
        site.nft("flush ruleset");
        let (mut attach, _) = site.open(Plane::OneShot);
        assert_eq!(ask(site, Protocol::Tcp, 8080).as_deref(), Ok("pod-0"));
        site.nft("flush ruleset");
        attach.attach(site.wish(0, "default/b", "b", &["http=8081:80"])).unwrap();
        for port in [8080, 8081] {
            assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-0"));
        }
        attach.remove();
    });
}

#[test]
fn a_restart_changes_nothing_that_a_connection_could_notice() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let _servers = site.serve(0, &[80]);
        let lease = attach.attach(site.wish(0, "default/a", "a", &["http=:80"])).unwrap();
        let port = lease.ports[0].host.first();
        let before = site.rules();
        let open = site.connect(port);
        for plane in [Plane::Live, Plane::OneShot, Plane::Live] {
            attach.close();
            let recovered;
            (attach, recovered) = site.open(plane);
            assert_eq!(recovered.kept, std::slice::from_ref(&lease));
            assert!(recovered.strays.is_empty() && recovered.unheld.is_empty());
            assert_eq!(site.rules(), before);
        }
        assert_eq!(
            client::first_line(&open, Duration::from_secs(5)).unwrap().split(' ').next(),
            Some("pod-0")
        );
        attach.remove();
    });
}

#[test]
fn a_holder_that_is_killed_is_replaced_and_holds_the_same() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::OneShot);
        attach.attach(site.wish(0, "default/a", "a", &["http", "rtp/udp:50"])).unwrap();
        let held = site.held();
        for pid in attach.ports.holder_pids() {
            kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), Signal::KILL).unwrap();
        }
        let begin = Instant::now();
        eventually(Duration::from_secs(5), || site.held().is_empty());
        attach.maintain();
        assert_eq!(site.held(), held, "after {:?}", begin.elapsed());
        attach.remove();
    });
}
