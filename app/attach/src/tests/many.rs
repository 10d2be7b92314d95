//! Many of them: a full node, large blocks, a full pool, and processes that race.

use std::process::Command;

use portolan_testkit::{eventually, net::Namespace};

use super::{
    site::{ROLE, ask, config, held_for, names, on_host, this_program, wish},
    *,
};

#[test]
fn a_node_has_room_for_250_containers_with_20_ports_each() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let namespaces: Vec<Namespace> = (0..250).map(|_| Namespace::new()).collect();
        let specs: Vec<String> =
            (0..20).map(|n| format!("p{n}{}", if n % 2 == 0 { "" } else { "/udp" })).collect();
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        for (n, namespace) in namespaces.iter().enumerate() {
            let mut wish = wish(&namespace.path(), 0, &format!("default/web-{n}"), &format!("s{n}"), &specs);
            (wish.v4, wish.v6) = (Some([10, 89, (n / 250) as u8, (n % 250) as u8].into()), None);
            attach.attach(wish).unwrap();
        }
        let servers = attach.attach(site.wish(0, "default/one", "one", &["http=:80"])).unwrap();
        let _servers = site.serve(0, &[80]);
        assert_eq!(ask(site, Protocol::Tcp, servers.ports[0].host.first()).as_deref(), Ok("pod-0"));
        let usage = attach.usage("node".to_owned());
        assert_eq!((usage.leases.len(), names(&attach).len()), (251, 251));
        assert_eq!(site.held(), held_for(&attach));
        assert_eq!(site.held().len(), 5001);
        attach.close();
        // Every other one has gone while nobody looked.
        let kept: Vec<Namespace> =
            namespaces.into_iter().enumerate().filter_map(|(n, one)| (n % 2 == 0).then_some(one)).collect();
        let (mut attach, recovered) = site.open(Plane::OneShot);
        assert_eq!((recovered.kept.len(), recovered.dropped.len()), (126, 125));
        assert_eq!(site.held(), held_for(&attach));
        let one = &servers.request;
        attach.check(&one.instance, &one.incarnation).unwrap();
        drop(kept);
        assert_eq!(attach.reap().len(), 125);
        assert_eq!(site.held().len(), 1);
        attach.check(&one.instance, &one.incarnation).unwrap();
        attach.remove();
    });
}

#[test]
fn a_block_of_1000_ports_leads_to_its_container_from_the_first_to_the_last() {
    need_root!();
    for plane in [Plane::Live, Plane::OneShot] {
        on_host(2, |site| {
            let (mut attach, _) = site.open(plane);
            let one = attach.attach(site.wish(0, "default/a", "a", &["media/udp:1000"])).unwrap();
            let two = attach.attach(site.wish(1, "default/b", "b", &["media/udp:1000"])).unwrap();
            for (number, lease) in [(0, &one), (1, &two)] {
                let block = lease.ports[0].host;
                assert_eq!((block.count(), block.first() % 512), (1000, 0));
                let ends = [block.first(), block.first() + 500, block.last()];
                let _servers = site.serve(number, &ends);
                for port in ends {
                    let answer = ask(site, Protocol::Udp, port);
                    assert_eq!(answer, Ok(format!("pod-{number}")), "{plane:?} {port}");
                }
            }
            assert_eq!(site.held().len(), 2000);
            attach.detach(&one.request.instance, &one.request.incarnation).unwrap();
            // Closed after the answer.
            eventually(Duration::from_secs(5), || site.held().len() == 1000);
            attach.remove();
        });
    }
}

#[test]
fn a_full_pool_says_how_full_it_is_and_has_room_again_after_an_end() {
    need_root!();
    on_host(1, |site| {
        let mut config = site.config(Plane::OneShot);
        let pool = Pool::new(
            "default".parse().unwrap(),
            "20000-20009".parse::<portolan_model::PortRange>().unwrap(),
        );
        config.pools = Pools::new(vec![Pool { quarantine: Duration::ZERO, ..pool }]).unwrap();
        let (mut attach, _) = Attach::open(config).unwrap();
        for n in 0..5 {
            attach.attach(site.wish(0, &format!("c{n}"), &format!("c{n}"), &["a", "b"])).unwrap();
        }
        let error = attach.attach(site.wish(0, "more", "more", &["a"])).unwrap_err();
        assert!(error.word() == "exhausted" && error.to_string().contains("10 of 10 in use"), "{error}");
        assert_eq!(attach.ports.usage()[0].failed, 1);
        attach.detach_container("c3", "eth0").unwrap();
        attach.attach(site.wish(0, "more", "more", &["a", "b"])).unwrap();
        assert_eq!(site.held(), held_for(&attach));
        attach.remove();
    });
}

/// Not a test by itself: one call of a plugin that is alone.
#[test]
fn the_caller() {
    let role = std::env::var(ROLE).unwrap_or_default();
    let Some(rest) = role.strip_prefix("caller,") else { return };
    let words: Vec<&str> = rest.split(',').collect();
    let [folder, namespace, number, spec] = words[..] else { panic!("{role}") };
    let mut attach = Attach::take_turn(config(folder.as_ref(), Plane::OneShot)).unwrap();
    let got =
        attach.attach(wish(namespace.as_ref(), 0, &format!("c{number}"), &format!("c{number}"), &[spec]));
    match got {
        Ok(lease) => println!("got {}", lease.ports[0].host),
        Err(error) => println!("refused {error}"),
    }
    attach.close();
}

#[test]
fn processes_take_turns_and_of_two_that_want_one_port_one_has_it() {
    need_root!();
    on_host(1, |site| {
        let start = |number: u32, spec: &str| {
            let (folder, namespace) = (site.folder.path().display(), site.pod(0).path());
            let role = format!("caller,{folder},{},{number},{spec}", namespace.display());
            let words = this_program("many::the_caller", &role);
            Command::new("env").args(words).stdout(std::process::Stdio::piped()).spawn().unwrap()
        };
        let callers: Vec<_> =
            (0..10).map(|n| start(n, "http=:80")).chain((10..12).map(|n| start(n, "web=8080:80"))).collect();
        let said: Vec<String> = callers
            .into_iter()
            .map(|caller| String::from_utf8(caller.wait_with_output().unwrap().stdout).unwrap())
            .collect();
        let got = |said: &String| said.lines().find_map(|line| Some(line.strip_prefix("got ")?.to_owned()));
        let ports: BTreeSet<String> = said.iter().filter_map(got).collect();
        assert_eq!(ports.len(), 11, "{said:?}");
        let refused: Vec<_> =
            said.iter().flat_map(|said| said.lines()).filter(|line| line.starts_with("refused")).collect();
        assert_eq!(refused.len(), 1, "{said:?}");
        assert!(refused[0].contains("host port 8080/tcp is leased already"), "{refused:?}");
        let (attach, _) = site.open(Plane::OneShot);
        assert_eq!(names(&attach).len(), 11);
        assert_eq!(site.held(), held_for(&attach));
        attach.remove();
    });
}
