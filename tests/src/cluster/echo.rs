//! A Pod that gives back what it is given, over connections that are kept.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use portolan_cluster::Node;
use portolan_testkit::{ask, eventually_ok};
use serde_json::Value;

use super::{Asking, Outside, Space, public_address, told};

const SOON: Duration = Duration::from_secs(30);

/// A Pod on a node that echoes lines, and a client outside.
#[derive(Debug)]
pub struct Echo {
    /// The client.
    pub outside: Outside,
    /// Where the Pod is reached.
    pub server: SocketAddr,
    /// The Pod.
    pub pod: Value,
}

impl Echo {
    /// Starts the Pod `echo` and waits until it answers.
    #[track_caller]
    pub fn start(space: &Space, node: &Node<'_>) -> Self {
        let script = "exec socat TCP-LISTEN:$PORTOLAN_PORT_ECHO,fork,reuseaddr EXEC:cat";
        let pod = Asking::script("echo", "echo", script).on(node).start(space);
        let outside = Outside::new(space.cluster(), space.name(), "examples");
        let server = SocketAddr::new(public_address(&pod), *told(&pod)[0].host.start());
        let echo = Self { outside, server, pod };
        echo.connect();
        echo
    }

    /// A connection that works.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        let connected = eventually_ok(SOON, || {
            let open = || TcpStream::connect_timeout(&self.server, Duration::from_secs(2));
            let stream = self.outside.namespace().run(open).map_err(|error| error.to_string())?;
            Self::over(&stream, "hello").map(|()| stream)
        });
        connected.unwrap_or_else(|error| panic!("{}: {error}", self.server))
    }

    /// That a new connection works so soon.
    #[track_caller]
    pub fn is_back_within(&self, patience: Duration) {
        let connected = eventually_ok(patience, || {
            let open = || TcpStream::connect_timeout(&self.server, Duration::from_millis(200));
            let stream = self.outside.namespace().run(open).map_err(|error| error.to_string())?;
            Self::over(&stream, "back")
        });
        assert!(connected.is_ok(), "{} within {patience:?}: {connected:?}", self.server);
    }

    /// That nobody answers, or somebody else.
    pub fn is_away(&self) -> bool {
        let open = || TcpStream::connect_timeout(&self.server, Duration::from_secs(1));
        !self.outside.namespace().run(open).is_ok_and(|stream| Self::over(&stream, "hello").is_ok())
    }

    /// That a connection gives back what it is given.
    pub fn over(mut stream: &TcpStream, word: &str) -> Result<(), String> {
        stream.write_all(format!("{word}\n").as_bytes()).map_err(|error| error.to_string())?;
        match ask::first_line(stream, Duration::from_secs(3)) {
            Ok(line) if line == word => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }
}
