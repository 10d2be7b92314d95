//! Where log lines go and how they look: stderr, so that stdout stays data.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, filter::ParseError, fmt, prelude::*};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One line of text, in colour on a terminal.
    Text,
    /// One JSON object per line.
    Json,
}

/// Sends the log of this process to stderr from now on; a second call changes nothing.
///
/// `level` is `error`, `warn`, `info`, `debug` or `trace`. `PORTOLAN_LOG` wins over it, with the directives of
/// `tracing-subscriber` (`portolan_registry=debug,info`); the error is about that variable.
pub fn start(level: &str, form: Form, color: bool) -> Result<(), ParseError> {
    let filter = match std::env::var("PORTOLAN_LOG") {
        Ok(directives) if !directives.trim().is_empty() => EnvFilter::try_new(directives)?,
        // Libraries tell each connection and each request at debug, and kube's client each one that fails as an error,
        // however often it is tried: all of that is ours to tell.
        _ => EnvFilter::try_new(format!(
            "{level},hyper=warn,hyper_util=warn,hickory_proto=warn,kube_client=warn,kube_client::client::builder=off,\
             kube_runtime=warn,rustls=warn,tower=warn"
        ))?,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr);
    // A program that has a log already, such as a test, keeps it.
    let _ = match form {
        Form::Json => registry.with(lines.json().flatten_event(true)).try_init(),
        Form::Text => registry
            .with(lines.with_ansi(color && std::io::stderr().is_terminal()).with_target(false))
            .try_init(),
    };
    Ok(())
}
