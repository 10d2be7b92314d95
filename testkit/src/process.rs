//! Programs that run beside a test: what they print is kept, and they end with the value.

use std::{
    io::{BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::wait::eventually_ok;

/// A running program, in a process group of its own. Dropping it kills the group and waits for the program.
#[derive(Debug)]
pub struct Background {
    what: String,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

#[derive(Debug)]
struct Captured {
    text: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Background {
    /// Starts `command` with its output captured and no input.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        // A group of its own: what `interrupt` reaches is what Ctrl-C in a terminal would reach, and not the test.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => panic!("cannot start {what}: {error}"),
        };
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Self { what, child, stdout, stderr }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Both, with headings, for messages of failed tests.
    pub fn transcript(&self) -> String {
        format!("{}\n--- stdout\n{}--- stderr\n{}---", self.what, self.stdout(), self.stderr())
    }

    /// Sends it a signal. Does nothing when it has ended.
    pub fn signal(&mut self, signal: Signal) {
        // `try_wait` first: a process id that has been waited for may belong to somebody else.
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Sends the signal to its whole process group, as a terminal does at Ctrl-C.
    pub fn signal_group(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None))
            && let Some(pid) = Pid::from_raw(self.child.id().cast_signed())
        {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for its end; panics with its output when it does not end in time.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let ended = eventually_ok(deadline, || match self.child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("still running".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        match ended {
            Ok(status) => {
                self.stdout.finish();
                self.stderr.finish();
                status
            }
            Err(why) => panic!("not ended within {deadline:?}: {why}\n{}", self.transcript()),
        }
    }

    /// Waits until its standard output satisfies `condition`; panics with its output otherwise.
    #[track_caller]
    pub fn wait_stdout(&mut self, deadline: Duration, condition: impl Fn(&str) -> bool) -> String {
        self.wait_text(deadline, Self::stdout, condition)
    }

    /// Waits until its standard error satisfies `condition`; panics with its output otherwise.
    #[track_caller]
    pub fn wait_stderr(&mut self, deadline: Duration, condition: impl Fn(&str) -> bool) -> String {
        self.wait_text(deadline, Self::stderr, condition)
    }

    #[track_caller]
    fn wait_text(
        &mut self,
        deadline: Duration,
        text: impl Fn(&Self) -> String,
        condition: impl Fn(&str) -> bool,
    ) -> String {
        let mut ended = false;
        let found = eventually_ok(deadline, || {
            // Looked at before the text: what it wrote last is in the text when it is seen to have ended.
            let running = self.is_running();
            let text = text(self);
            if condition(&text) {
                return Ok(Some(text));
            }
            // One more look after the end, then no more waiting: the reader may lag behind the process.
            if !running && std::mem::replace(&mut ended, true) {
                return Ok(None);
            }
            Err(())
        });
        match found {
            Ok(Some(text)) => text,
            Ok(None) => panic!("it ended before it said what the test waits for: {}", self.transcript()),
            Err(()) => panic!("not said within {deadline:?}: {}", self.transcript()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.signal_group(Signal::KILL);
        let _ = self.child.wait();
        // The readers are not waited for: a grandchild that keeps the pipe open would hold the test.
    }
}

impl Captured {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let text = Arc::new(Mutex::new(String::new()));
        let reader = pipe.map(|pipe| {
            let text = Arc::clone(&text);
            thread::spawn(move || {
                let mut lines = BufReader::new(pipe);
                let mut line = Vec::new();
                while let Ok(1..) = lines.read_until(b'\n', &mut line) {
                    text.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        });
        Self { text, reader }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits a little for the reader to come to the end; a grandchild may keep the pipe open for ever.
    fn finish(&mut self) {
        if let Some(reader) = &self.reader {
            let _ = eventually_ok(Duration::from_millis(500), || {
                if reader.is_finished() { Ok(()) } else { Err(()) }
            });
        }
    }
}
