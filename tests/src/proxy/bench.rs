//! Runs cases under one service proxy: all of them in one cluster, many at a time.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use portolan_testkit::eventually_ok;

use super::{
    api::{Api, SERVICES, SLICES},
    case::{Case, Outcome, Scene},
    echo::Servers,
    probe::ask,
    program::{Program, Running},
    service::{Protocol, Service},
    world::{FAMILIES, Place, World, write_nodes},
};

/// How many cases run at once: they mostly wait.
const AT_ONCE: usize = 24;
/// How long the first programming may take on a busy machine.
const START: Duration = Duration::from_secs(90);

/// What came of all cases under one proxy.
#[derive(Debug)]
pub struct Ran {
    /// Which.
    pub program: Program,
    /// By the names of the cases.
    pub outcomes: BTreeMap<String, Outcome>,
    /// From the start of the proxies until all of them had programmed everything.
    pub programmed: Duration,
    /// All of it.
    pub took: Duration,
}

/// Runs the cases.
#[track_caller]
pub fn run(program: Program, api: &Api, cases: &[Case]) -> Ran {
    let started = Instant::now();
    let nodes = cases.iter().map(|case| case.nodes).max().unwrap_or(1);
    for collection in [SLICES, SERVICES] {
        api.delete(collection);
    }
    write_nodes(api, nodes);
    let services: Vec<&Service> = cases.iter().flat_map(|case| &case.services).collect();
    in_parallel(&services, |service| service.create(api));
    let world = World::new(api.cluster(), nodes);
    let servers = Servers::start(&world);
    let proxies_started = Instant::now();
    let mut proxies = Running::everywhere(program, api, &world);
    fence(api, &world, &mut proxies);
    let programmed = proxies_started.elapsed();

    let scene = Scene { api, world: &world, proxies: &proxies };
    let outcomes = Mutex::new(BTreeMap::new());
    let cases: Vec<&Case> = cases.iter().collect();
    in_parallel(&cases, |case| {
        // A case that panics is a failed case and not the end of the others.
        let outcome = catch_unwind(AssertUnwindSafe(|| case.run(scene))).unwrap_or_else(|panic| Outcome {
            seen: vec![format!("panicked: {}", words_of(&panic))],
            expected: vec!["an answer".to_owned()],
        });
        outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(case.name.clone(), outcome);
    });
    for proxy in &mut proxies {
        assert!(
            proxy.process.is_running(),
            "{} of node {} has ended:\n{}",
            program.name(),
            proxy.node(),
            proxy.log()
        );
    }
    drop(servers);
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ran { program, outcomes, programmed, took: started.elapsed() }
}

/// Waits until every node serves a Service that is made now: what was there before is served then, too.
#[track_caller]
pub fn fence(api: &Api, world: &World, proxies: &mut [Running]) {
    let service = Service::bare(&FAMILIES).port(Protocol::Tcp, 80, 8080).at(&["1a"]);
    service.create(api);
    let deadline = Instant::now() + START;
    for proxy in proxies {
        for family in FAMILIES {
            let served = eventually_ok(deadline.saturating_duration_since(Instant::now()), || {
                assert!(proxy.process.is_running(), "it has ended:\n{}", proxy.process.transcript());
                ask(world, Place::Node(proxy.node()), service.cluster(family, Protocol::Tcp))
            });
            if let Err(error) = served {
                panic!("node {} does not serve: {error}\n{}", proxy.node(), proxy.log());
            }
        }
    }
}

/// Does the work for each item, in order but many at once.
fn in_parallel<T: Sync>(items: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(item);
                }
            });
        }
    });
}

fn words_of(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}
