//! How a plugin says what went wrong.

use std::fmt;

use serde::Serialize;

use crate::SpecVersion;

/// Error codes of the specification, section 5, "Error"; from 100 on they are ours.
pub mod code {
    /// Incompatible CNI version.
    pub const VERSION: u32 = 1;
    /// Unsupported field in the network configuration; the message has its key and value.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// Container unknown or does not exist.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// Invalid environment variables; the message has their names.
    pub const ENVIRONMENT: u32 = 4;
    /// I/O failure.
    pub const IO: u32 = 5;
    /// What should be JSON of a certain shape is not.
    pub const DECODE: u32 = 6;
    /// Invalid network configuration.
    pub const CONFIG: u32 = 7;
    /// Try again later.
    pub const TRY_AGAIN: u32 = 11;
    /// Of STATUS: the plugin cannot serve ADD.
    pub const NOT_AVAILABLE: u32 = 50;
    /// Of STATUS: as [`NOT_AVAILABLE`], and containers that exist may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// Ports were refused: by policy, by a quota, because somebody has them. The message says what to do.
    pub const REFUSED: u32 = 100;
    /// Of CHECK: something of the attachment is not as ADD left it.
    pub const CHANGED: u32 = 101;
    /// The kernel, the journal or the agent failed in a way that trying again may not mend.
    pub const FAILED: u32 = 102;
}

/// An error as the runtime is told: the object on standard output, with exit status 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct CniError {
    /// One of [`code`].
    pub code: u32,
    /// What was wrong and what to do.
    pub message: String,
    /// More of it.
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same with details.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The object for standard output.
    pub fn json(&self, version: SpecVersion) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(rename = "cniVersion")]
            version: &'a str,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let body =
            Body { version: version.as_str(), code: self.code, msg: &self.message, details: &self.details };
        // Strings and a number: nothing that can fail.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        if !self.details.is_empty() {
            write!(f, ": {}", self.details)?;
        }
        Ok(())
    }
}
