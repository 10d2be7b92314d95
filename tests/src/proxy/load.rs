//! Load: many connections that stay open, and somebody who connects anew all the time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    echo::{family_of, parse},
    probe::{ask, connect},
    service::Target,
    world::{Place, World},
};

/// Lets this process have as many files open as it may: a connection to ourselves is two.
pub fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Connections that stay open; each knows who answered it first.
#[derive(Debug)]
pub struct Open(Vec<(BufReader<TcpStream>, String)>);

impl Open {
    /// Opens this many from a place, one after the other.
    #[track_caller]
    pub fn new(world: &World, from: Place, target: Target, count: usize) -> Self {
        let source = from.address(family_of(target.address.ip()));
        let opened = world.at(from).run(|| {
            (0..count)
                .map(|number| {
                    let stream = connect(source, 0, target.address)
                        .map_err(|error| format!("connection {number}: {error}"))?;
                    let mut stream = BufReader::new(stream);
                    let name = hear(&mut stream).map_err(|error| format!("connection {number}: {error}"))?;
                    Ok((stream, name))
                })
                .collect::<Result<Vec<_>, String>>()
        });
        Self(opened.unwrap_or_else(|error| panic!("{error}")))
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Says something on each of them: how many are answered no more, or by somebody else than before.
    pub fn broken(&mut self) -> usize {
        let mut broken = 0;
        for (stream, name) in &mut self.0 {
            let said = stream.get_mut().write_all(b"still there?\n").map_err(|error| error.to_string());
            if said.and_then(|()| hear(stream)).as_ref() != Ok(name) {
                broken += 1;
            }
        }
        broken
    }
}

fn hear(stream: &mut BufReader<TcpStream>) -> Result<String, String> {
    let mut line = String::new();
    match stream.read_line(&mut line) {
        Ok(1..) => parse(&line).map(|(name, ..)| name).ok_or(line),
        Ok(0) => Err("closed".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What came of connecting anew all the time.
#[derive(Clone, Debug, Default)]
pub struct Anew {
    /// How often it was done.
    pub tries: usize,
    /// What was not answered: when, where, and what came instead.
    pub failures: Vec<String>,
    /// The longest time between two answers of the same target.
    pub longest: Duration,
}

/// Connects to the targets all the time while `work` is done.
pub fn while_connecting<T>(
    world: &World,
    targets: &[(Place, Target)],
    work: impl FnOnce() -> T,
) -> (T, Anew) {
    let (stop, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (failures, longest) = (Mutex::new(Vec::new()), Mutex::new(Duration::ZERO));
    let start = Instant::now();
    let value = std::thread::scope(|scope| {
        for (place, target) in targets {
            let (stop, tries, failures, longest) = (&stop, &tries, &failures, &longest);
            scope.spawn(move || {
                let mut last = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    tries.fetch_add(1, Ordering::Relaxed);
                    match ask(world, *place, *target) {
                        Ok(_) => {
                            let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
                            *longest = (*longest).max(last.elapsed());
                            last = Instant::now();
                        }
                        Err(failure) => {
                            let at = start.elapsed().as_secs_f32();
                            let line = format!(
                                "{at:.2} s: {place:?} {:?} {}: {failure}",
                                target.protocol, target.address
                            );
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                        }
                    }
                }
            });
        }
        let value = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        value
    });
    let value = value.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    let longest = longest.into_inner().unwrap_or_else(PoisonError::into_inner);
    (value, Anew { tries: tries.into_inner(), failures, longest })
}
