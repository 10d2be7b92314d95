//! Attachments on the real kernel: what containers and their runtimes are promised.

mod site;

use std::time::Duration;

use portolan_model::{Attachment, Incarnation, InstanceId, Network, Owner, PortRequest, Protocol};
use portolan_ports::{Pool, Pools};
use portolan_testkit::{eventually, need_root};

use self::site::{ask, names, on_host};
use super::*;

mod accidents;
mod many;

#[test]
fn an_attachment_is_reached_by_its_ports_until_it_ends() {
    need_root!();
    for plane in [Plane::Live, Plane::OneShot] {
        on_host(1, |site| {
            let (mut attach, _) = site.open(plane);
            let lease = attach
                .attach(site.wish(0, "default/web-0", "a", &["http=:80", "game/tcp+udp", "web=8080:80"]))
                .unwrap();
            let [http, game, web] = &lease.ports[..] else { panic!("{lease:?}") };
            let servers = site.serve(0, &[80, game.container]);
            for (protocol, port) in [
                (Protocol::Tcp, http.host.first()),
                (Protocol::Tcp, 8080),
                (Protocol::Tcp, game.host.first()),
                (Protocol::Udp, game.host.first()),
            ] {
                assert_eq!(ask(site, protocol, port).as_deref(), Ok("pod-0"), "{plane:?} {protocol} {port}");
            }
            assert_eq!(web.host.first(), 8080);
            attach.check(&lease.request.instance, &lease.request.incarnation).unwrap();
            assert_eq!(
                attach
                    .attach(site.wish(0, "default/web-0", "a", &["http=:80", "game/tcp+udp", "web=8080:80"]))
                    .unwrap(),
                lease
            );
            attach.detach(&lease.request.instance, &lease.request.incarnation).unwrap();
            attach.detach(&lease.request.instance, &lease.request.incarnation).unwrap();
            assert!(ask(site, Protocol::Tcp, 8080).is_err());
            assert!(!site.rules().contains("8080"), "{}", site.rules());
            drop(servers);
            assert_eq!(attach.remove(), Vec::<String>::new());
            assert_eq!(site.rules(), "");
        });
    }
}

#[test]
fn a_new_sandbox_takes_the_ports_over_and_the_late_end_of_the_old_one_is_nothing() {
    need_root!();
    for plane in [Plane::Live, Plane::OneShot] {
        on_host(2, |site| {
            let (mut attach, _) = site.open(plane);
            let first = attach.attach(site.wish(0, "default/db-0", "a", &["http=:80", "s=8443:80"])).unwrap();
            let _servers = [site.serve(0, &[80]), site.serve(1, &[80])];
            let port = first.ports[0].host.first();
            assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-0"));
            // The old namespace is still there.
            let second =
                attach.attach(site.wish(1, "default/db-0", "b", &["http=:80", "s=8443:80"])).unwrap();
            assert_eq!(second.ports, first.ports);
            assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-1"));
            attach.detach(&first.request.instance, &first.request.incarnation).unwrap();
            attach.detach_container("a", "eth0").unwrap();
            assert_eq!(ask(site, Protocol::Tcp, 8443).as_deref(), Ok("pod-1"));
            // The same address again: the old one's end keeps the new one, too.
            let third = attach.attach(site.wish(1, "default/db-0", "c", &["http=:80", "s=8443:80"])).unwrap();
            attach.detach(&third.request.instance, &second.request.incarnation).unwrap();
            assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-1"));
            // It asks for something else: what fits stays the same.
            let fourth =
                attach.attach(site.wish(0, "default/db-0", "d", &["http=:80", "more/udp:10"])).unwrap();
            assert_eq!(fourth.ports[0], first.ports[0]);
            assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-0"));
            assert!(ask(site, Protocol::Tcp, 8443).is_err());
            attach.check(&fourth.request.instance, &fourth.request.incarnation).unwrap();
            attach.remove();
        });
    }
}

#[test]
fn two_containers_with_one_address_do_not_end_each_other() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let old = attach.attach(site.wish(0, "default/a", "a", &["http=8081:80"])).unwrap();
        let new = attach.attach(site.wish(0, "default/b", "b", &["http=8082:80"])).unwrap();
        let _servers = site.serve(0, &[80]);
        attach.detach(&old.request.instance, &old.request.incarnation).unwrap();
        assert_eq!(ask(site, Protocol::Tcp, 8082).as_deref(), Ok("pod-0"));
        attach.check(&new.request.instance, &new.request.incarnation).unwrap();
        attach.remove();
    });
}

#[test]
fn what_the_rules_refuse_leaves_nothing() {
    need_root!();
    for plane in [Plane::Live, Plane::OneShot] {
        on_host(1, |site| {
            let (mut attach, _) = site.open(plane);
            let good = attach.attach(site.wish(0, "default/good", "g", &["http=8080:80"])).unwrap();
            let mut wish = site.wish(0, "default/bad", "a", &["http=8081:80"]);
            // A block keeps its numbers: the rules cannot shift it.
            wish.requests.push(PortRequest {
                host: Some(9000),
                count: 10,
                container: Some(80),
                ..PortRequest::named("b".parse().unwrap())
            });
            let error = attach.attach(wish).unwrap_err();
            assert!(error.to_string().starts_with("cannot map ports: "), "{error}");
            assert_eq!(names(&attach), ["default/good"]);
            assert_eq!(site.held(), [(Protocol::Tcp, 8080)]);
            attach.check(&good.request.instance, &good.request.incarnation).unwrap();
            attach.remove();
        });
    }
}

#[test]
fn one_whose_namespace_is_gone_is_in_nobodys_way() {
    need_root!();
    on_host(2, |site| {
        let (mut attach, _) = site.open(Plane::OneShot);
        attach.attach(site.wish(0, "default/a", "a", &["web=8080:80"])).unwrap();
        let error = attach.attach(site.wish(1, "default/b", "b", &["web=8080:80"])).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "port web: host port 8080/tcp is leased already: default/a has it (namespace /run/netns/"
            ),
            "{error}"
        );
        site.remove(0);
        attach.attach(site.wish(1, "default/b", "b", &["web=8080:80"])).unwrap();
        assert_eq!(names(&attach), ["default/b"]);
        site.remove(1);
        assert_eq!(attach.reap().len(), 1);
        assert_eq!((names(&attach).len(), site.held().len()), (0, 0));
        attach.remove();
    });
}

#[test]
fn a_check_asks_holder_and_kernel() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::OneShot);
        let (instance, life) =
            ("default/a".parse::<InstanceId>().unwrap(), "a".parse::<Incarnation>().unwrap());
        let error = attach.check(&instance, &life).unwrap_err().to_string();
        assert_eq!(error, "default/a has no ports here: it was not added, or is gone");
        attach.attach(site.wish(0, "default/a", "a", &["http=8080:80"])).unwrap();
        assert_eq!(attach.check(&instance, &life).unwrap().len(), 1);
        assert!(attach.check(&instance, &"b".parse().unwrap()).is_err(), "another life");
        site.nft("delete table inet portolan");
        let error = attach.check(&instance, &life).unwrap_err().to_string();
        assert!(error.contains("table inet portolan is missing"), "{error}");
        attach.restore().unwrap();
        attach.check(&instance, &life).unwrap();
        attach.ports.give_up_hold(&instance).unwrap();
        attach.remove();
    });
}

#[test]
fn what_a_runtime_does_not_know_any_more_is_collected_in_its_network_only() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::OneShot);
        for (id, network) in [("a", "one"), ("b", "one"), ("c", "two")] {
            let mut wish = site.wish(0, id, id, &["http"]);
            wish.attachment =
                Some(Attachment { container: id.into(), interface: "eth0".into(), network: network.into() });
            attach.attach(wish).unwrap();
        }
        let mut host = site.wish(0, "default/host", "h", &["http"]);
        (host.network, host.attachment, host.owner) =
            (Network::Host, None, Owner::Sandbox { id: "h".into() });
        attach.attach(host).unwrap();
        let valid =
            [Attachment { container: "a".into(), interface: "eth0".into(), network: "renamed".into() }];
        let ended = attach.gc("one", &valid);
        assert_eq!(ended.iter().map(|lease| lease.request.instance.as_str()).collect::<Vec<_>>(), ["b"]);
        assert_eq!(names(&attach), ["a", "c", "default/host"]);
        attach.detach_container("c", "eth1").unwrap();
        attach.detach_container("c", "eth0").unwrap();
        assert_eq!(names(&attach), ["a", "default/host"]);
        attach.remove();
    });
}

#[test]
fn a_host_address_serves_its_own_family_and_repetitions_are_one() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let specs = ["a=192.0.2.1:8080:80", "b/udp=192.0.2.1:8080:80", "c=192.0.2.1:8080:80"];
        let mut wish = site.wish(0, "default/a", "a", &specs);
        let request = |name: &str, host: u16, address: &str| PortRequest {
            host: Some(host),
            container: Some(80),
            address: Some(address.parse().unwrap()),
            ..PortRequest::named(name.parse().unwrap())
        };
        wish.requests.extend([
            request("any4", 8081, "0.0.0.0"),
            request("both4", 8082, "0.0.0.0"),
            request("both6", 8082, "::"),
            request("lo", 8083, "127.0.0.1"),
            request("six", 8084, "2001:db8:1::1"),
        ]);
        let lease = attach.attach(wish).unwrap();
        let got: Vec<_> = lease.ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(got, ["a", "b", "any4", "both4", "lo", "six"]);
        let _servers = site.serve(0, &[80]);
        for (port, v4, v6) in [
            (8080, true, false),
            (8081, true, false),
            (8082, true, true),
            (8083, false, false),
            (8084, false, true),
        ] {
            assert_eq!(site.ask_at("192.0.2.1", Protocol::Tcp, port).is_ok(), v4, "{port} by IPv4");
            assert_eq!(site.ask_at("2001:db8:1::1", Protocol::Tcp, port).is_ok(), v6, "{port} by IPv6");
        }
        assert_eq!(site.ask_at("192.0.2.1", Protocol::Udp, 8080).as_deref(), Ok("pod-0"));
        // Another one has the same number on another address.
        attach.attach(site.wish(0, "default/b", "b", &["a=192.0.2.2:8080:80"])).unwrap();
        attach.check(&lease.request.instance, &lease.request.incarnation).unwrap();
        attach.remove();
    });
}

#[test]
fn pools_change_while_leases_live() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let _servers = site.serve(0, &[80]);
        let lease = attach.attach(site.wish(0, "default/a", "a", &["http=:80"])).unwrap();
        let port = lease.ports[0].host.first();
        assert!((20_000..30_000).contains(&port));
        let pools = |range: &str| {
            Pools::new(vec![Pool::new(
                "default".parse().unwrap(),
                range.parse::<portolan_model::PortRanges>().unwrap(),
            )])
            .unwrap()
        };
        let outside = attach.set_pools(pools("31000-31001,31010")).unwrap();
        assert_eq!(outside, std::slice::from_ref(&lease.request.instance));
        assert_eq!(site.reserved(), "31000-31001,31010");
        assert_eq!(ask(site, Protocol::Tcp, port).as_deref(), Ok("pod-0"), "it keeps what it has");
        attach.avoid(vec![(Protocol::Tcp, 31_000), (Protocol::Udp, 31_010)]);
        let next = ["b", "c"]
            .map(|id| attach.attach(site.wish(0, id, id, &["http"])).unwrap().ports[0].host.first());
        assert_eq!(next.iter().collect::<BTreeSet<_>>(), [31_001, 31_010].iter().collect());
        let error = attach.attach(site.wish(0, "d", "d", &["http"])).unwrap_err();
        assert_eq!(error.word(), "exhausted");
        assert!(error.to_string().contains("2 of 3 in use"), "{error}");
        attach.avoid(Vec::new());
        attach.attach(site.wish(0, "d", "d", &["http"])).unwrap();
        assert_eq!(attach.set_pools(Pools::none()).unwrap().len(), 4);
        let error = attach.attach(site.wish(0, "e", "e", &["http"])).unwrap_err().to_string();
        assert!(error.contains("no pool of ports is configured"), "{error}");
        attach.attach(site.wish(0, "e", "e", &["http=8080"])).unwrap();
        assert_eq!(site.reserved(), "");
        attach.remove();
    });
}

#[test]
fn a_pod_on_the_hosts_network_binds_its_port_itself() {
    need_root!();
    on_host(1, |site| {
        let (mut attach, _) = site.open(Plane::Live);
        let wish = |life: &str| {
            let mut wish = site.wish(0, "default/host", life, &["http"]);
            (wish.network, wish.v4, wish.v6) = (Network::Host, None, None);
            (wish.owner, wish.attachment) = (Owner::Sandbox { id: life.into() }, None);
            wish
        };
        let lease = attach.attach(wish("a")).unwrap();
        let port = lease.ports[0].host.first();
        assert_eq!(site.held(), [(Protocol::Tcp, port)]);
        attach.give_up_hold(&lease.request.instance).unwrap();
        let server = site.host.run(|| std::net::TcpListener::bind(("::", port)).unwrap());
        attach.maintain();
        attach.check(&lease.request.instance, &lease.request.incarnation).unwrap();
        // Its next sandbox, while the process of the last one still has the port: held as soon as that ends.
        let next = attach.attach(wish("b")).unwrap();
        assert_eq!((next.ports.clone(), next.held), (lease.ports.clone(), true));
        drop(server);
        eventually(Duration::from_secs(5), || {
            attach.maintain();
            site.held() == [(Protocol::Tcp, port)]
        });
        assert!(attach.reap().is_empty(), "a sandbox lives until its runtime says otherwise");
        attach.remove();
    });
}
