//! What a health check does and how often: the text of `portolan run --health` and the API's `check` object.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{NameError, PortName};

/// How to look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum CheckKind {
    /// `GET path`: 2xx passes, 429 warns, all else fails. Redirects are not followed.
    Http {
        /// The path with its query, beginning with `/`.
        path: String,
    },
    /// A TCP connection that completes passes.
    Tcp,
}

/// A health check of one port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSpec {
    /// The port's name; `None` is the instance's first TCP port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortName>,
    /// How to look.
    #[serde(flatten)]
    pub kind: CheckKind,
    /// From one look to the next, before jitter of 10 % either way. 1 s at least.
    #[serde(with = "humantime_text", default = "default_interval")]
    pub interval: Duration,
    /// How long one look may take. Shorter than or equal to the interval.
    #[serde(with = "humantime_text", default = "default_timeout")]
    pub timeout: Duration,
    /// Consecutive failures before `critical`.
    #[serde(default = "default_fall")]
    pub fall: u32,
    /// Consecutive successes before `passing` again. The very first success after registration counts at once.
    #[serde(default = "default_rise")]
    pub rise: u32,
}

const fn default_interval() -> Duration {
    Duration::from_secs(10)
}
const fn default_timeout() -> Duration {
    Duration::from_secs(2)
}
const fn default_fall() -> u32 {
    3
}
const fn default_rise() -> u32 {
    2
}

/// Why a text or object is no usable [`CheckSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckSpecError {
    /// Not `http:…` or `tcp…`.
    #[error(
        "{0:?} is no health check: write http:/healthz, http:/healthz@PORTNAME, tcp or tcp@PORTNAME, then options such as ,interval=5s,timeout=1s,fall=3,rise=2"
    )]
    Syntax(String),
    /// The port name after `@`.
    #[error("in the health check {0:?}: {1}")]
    Port(String, NameError),
    /// An interval under 1 s would load the target more than it tells.
    #[error("the health check's interval of {} is under 1s", humantime::format_duration(*.0))]
    IntervalTooShort(Duration),
    /// A look would still run when the next begins.
    #[error("the health check's timeout of {} is zero or longer than its interval of {}", humantime::format_duration(*.timeout), humantime::format_duration(*.interval))]
    Timeout {
        /// As asked.
        timeout: Duration,
        /// As asked.
        interval: Duration,
    },
    /// `fall` or `rise` of 0.
    #[error("the health check's {0} is 0: it needs at least 1 look")]
    Threshold(&'static str),
    /// A path that does not begin with a slash, or with characters that no request line carries.
    #[error("the health check's path {0:?} must begin with '/' and have no spaces or control characters")]
    Path(String),
}

impl CheckSpec {
    /// A check of this kind with the default timing: each 10 s, 2 s at most, 3 failures to fall, 2 successes to rise.
    pub const fn new(kind: CheckKind) -> Self {
        Self {
            port: None,
            kind,
            interval: default_interval(),
            timeout: default_timeout(),
            fall: default_fall(),
            rise: default_rise(),
        }
    }

    /// Says what makes it unusable, if anything.
    pub fn validate(&self) -> Result<(), CheckSpecError> {
        if self.interval < Duration::from_secs(1) {
            return Err(CheckSpecError::IntervalTooShort(self.interval));
        }
        if self.timeout.is_zero() || self.timeout > self.interval {
            return Err(CheckSpecError::Timeout { timeout: self.timeout, interval: self.interval });
        }
        if self.fall == 0 {
            return Err(CheckSpecError::Threshold("fall"));
        }
        if self.rise == 0 {
            return Err(CheckSpecError::Threshold("rise"));
        }
        if let CheckKind::Http { path } = &self.kind
            && (!path.starts_with('/') || path.bytes().any(|b| b <= b' ' || b == 0x7f))
        {
            return Err(CheckSpecError::Path(path.clone()));
        }
        Ok(())
    }
}

impl FromStr for CheckSpec {
    type Err = CheckSpecError;

    /// Reads `http:/healthz`, `http:/healthz@web,interval=5s`, `tcp`, `tcp@game,fall=1`.
    fn from_str(text: &str) -> Result<Self, CheckSpecError> {
        let syntax = || CheckSpecError::Syntax(text.to_owned());
        let mut parts = text.split(',');
        let head = parts.next().unwrap_or_default();
        let (what, port) = match head.rsplit_once('@') {
            Some((what, port)) => {
                let port = port.parse().map_err(|e| CheckSpecError::Port(text.to_owned(), e))?;
                (what, Some(port))
            }
            None => (head, None),
        };
        let kind = match what.split_once(':') {
            Some(("http", path)) => CheckKind::Http { path: path.to_owned() },
            None if what == "http" => CheckKind::Http { path: "/".to_owned() },
            None if what == "tcp" => CheckKind::Tcp,
            _ => return Err(syntax()),
        };
        let mut check = Self { port, ..Self::new(kind) };
        let mut timeout_given = false;
        for option in parts {
            let (key, value) = option.split_once('=').ok_or_else(syntax)?;
            match key {
                "interval" => check.interval = humantime::parse_duration(value).map_err(|_| syntax())?,
                "timeout" => {
                    check.timeout = humantime::parse_duration(value).map_err(|_| syntax())?;
                    timeout_given = true;
                }
                "fall" => check.fall = value.parse().map_err(|_| syntax())?,
                "rise" => check.rise = value.parse().map_err(|_| syntax())?,
                _ => return Err(syntax()),
            }
        }
        if !timeout_given {
            check.timeout = check.timeout.min(check.interval);
        }
        check.validate()?;
        Ok(check)
    }
}

impl fmt::Display for CheckSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            CheckKind::Http { path } => write!(f, "http:{path}")?,
            CheckKind::Tcp => write!(f, "tcp")?,
        }
        if let Some(port) = &self.port {
            write!(f, "@{port}")?;
        }
        Ok(())
    }
}

/// Durations as `10s` in JSON, so that a reader needs no unit from elsewhere.
pub(crate) mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text)
            .map_err(|e| D::Error::custom(format!("{text:?} is no duration such as 10s or 1m30s: {e}")))
    }
}

/// The same for a duration that may be left out or `null`.
pub(crate) mod humantime_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::humantime_text;

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "humantime_text")] Duration);

    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        duration.map(Text).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(from)?.map(|Text(duration)| duration))
    }
}
