//! The flags that every verb takes, and where the data folder and the token are when nobody says.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{ArgAction, Args, ColorChoice, ValueEnum};

/// Flags of every verb.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where the API of `portolan up` is.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "PORTOLAN_SERVER",
        default_value = "http://127.0.0.1:10080"
    )]
    pub server: String,

    /// The data folder [default: /var/lib/portolan as root, else $XDG_STATE_HOME/portolan].
    #[arg(long, global = true, value_name = "DIR", env = "PORTOLAN_DATA")]
    pub data: Option<PathBuf>,

    /// The token that the API asks for when the caller is on another machine.
    #[arg(long, global = true, value_name = "TOKEN", env = "PORTOLAN_TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// A file with the token: for `up` the one it accepts, for all others the one they send.
    #[arg(long, global = true, value_name = "FILE", env = "PORTOLAN_TOKEN_FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,

    /// The least serious messages to log [default: info for up, run, serve and demo, else warn].
    #[arg(long, global = true, value_name = "LEVEL", env = "PORTOLAN_LOG_LEVEL")]
    pub log_level: Option<LogLevel>,

    /// Log more: -v debug, -vv trace.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// How log lines look.
    #[arg(long, global = true, value_name = "FORMAT", env = "PORTOLAN_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// When to use colours; NO_COLOR is honoured.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorChoice,
}

/// How serious a message must be to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what may soon.
    Warn,
    /// And what happened.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl LogLevel {
    /// As `tracing` and its filters spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text, for people.
    Text,
    /// One JSON object per line, for machines.
    Json,
}

/// Why the token cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be opened or read.
    #[error("cannot read the token file {}", path.display())]
    Read {
        /// As given by `--token-file`.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Nothing but white space in it.
    #[error("the token file {} is empty", .0.display())]
    Empty(PathBuf),
}

impl Global {
    /// The data folder: as given, or where the system keeps state for this user. It need not exist.
    pub fn data_dir(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| {
            default_data_dir(
                rustix::process::geteuid().is_root(),
                std::env::var_os("XDG_STATE_HOME").map(PathBuf::from),
                std::env::var_os("HOME").map(PathBuf::from),
            )
        })
    }

    /// The token, from `--token` or from the file, without white space at its ends.
    pub fn read_token(&self) -> Result<Option<String>, TokenError> {
        // Both are there only when the file's name comes from the configuration file: the flag wins.
        let (None, Some(path)) = (&self.token, self.token_file.as_deref()) else {
            return Ok(self.token.clone());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        match text.trim() {
            "" => Err(TokenError::Empty(path.to_owned())),
            token => Ok(Some(token.to_owned())),
        }
    }

    /// What to log: the flags, or `default` when there are none.
    pub fn level(&self, default: LogLevel) -> LogLevel {
        match (self.verbose, self.log_level) {
            (0, level) => level.unwrap_or(default),
            (1, _) => LogLevel::Debug,
            _ => LogLevel::Trace,
        }
    }

    /// Whether the server is on this machine, as far as its URL tells without asking DNS.
    pub fn server_is_local(&self) -> bool {
        let authority = self.server.split_once("://").map_or(self.server.as_str(), |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        authority.starts_with("localhost")
            || authority.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
    }
}

/// The XDG base directory specification says that a relative `XDG_STATE_HOME` is to be ignored.
fn default_data_dir(root: bool, state_home: Option<PathBuf>, home: Option<PathBuf>) -> PathBuf {
    if root {
        return PathBuf::from("/var/lib/portolan");
    }
    let state = state_home
        .filter(|path| path.is_absolute())
        .unwrap_or_else(|| home.unwrap_or_else(std::env::temp_dir).join(".local/state"));
    state.join(Path::new("portolan"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_users_have_folders_of_their_own() {
        let path = |p: &str| Some(PathBuf::from(p));
        assert_eq!(default_data_dir(true, path("/x"), path("/root")), Path::new("/var/lib/portolan"));
        assert_eq!(default_data_dir(false, path("/x"), path("/home/u")), Path::new("/x/portolan"));
        let home = Path::new("/home/u/.local/state/portolan");
        assert_eq!(default_data_dir(false, None, path("/home/u")), home);
        assert_eq!(default_data_dir(false, path("relative"), path("/home/u")), home);
    }
}
