//! Small values that several verbs take: labels, pools, durations.

use std::{fmt, str::FromStr, time::Duration};

use portolan_model::{Name, NameError, PortRange, RangeError};

/// `KEY=VALUE`; the value may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Before the first `=`: 1 to 253 characters without spaces.
    pub key: String,
    /// After it.
    pub value: String,
}

impl FromStr for Label {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text.split_once('=').unwrap_or_default();
        if key.is_empty() || key.len() > 253 || key.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("{text:?} is no label: write KEY=VALUE, with a key without spaces"));
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

/// A pool of host ports: `NAME=FIRST-LAST`, or a range alone for the pool named `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The name that `,pool=NAME` in a port request refers to.
    pub name: Name,
    /// The host ports in it.
    pub range: PortRange,
}

impl Pool {
    /// The pool that a request without `,pool=` takes from.
    pub const DEFAULT: &'static str = "default";
}

/// Why a text is no [`Pool`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The part before `=`.
    #[error("in {0:?}: {1}")]
    Name(String, NameError),
    /// The part after it.
    #[error("in {0:?}: {1}")]
    Range(String, RangeError),
}

impl FromStr for Pool {
    type Err = PoolError;
    fn from_str(text: &str) -> Result<Self, PoolError> {
        let (name, range) = text.split_once('=').unwrap_or((Self::DEFAULT, text));
        Ok(Self {
            name: Name::new(name).map_err(|e| PoolError::Name(text.to_owned(), e))?,
            range: range.parse().map_err(|e| PoolError::Range(text.to_owned(), e))?,
        })
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.range)
    }
}

/// A duration of some length, such as `10s`, `1m30s` or `500ms`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.is_zero() => Err("must be more than 0".to_owned()),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("{text:?} is no duration: write 10s, 1m30s or 500ms")),
    }
}

/// A duration that may be 0.
pub(crate) fn duration_or_zero(text: &str) -> Result<Duration, String> {
    if text == "0" { Ok(Duration::ZERO) } else { duration(text).or_else(|e| zero(text).ok_or(e)) }
}

fn zero(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(Duration::is_zero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_alone_is_the_default_pool() {
        let pool: Pool = "20000-29999".parse().unwrap();
        assert_eq!((pool.name.as_str(), pool.range.count()), (Pool::DEFAULT, 10_000));
    }

    #[test]
    fn a_pool_error_names_the_text_and_the_part() {
        let error = "media=30000-20000".parse::<Pool>().unwrap_err().to_string();
        assert!(error.contains("media=30000-20000") && error.contains("ends before it begins"), "{error}");
        assert!("Bad=1-2".parse::<Pool>().unwrap_err().to_string().contains("\"Bad\""));
    }

    #[test]
    fn a_label_keeps_equal_signs_of_its_value() {
        let label: Label = "a=b=c".parse().unwrap();
        assert_eq!((label.key.as_str(), label.value.as_str()), ("a", "b=c"));
        assert!("=x".parse::<Label>().is_err() && "x".parse::<Label>().is_err());
    }

    #[test]
    fn only_zero_or_zero() {
        assert_eq!(duration_or_zero("0"), Ok(Duration::ZERO));
        assert_eq!(duration_or_zero("0s"), Ok(Duration::ZERO));
        assert!(duration("0s").is_err());
        assert!(duration("ten").unwrap_err().contains("10s"));
    }
}
