//! How a failure is told: `error: …` with its causes, then `hint: …` with what to do.

use std::{fmt, io::Write};

use anstyle::{AnsiColor, Effects, Style};
use portolan_cli::{ConfigError, TokenError};
use portolan_client::ClientError;

const ERROR: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
const HINT: Style = AnsiColor::Cyan.on_default().effects(Effects::BOLD);

/// What to do about an error, as a link of an [`anyhow`] chain: add it by [`Hint::hint`].
#[derive(Debug)]
pub(crate) struct Hinted {
    hint: String,
    source: anyhow::Error,
}

impl fmt::Display for Hinted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.source, f)
    }
}

impl std::error::Error for Hinted {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // It shows as its source does, so the chain goes on behind that.
        self.source.chain().nth(1)
    }
}

/// Adds hints to results.
pub(crate) trait Hint<T> {
    /// The same failure with what to do about it.
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T>;
}

impl<T, E: Into<anyhow::Error>> Hint<T> for Result<T, E> {
    fn hint(self, hint: impl Into<String>) -> anyhow::Result<T> {
        self.map_err(|error| hinted(error, hint))
    }
}

/// An error with what to do about it.
pub(crate) fn hinted(error: impl Into<anyhow::Error>, hint: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Hinted { hint: hint.into(), source: error.into() })
}

/// An error that knows what to do about it.
pub(crate) trait Mendable: std::error::Error + Send + Sync + 'static {
    /// What to do about it.
    fn hint(&self) -> String;
}

/// The error with its own hint.
pub(crate) fn mendable(error: impl Mendable) -> anyhow::Error {
    let hint = error.hint();
    hinted(error, hint)
}

/// Writes an error to stderr. A closed stderr is nobody's to tell.
pub(crate) fn print(error: &anyhow::Error) {
    let mut stderr = anstream::stderr().lock();
    let _ = write!(stderr, "{}", Told(error));
}

/// As [`print()`], with one more hint.
pub(crate) fn print_with_hint(error: &anyhow::Error, hint: Option<impl fmt::Display>) {
    print(error);
    if let Some(hint) = hint {
        let _ = writeln!(anstream::stderr(), "{HINT}hint:{HINT:#} {hint}");
    }
}

/// The lines of an error.
struct Told<'a>(&'a anyhow::Error);

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut message = String::new();
        for cause in self.0.chain().map(ToString::to_string) {
            // Some errors already end with the text of their cause.
            if !message.ends_with(&cause) {
                message = if message.is_empty() { cause } else { format!("{message}: {cause}") };
            }
        }
        writeln!(f, "{ERROR}error:{ERROR:#} {message}")?;
        for hint in hints(self.0) {
            writeln!(f, "{HINT}hint:{HINT:#} {hint}")?;
        }
        Ok(())
    }
}

fn hints(error: &anyhow::Error) -> Vec<String> {
    let mut hints = Vec::new();
    collect(error, &mut hints);
    hints
}

/// A hinted error stands for its source in the chain, so hints inside of it are looked for there.
fn collect(error: &anyhow::Error, hints: &mut Vec<String>) {
    for cause in error.chain() {
        let hint = if let Some(hinted) = cause.downcast_ref::<Hinted>() {
            hints.push(hinted.hint.clone());
            return collect(&hinted.source, hints);
        } else if let Some(error) = cause.downcast_ref::<ConfigError>() {
            error.hint()
        } else if cause.downcast_ref::<TokenError>().is_some() {
            Some("give the token itself by PORTOLAN_TOKEN, or another file by --token-file".to_owned())
        } else {
            cause.downcast_ref().and_then(of_client)
        };
        hints.extend(hint);
    }
}

fn of_client(error: &ClientError) -> Option<String> {
    match error {
        ClientError::NobodyThere { endpoint, .. } if endpoint.starts_with("unix:") => {
            Some("its data folder must be the one that `portolan up` uses: --data (or PORTOLAN_DATA) names another".to_owned())
        }
        ClientError::NobodyThere { .. } | ClientError::Strange { .. } => {
            Some("--server (or PORTOLAN_SERVER) names another place".to_owned())
        }
        ClientError::Refused { status, .. } if matches!(status.as_u16(), 401 | 403) => Some(
            "ask from the registry's machine, or give its token by PORTOLAN_TOKEN or --token-file".to_owned(),
        ),
        _ => None,
    }
}

/// Whether it is only that the reader of stdout has seen enough, as `head` does.
pub(crate) fn is_closed_stdout(error: &anyhow::Error) -> bool {
    let kind = |cause: &(dyn std::error::Error + 'static)| cause.downcast_ref().map(std::io::Error::kind);
    error.chain().any(|cause| kind(cause) == Some(std::io::ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context, anyhow};

    fn told(error: &anyhow::Error) -> String {
        anstream::adapter::strip_str(&Told(error).to_string()).to_string()
    }

    #[test]
    fn causes_are_one_line_and_hints_follow() {
        let error = Err::<(), _>(anyhow!("connection refused"))
            .context("cannot ask http://127.0.0.1:10080")
            .hint("start `portolan up`")
            .context("cannot list")
            .unwrap_err();
        assert_eq!(
            told(&error),
            "error: cannot list: cannot ask http://127.0.0.1:10080: connection refused\nhint: start `portolan up`\n"
        );
    }

    #[test]
    fn a_hint_inside_a_hint_is_shown_too() {
        let error = Err::<(), _>(anyhow!("a")).hint("inner").context("b").hint("outer").unwrap_err();
        assert_eq!(told(&error), "error: b: a\nhint: outer\nhint: inner\n");
    }

    #[test]
    fn a_cause_is_not_told_twice() {
        let error = anyhow!("x is broken").context("cannot: x is broken");
        assert_eq!(told(&error), "error: cannot: x is broken\n");
    }
}
