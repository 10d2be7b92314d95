//! Load: many connections that stay open, and somebody who connects anew all the time.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::{Child, ChildStdout, Stdio},
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

/// Lets this process have as many files open as it may.
pub fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        panic!("this process cannot have {limit:?} files open: {error}");
    }
}

/// Connections that stay open; each knows who answered it first.
#[derive(Debug)]
pub struct Open(Vec<(BufReader<TcpStream>, String)>);

impl Open {
    /// Opens this many from a place, one after the other.
    #[track_caller]
    pub fn new(world: &World, from: Place, target: Target, count: usize) -> Self {
        let source = from.address(family_of(target.address.ip()));
        let opened = world.at(from).run(|| Self::here(source, target.address, count));
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    /// In the namespace of the calling thread.
    fn here(source: IpAddr, target: SocketAddr, count: usize) -> Result<Self, String> {
        let one = |number| {
            let told = |error: String| format!("connection {number}: {error}");
            let stream = connect(source, 0, target).map_err(|error| told(error.to_string()))?;
            let mut stream = BufReader::new(stream);
            let name = hear(&mut stream).map_err(told)?;
            Ok((stream, name))
        };
        (0..count).map(one).collect::<Result<Vec<_>, String>>().map(Self)
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

/// The same in a process of their own: both ends of ten thousand are more files than one process may have open.
#[derive(Debug)]
pub struct Held {
    process: Child,
    words: BufReader<ChildStdout>,
    /// How many there are.
    pub count: usize,
}

/// What [`be_holder`] reads: source, target, number.
const HOLD: &str = "PORTOLAN_TEST_HOLD";

impl Held {
    /// Opens them; `test` is a test of this program that does nothing but [`be_holder`].
    #[track_caller]
    pub fn new(world: &World, from: Place, target: Target, count: usize, test: &str) -> Self {
        let source = from.address(family_of(target.address.ip()));
        let started = std::env::current_exe().and_then(|program| {
            let mut command = world.at(from).command(&program.to_string_lossy());
            command.args(["--exact", test, "--ignored", "--nocapture"]);
            command.env(HOLD, format!("{source} {} {count}", target.address));
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        });
        let mut process = started.unwrap_or_else(|error| panic!("cannot start this program: {error}"));
        let words = process.stdout.take().expect("it is piped");
        let mut held = Self { process, words: BufReader::new(words), count };
        held.next("held");
        held
    }

    /// As [`Open::broken`].
    #[track_caller]
    pub fn broken(&mut self) -> usize {
        let asked = self.process.stdin.as_mut().map(|input| input.write_all(b"?\n"));
        assert!(matches!(asked, Some(Ok(()))), "{asked:?}");
        self.next("broken")
    }

    /// The number after a word; the test harness says things of its own before it.
    #[track_caller]
    fn next(&mut self, word: &str) -> usize {
        let mut said = String::new();
        loop {
            let before = said.len();
            match self.words.read_line(&mut said) {
                Ok(1..) => {}
                other => panic!("the process with the connections has ended: {other:?}: {said}"),
            }
            let line = said[before..].split_once(&format!("{word} "));
            if let Some(number) = line.and_then(|(_, number)| number.trim().parse().ok()) {
                return number;
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the process of [`Held`] does; nothing where nobody has started it so.
pub fn be_holder() {
    let Ok(wanted) = std::env::var(HOLD) else { return };
    let words: Vec<&str> = wanted.split(' ').collect();
    let (source, target, count) = match words.as_slice() {
        [source, target, count] => (source.parse(), target.parse(), count.parse()),
        _ => panic!("{wanted} is no source, target and number"),
    };
    let (Ok(source), Ok(target), Ok(count)) = (source, target, count) else { panic!("{wanted}") };
    many_files();
    let mut open = Open::here(source, target, count).unwrap_or_else(|error| panic!("{error}"));
    let mut out = std::io::stdout();
    let _ = writeln!(out, "held {}", open.count()).and_then(|()| out.flush());
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        let _ = writeln!(out, "broken {}", open.broken()).and_then(|()| out.flush());
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
