//! Ten thousand random histories.

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Lease { who: u8, requests: Vec<PortRequest> },
    Release { who: u8 },
    Foreign { protocol: Protocol, port: u16 },
    Reserve { ranges: Vec<PortRange> },
    Announce { who: u8, ports: Vec<(Protocols, PortRange)> },
    SetPools { other: bool },
    Wait { seconds: u8 },
}

fn protocols() -> impl Strategy<Value = Protocols> {
    prop_oneof![
        4 => Just(Protocols::TCP),
        3 => Just(Protocols::UDP),
        2 => Just(Protocols::TCP.with(Protocol::Udp)),
        1 => Just(Protocols::from(Protocol::Sctp)),
    ]
}

/// Ports in and around the pools.
fn port() -> impl Strategy<Value = u16> {
    prop_oneof![19_990u16..20_160, 21_020u16..21_100, 65_530u16..=65_535]
}

fn request() -> impl Strategy<Value = PortRequest> {
    let count = prop_oneof![5 => Just(1u16), 3 => 2u16..=20, 1 => 21u16..=160];
    let host = prop_oneof![4 => Just(None), 1 => port().prop_map(Some)];
    let pool = prop_oneof![3 => Just(None), 2 => Just(Some("media")), 1 => Just(Some("tiny"))];
    let address = prop_oneof![3 => Just(None), 1 => Just(Some("127.0.0.1")), 1 => Just(Some("::1"))];
    (0u8..3, protocols(), count, host, pool, address).prop_map(
        |(n, protocols, count, host, pool, address)| {
            let mut request = PortRequest::named(port_name(&format!("p{n}")));
            request.protocols = protocols;
            request.count = count;
            request.host = host;
            request.pool = pool.map(port_name);
            request.address = address.map(|a| a.parse().unwrap());
            request
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (port(), 1u16..40).prop_map(|(p, n)| PortRange::new(p, p.saturating_add(n)).unwrap());
    prop_oneof![
        6 => (0u8..12, prop::collection::vec(request(), 1..4))
            .prop_map(|(who, requests)| Step::Lease { who, requests }),
        3 => (0u8..12).prop_map(|who| Step::Release { who }),
        1 => (prop::sample::select(&Protocol::ALL[..]), port())
            .prop_map(|(protocol, port)| Step::Foreign { protocol, port }),
        1 => prop::collection::vec(range(), 0..3).prop_map(|ranges| Step::Reserve { ranges }),
        1 => (0u8..3, prop::collection::vec((protocols(), range()), 0..3))
            .prop_map(|(who, ports)| Step::Announce { who, ports }),
        1 => any::<bool>().prop_map(|other| Step::SetPools { other }),
        2 => (0u8..40).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// Every port by itself.
struct Model {
    pools: Pools,
    leases: BTreeMap<InstanceId, Vec<PublishedPort>>,
    kept: BTreeMap<(Protocol, u16), (Duration, Option<InstanceId>)>,
    reserved: BTreeSet<u16>,
    others: Vec<PortRange>,
    announced: BTreeMap<u8, Vec<(Protocols, PortRange)>>,
    last: BTreeMap<(InstanceId, PortName), PortRange>,
    now: Duration,
}

impl Model {
    fn new(pools: Pools) -> Self {
        Self {
            pools,
            leases: BTreeMap::new(),
            kept: BTreeMap::new(),
            reserved: BTreeSet::new(),
            others: Vec::new(),
            announced: BTreeMap::new(),
            last: BTreeMap::new(),
            now: Duration::ZERO,
        }
    }

    fn in_use(&self, more: &[PublishedPort], protocol: Protocol, port: u16, address: Option<IpAddr>) -> bool {
        self.leases.values().flatten().chain(more).any(|lease| {
            lease.protocols.contains(protocol)
                && lease.host.contains(port)
                && (address.is_none() || lease.address.is_none() || lease.address == address)
        })
    }

    /// Whether a random choice for `who` may take the port; `strict` also leaves alone what was its own.
    fn free(
        &self,
        more: &[PublishedPort],
        who: &InstanceId,
        strict: bool,
        protocols: Protocols,
        port: u16,
    ) -> bool {
        let announced =
            |(theirs, range): &(Protocols, PortRange)| theirs.intersects(protocols) && range.contains(port);
        !self.reserved.contains(&port)
            && !self.announced.values().flatten().any(announced)
            && protocols.iter().all(|protocol| {
                let kept = self.kept.get(&(protocol, port)).is_some_and(|(until, owner)| {
                    *until > self.now && (strict || owner.as_ref() != Some(who))
                });
                !kept && !self.in_use(more, protocol, port, None)
            })
    }

    /// The lowest free place at an alignment.
    fn place(
        &self,
        more: &[PublishedPort],
        who: &InstanceId,
        strict: bool,
        request: &PortRequest,
        align: u16,
    ) -> bool {
        self.pools.get(request.pool.as_ref()).unwrap().ranges.iter().any(|range| {
            let free: Vec<bool> =
                range.iter().map(|p| self.free(more, who, strict, request.protocols, p)).collect();
            free.windows(request.count.into())
                .enumerate()
                .any(|(i, run)| (range.first() + i as u16).is_multiple_of(align) && run.iter().all(|f| *f))
        })
    }

    fn set_reserved(&mut self, ranges: &[PortRange]) {
        self.others = ranges.to_vec();
        self.reserved = ranges.iter().flat_map(|r| r.iter().collect::<Vec<_>>()).collect();
        for pool in self.pools.iter() {
            let ports: Vec<u16> = pool.ranges.iter().flat_map(PortRange::iter).collect();
            if ports.iter().all(|p| self.reserved.contains(p)) {
                self.reserved.retain(|p| !ports.contains(p));
            }
        }
    }

    fn release(&mut self, who: &InstanceId, ports: &[PublishedPort]) {
        for port in ports {
            let Some(pool) = self.pools.of(port.host.first()) else { continue };
            for (protocol, number) in
                port.protocols.iter().flat_map(|p| port.host.iter().map(move |n| (p, n)))
            {
                if pool.quarantine > Duration::ZERO {
                    self.kept.insert((protocol, number), (self.now + pool.quarantine, Some(who.clone())));
                }
            }
        }
    }

    /// Checks an answer port by port, in the order in which they are chosen: static ones first.
    fn check_answer(&self, who: &InstanceId, requests: &[PortRequest], ports: &[PublishedPort]) {
        assert_eq!(ports.len(), requests.len());
        let mut pairs: Vec<_> = requests.iter().zip(ports).collect();
        pairs.sort_by_key(|(request, _)| request.host.is_none());
        let mut before: Vec<PublishedPort> = Vec::new();
        for (request, port) in pairs {
            assert_eq!((&port.name, port.protocols), (&request.name, request.protocols));
            assert_eq!((port.host.count(), port.address), (request.count, request.address));
            if let Some(host) = request.host {
                assert_eq!(port.host.first(), host);
                for (protocol, n) in port.protocols.iter().flat_map(|p| port.host.iter().map(move |n| (p, n)))
                {
                    assert!(
                        !self.in_use(&before, protocol, n, port.address),
                        "{protocol} {n} is given twice"
                    );
                }
            } else {
                let pool = self.pools.get(request.pool.as_ref()).unwrap();
                assert!(pool.ranges.covers(port.host), "{port:?} is outside of {pool:?}");
                let free =
                    |strict| port.host.iter().all(|n| self.free(&before, who, strict, request.protocols, n));
                assert!(free(false), "{port:?} was not free for {who}");
                let again = self.last.get(&(who.clone(), port.name.clone())) == Some(&port.host);
                // What was its own comes out of quarantine only when nothing else is left.
                let strict = again || free(true);
                let need = || !self.place(&before, who, true, request, 1);
                assert!(strict || need(), "{port:?} comes out of quarantine without need");
                // As well aligned as any free place is.
                let mut align = choose::alignment(request.count);
                while !again && !port.host.first().is_multiple_of(align) {
                    assert!(!self.place(&before, who, strict, request, align), "{port:?} can be at {align}");
                    align /= 2;
                }
            }
            before.push(port.clone());
        }
    }

    /// Checks that a refusal has a reason: some order of the requests' own ports leaves no place for one of them.
    fn check_refusal(&self, who: &InstanceId, requests: &[PortRequest], error: &AllocateError) {
        let find = |name: &PortName| requests.iter().find(|r| r.name == *name).unwrap();
        match error {
            AllocateError::Exhausted { port, exhaustion } => {
                let request = find(port);
                assert_eq!(exhaustion.count, request.count);
                // Ports chosen for the same instance before this one are not known here; alone, it must be so.
                if requests.len() == 1 {
                    assert!(!self.place(&[], who, false, request, 1), "{error}, but there is a place");
                    let u = &exhaustion.usage;
                    assert_eq!(u.free + u.used + u.quarantined + u.reserved, u.ranges.count());
                    let free = u.ranges.iter().flat_map(PortRange::iter);
                    let free = free.filter(|p| self.free(&[], who, true, request.protocols, *p)).count();
                    assert_eq!(u.free as usize, free);
                }
            }
            AllocateError::Leased { port, number, protocol, address } => {
                let request = find(port);
                let own = requests
                    .iter()
                    .any(|r| r.name != *port && r.host.is_some() && r.protocols.contains(*protocol));
                assert!(own || self.in_use(&[], *protocol, *number, *address), "{error}, but it is free");
                assert_eq!(request.address, *address);
            }
            AllocateError::TooLarge { port, ranges, .. } => assert!(find(port).count > ranges.longest()),
            AllocateError::Protocol { port, allowed, .. } => {
                assert!(find(port).protocols.iter().any(|protocol| !allowed.contains(protocol)));
            }
            AllocateError::OutsidePool { host, ranges, .. } => assert!(!ranges.covers(*host)),
            AllocateError::Request { port, .. } => {
                let request = find(port);
                let twice = requests.iter().filter(|r| r.name == *port).count() > 1;
                assert!(twice || PortRange::block(request.host.unwrap(), request.count).is_none());
            }
            AllocateError::Pool { .. } => panic!("every asked pool is there: {error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_gives_a_port_twice_or_refuses_one_that_is_free(
        steps in prop::collection::vec(step(), 1..32), seed in any::<u64>()
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut allocator = allocator();
        let mut model = Model::new(pools());
        for step in steps {
            match step {
                Step::Lease { who, requests } => {
                    let who = name(&format!("web-{who}"));
                    if model.leases.contains_key(&who) { continue }
                    match allocator.allocate(&who, &requests, model.now, &mut random) {
                        Ok(ports) => {
                            model.check_answer(&who, &requests, &ports);
                            for (port, _) in ports.iter().zip(&requests).filter(|(_, r)| r.host.is_none()) {
                                model.last.insert((who.clone(), port.name.clone()), port.host);
                            }
                            model.leases.insert(who, ports);
                        }
                        Err(error) => model.check_refusal(&who, &requests, &error),
                    }
                }
                Step::Release { who } => {
                    let who = name(&format!("web-{who}"));
                    if let Some(ports) = model.leases.remove(&who) {
                        allocator.release(&who, &ports, model.now);
                        model.release(&who, &ports);
                    }
                }
                Step::Foreign { protocol, port } => {
                    let until = model.now + Duration::from_secs(30);
                    allocator.avoid(protocol, port, until);
                    model.kept.insert((protocol, port), (until, None));
                }
                Step::Reserve { ranges } => {
                    allocator.set_reserved(&ranges);
                    model.set_reserved(&ranges);
                }
                Step::Announce { who, ports } => {
                    allocator.announce(&format!("pod-{who}"), ports.clone());
                    model.announced.insert(who, ports);
                }
                Step::SetPools { other } => {
                    let pools = if other { other_pools() } else { pools() };
                    allocator.set_pools(pools.clone());
                    model.pools = pools;
                    model.set_reserved(&model.others.clone());
                }
                Step::Wait { seconds } => model.now += Duration::from_secs(seconds.into()),
            }
        }
        for usage in allocator.usage(model.now) {
            let all = model.pools.get(Some(&usage.pool)).unwrap().protocols;
            let nobody = name("nobody");
            let free = usage.ranges.iter().flat_map(PortRange::iter);
            let free = free.filter(|p| model.free(&[], &nobody, true, all, *p)).count();
            prop_assert_eq!(usage.free as usize, free);
        }
    }
}
