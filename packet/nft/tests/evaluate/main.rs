//! The evaluator against the kernel: the same rules, the same packets, the same ends.
//!
//! A router between two links has the rules; packets with numbers in them are sent into it ([`probe`]), and a table
//! beside tells how each ended ([`observe`]). What is random in the kernel must be one of the evaluator's outcomes.
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub)]

mod known;
mod observe;
mod probe;
mod random;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use observe::End;
use portolan_model::Protocol;
use portolan_netlink::conntrack::{Conntrack, Filter};
use portolan_nft::{
    Kernel, Nft as _, Ruleset, Transaction,
    evaluate::{Every, Fate, Host, Machine, Origin, Outcome, Packet, Seeded},
};
use portolan_testkit::{
    eventually_ok, need_root,
    net::{End as LinkEnd, Namespace, link},
};
use probe::Sender;
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, TestRunner},
};
use random::{CLIENT_LINK, FAR_LINK};

/// A router between a client's link and a far one.
struct Router {
    namespace: Namespace,
    _client: Namespace,
    _far: Namespace,
    from_client: Sender,
    from_here: Sender,
    kernel: Kernel,
    next_port: u16,
    // Numbers are never used again: refusals of unresolved neighbours come seconds later.
    next_number: u32,
}

impl Router {
    fn new() -> Self {
        let (client, router, far) = (Namespace::new(), Namespace::new(), Namespace::new());
        link(
            LinkEnd::new(&client, "eth0", &["10.9.1.2/24", "fd09:1::2/64"]),
            LinkEnd::new(&router, CLIENT_LINK, &["10.9.1.1/24", "fd09:1::1/64"]),
        );
        link(
            LinkEnd::new(&router, FAR_LINK, &["10.9.2.1/24", "fd09:2::1/64"]),
            LinkEnd::new(&far, "eth0", &["10.9.2.2/24", "fd09:2::2/64"]),
        );
        for (namespace, interface) in
            [(&client, "eth0"), (&router, CLIENT_LINK), (&router, FAR_LINK), (&far, "eth0")]
        {
            without_neighbours(namespace, interface);
        }
        // What is for nobody ends at the links' other ends, and does not come back. A new namespace forwards IPv4 if the
        // machine's own does.
        for end in [&client, &far] {
            end.sysctl("net/ipv4/ip_forward", "0");
        }
        router.forward();
        for words in ["default via 10.9.2.2", "default via fd09:2::2"] {
            router.route(words);
        }
        for words in ["default via 10.9.1.1", "default via fd09:1::1"] {
            client.route(words);
        }
        router.tell_all_refusals();
        for (path, value) in
            [("net/ipv4/conf/all/rp_filter", "0"), (&format!("net/ipv4/conf/{CLIENT_LINK}/rp_filter"), "0")]
        {
            router.sysctl(path, value);
        }
        let from_client = client.run(Sender::open);
        let from_here = router.run(Sender::open);
        let mut kernel = router.run(|| Kernel::open().unwrap());
        kernel.run(&observe::table().creation()).unwrap();
        Self {
            namespace: router,
            _client: client,
            _far: far,
            from_client,
            from_here,
            kernel,
            next_port: 10_000,
            next_number: 0,
        }
    }

    /// The packets with source ports that none had before, so that each begins a connection.
    fn renumbered(&mut self, packets: &[(Packet, Origin)]) -> Vec<(Packet, Origin)> {
        let renumbered = packets.iter().map(|(packet, origin)| {
            self.next_port = if self.next_port == u16::MAX { 10_000 } else { self.next_port + 1 };
            let mut packet = packet.clone();
            packet.source.set_port(self.next_port);
            (packet, origin.clone())
        });
        renumbered.collect()
    }

    /// The same machine for the evaluator.
    fn host() -> Host {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut host = Host::new();
        for (interface, v4, v6) in [(CLIENT_LINK, "10.9.1", "fd09:1:"), (FAR_LINK, "10.9.2", "fd09:2:")] {
            let (four, six) = (ip(&format!("{v4}.1")), ip(&format!("{v6}:1")));
            host = host
                .interface(interface, &[four, six])
                .route(format!("{v4}.0/24").parse().unwrap(), interface, four)
                .route(format!("{v6}:/64").parse().unwrap(), interface, six);
        }
        host.route("0.0.0.0/0".parse().unwrap(), FAR_LINK, ip("10.9.2.1")).route(
            "::/0".parse().unwrap(),
            FAR_LINK,
            ip("fd09:2::1"),
        )
    }

    /// Loads the rules in the place of others, and forgets what was seen and every connection.
    fn load(&mut self, ruleset: &Ruleset) {
        for table in [ruleset.clone(), observe::table()] {
            let mut transaction = Transaction::new(table.table.clone());
            transaction.destroy_table();
            transaction.operations.extend(table.creation().operations);
            self.kernel.run(&transaction).unwrap_or_else(|error| panic!("{error}\n{table}"));
        }
        self.namespace.run(|| {
            let conntrack = Conntrack::open().unwrap();
            for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
                conntrack.flush(Filter::protocol(protocol), |_| true).unwrap();
            }
        });
    }

    fn send(&self, packet: &Packet, origin: &Origin, number: u32) {
        match origin {
            Origin::Here => self.from_here.send(packet, number),
            Origin::Interface(_) => self.from_client.send(packet, number),
        }
    }
}

/// Nobody asks for a neighbour's address: both ends of a link have the same one.
///
/// Neighbour discovery of IPv6 is packets, which the rules of a world see. They drop them, so that packets wait for a
/// neighbour who is never found; and those that come late put the sender's address into a set in the middle of another
/// world. Refusals to neighbours that are not found yet fill the send buffer of the one socket by which the kernel sends
/// all of them (`icmp6_send`), and further ones are lost. With `IFF_NOARP` all are known (`ndisc_constructor`).
fn without_neighbours(namespace: &Namespace, interface: &str) {
    namespace.ip(&format!("link set {interface} address 02:09:00:00:00:01 arp off"));
}

/// Whether nobody hears a refusal: it would go from a loopback address to another machine, since the packet was given that
/// one's address on its way, and there is no such route (`__mkroute_output`, net/ipv4/route.c, v6.18).
fn is_unheard(outcome: &Outcome) -> bool {
    matches!(outcome.fate, Fate::Rejected { .. })
        && outcome.packet.destination.ip().is_loopback()
        && !Router::host().is_local(outcome.packet.source.ip())
}

/// Sends all packets through the kernel and through the evaluator, and compares.
fn agree(router: &mut Router, ruleset: &Ruleset, packets: &[(Packet, Origin)]) -> Result<(), String> {
    router.load(ruleset);
    let packets = &router.renumbered(packets);
    let mut machine = Machine::new(Router::host()).with(ruleset);
    let mut expected = BTreeMap::new();
    for (packet, origin) in packets {
        router.next_number += 10;
        let number = router.next_number;
        let outcomes = machine.outcomes(packet, origin).map_err(|error| error.to_string())?;
        let mut ends: Vec<_> =
            outcomes.iter().map(|outcome| (outcome.is_masqueraded(), End::of(outcome))).collect();
        if outcomes.iter().any(is_unheard) {
            ends.push((false, End::Dropped));
        }
        let steps = outcomes[0].steps.iter().map(|step| format!("  {step}\n")).collect::<String>();
        expected.insert(number, (packet, origin, ends, steps));
        machine.send(packet.clone(), origin, &mut Seeded::new(1)).map_err(|error| error.to_string())?;
        router.send(packet, origin, number);
    }
    // The last packets may still be on their way.
    let kernel = &mut router.kernel;
    eventually_ok(Duration::from_secs(3), || {
        let seen = observe::seen(kernel);
        for (number, (packet, origin, ends, steps)) in &expected {
            let end = seen.get(number).cloned().unwrap_or(End::Dropped);
            let fits = ends.iter().any(|(masqueraded, expected)| match masqueraded {
                true => expected.clone().without_source_port() == end.clone().without_source_port(),
                false => *expected == end,
            });
            if !fits {
                let allowed: Vec<_> = ends.iter().map(|(_, end)| end).collect();
                return Err(format!(
                    "packet {number} {packet:?} from {origin:?}\nkernel: {end:?}\nevaluator: {allowed:?}\n{steps}"
                ));
            }
        }
        Ok(())
    })
}

#[test]
fn packets_end_in_memory_as_in_the_kernel() {
    need_root!();
    agree_on(30);
}

#[test]
#[ignore = "make conformance runs it"]
fn packets_of_thousands_of_rulesets_end_in_memory_as_in_the_kernel() {
    need_root!();
    agree_on(3000);
}

/// `PROPTEST_CASES` says another number of rulesets. One that ends otherwise is shown as it is: the first packet that
/// differs, and its way, tell more than the smallest ruleset, for which some hundred more would be loaded.
fn agree_on(cases: u32) {
    let mut router = Router::new();
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let strategy = (random::recipes(), random::packets());
    let mut left = BTreeMap::<&str, u32>::new();
    for case in 0..cases {
        if case.is_multiple_of(250) {
            eprintln!("{case} of {cases} rulesets");
        }
        let (recipes, packets) = strategy.new_tree(&mut runner).unwrap().current();
        let ruleset = random::ruleset(&recipes);
        if let Err(error) = agree(&mut router, &ruleset, &packets) {
            panic!("ruleset {case} of {cases}: {error}\n{ruleset}");
        }
        count(&ruleset, &packets, &mut left);
    }
    // All ends were met, or the rules are not worth their name. Few may lack one by chance.
    for end in ["sent", "delivered", "dropped", "rejected", "rewritten"] {
        assert!(cases < 100 || left.get(end).is_some_and(|count| *count > cases), "{left:?}");
    }
}

fn count(ruleset: &Ruleset, packets: &[(Packet, Origin)], left: &mut BTreeMap<&str, u32>) {
    let machine = Machine::new(Router::host()).with(ruleset);
    for (packet, origin) in packets {
        for outcome in machine.outcomes(packet, origin).unwrap() {
            let end = match End::of(&outcome) {
                End::Sent { .. } => "sent",
                End::Delivered { .. } => "delivered",
                End::Dropped => "dropped",
                End::Rejected(_) => "rejected",
            };
            *left.entry(end).or_default() += 1;
            if outcome.packet.destination != packet.destination {
                *left.entry("rewritten").or_default() += 1;
            }
        }
    }
}

#[test]
fn every_choice_is_gone_through_once() {
    let mut every = Every::new();
    let mut seen = Vec::new();
    loop {
        use portolan_nft::evaluate::Choose as _;
        let first = every.choose(2);
        seen.push((first, if first == 0 { every.choose(3) } else { 9 }));
        if !every.advance() {
            break;
        }
    }
    assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 9)]);
}
