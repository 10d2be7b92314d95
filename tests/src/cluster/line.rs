//! A connection that is kept.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use portolan_testkit::{ask, eventually_ok};

const PATIENCE: Duration = Duration::from_secs(5);

/// To a server that gives back each line.
#[derive(Debug)]
pub struct Line(TcpStream);

impl Line {
    /// Opens one from the namespace of the calling thread.
    pub fn to(server: SocketAddr) -> io::Result<Self> {
        TcpStream::connect_timeout(&server, PATIENCE).map(Self)
    }

    /// One that is answered, if there is one within this time.
    #[track_caller]
    pub fn soon(time: Duration, open: impl Fn() -> io::Result<Self>) -> Self {
        let opened = eventually_ok(time, || {
            let mut line = open().map_err(|error| error.to_string())?;
            line.ask("hello").map_err(|error| error.to_string()).map(|()| line)
        });
        opened.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Says a word and hears it.
    pub fn ask(&mut self, word: &str) -> io::Result<()> {
        self.0.write_all(format!("{word}\n").as_bytes())?;
        let answer = ask::first_line(&self.0, PATIENCE)?;
        if answer.trim() == word {
            Ok(())
        } else {
            Err(io::Error::other(format!("{word:?} came back as {answer:?}")))
        }
    }

    /// The same; panics when it fails.
    #[track_caller]
    pub fn says(&mut self, word: &str) {
        if let Err(error) = self.ask(word) {
            panic!("{word}: {error}");
        }
    }
}
